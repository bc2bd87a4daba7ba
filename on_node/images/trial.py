"""Tests of an image: commands in it, without rights, in namespaces of their own.

As a runtime without rights has it: the user is nobody else's and gains nothing, and what the image
sets is the whole environment. Enroot and Apptainer themselves run those tests that ask for nodes.
"""

from __future__ import annotations

import pwd
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from on_node.images import alone, build, files, rootfs
from on_node.images.places import CANDIDATES, USER
from on_node.images.recipe import Recipe, Site
from on_node.images.refused import Refused

_RUN = (
    "set -e\n"
    # As containers are by default: nothing in them is changed but what is mounted over.
    'mount --bind -o ro,nosuid "$1" "$1"\n'
    + alone.MOUNTS
    + """
mount -t tmpfs -o mode=1777 tmp "$1/tmp"
root=$1 user=$2
shift 2
exec setpriv --no-new-privs chroot --userspec="$user" "$root" "$@"
"""
)


def test(site: Site, recipe: Recipe, who: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Try the candidate of a name, and keep what came of it.

    Returns:
        What is known of it; `tests` has `run`, `passed`, `words` and `seconds` of each.

    Raises:
        Refused: nothing is built, it was changed since, or another build goes on.
    """
    with build.working(site, f"the tests of {recipe.title} by {who}") as (work, lock):
        known = build.candidate(site.root, recipe.name)
        log = work / "log"
        tree = work / "rootfs"
        words = ["unsquashfs", "-q", "-n", "-no-xattrs", "-d", str(tree)]
        alone.run([*words, str(site.root / known["file"])], "it cannot be unpacked", log, lock=lock)
        account = pwd.getpwnam(USER)
        work.chmod(0o711)
        tried = []
        for one in recipe.tests:
            say(f"{recipe.title}: {one['run']}")
            tried.append(_tried(one, tree, f"{account.pw_uid}:{account.pw_gid}", log, lock))
        known["tests"] = tried
        known["tested"] = known["sha256"]
        files.write_json(site.root / CANDIDATES / f"{recipe.name}.json", known)
    return known


def _tried(one: Mapping[str, Any], tree: Path, user: str, log: Path, lock: int) -> dict[str, Any]:
    variables = {"HOME": "/tmp", "LANG": "C.UTF-8", **rootfs.environment(tree)}
    command = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
    command += ["sh", "-c", f"cd /tmp && {one['run']}"]
    start, began = log.stat().st_size, time.monotonic()
    passed, words = True, ""
    try:
        alone.run(
            ["sh", "-c", _RUN, "sh", str(tree), user, *command],
            shlex.quote(one["run"]), log, lock=lock, seconds=float(one["timeout"]),
        )  # fmt: skip
        with log.open("rb") as file:
            file.seek(start)
            words = (file.read().decode(errors="replace").strip().splitlines() or [""])[-1][:200]
    except Refused as error:
        passed, words = False, str(error)
    seconds = round(time.monotonic() - began, 1)
    return {"run": one["run"], "passed": passed, "words": words, "seconds": seconds}


def of_nodes(site: Site, recipe: Recipe, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep what came of the tests that ran as jobs, beside those of this host.

    Raises:
        Refused: the candidate is another one by now.
    """
    known = build.candidate(site.root, recipe.name)
    if known.get("tested") != known["sha256"]:
        raise Refused(f"{recipe.title}: built anew meanwhile; slurmstack image test {recipe.name}")
    known["tests"] = [it for it in known["tests"] if not it.get("nodes")] + results
    files.write_json(site.root / CANDIDATES / f"{recipe.name}.json", known)
    return known


def whole(known: dict[str, Any], wanted: list[str]) -> str:
    """Why a candidate must not be published; nothing where it may.

    Args:
        known: what is known of it.
        wanted: the commands of all its tests.
    """
    if known.get("tested") != known["sha256"]:
        return "it was not tested"
    failed = [it for it in known["tests"] if not it["passed"]]
    if failed:
        return f"a test failed: {failed[0]['run']}: {failed[0]['words']}"
    missing = [it for it in wanted if it not in {one["run"] for one in known["tests"]}]
    return f"a test was not run: {missing[0]}" if missing else ""
