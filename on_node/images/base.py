"""What an image begins with: a release of the distribution, an archive, an image of a registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from on_node.images import alone, files, oci
from on_node.images.places import BASES
from on_node.images.recipe import Recipe
from on_node.images.refused import Refused

#: Files of a bootstrapped image are no newer: 2020-01-01. Their own dates tell nothing then, and
#: every build of the same packages has the same.
_EPOCH = 1_577_836_800
#: Seconds in which a server says something.
_SILENCE = 60
_BLOCK = 1 << 20


def lay(recipe: Recipe, registry: Path, rootfs: Path, log: Path, lock: int) -> tuple[int, str]:
    """Make the root file system that an image begins with.

    Args:
        recipe: the image's.
        registry: archives are kept there.
        rootfs: a folder that is made.
        log: gets what is said.
        lock: held meanwhile.

    Returns:
        The moment (seconds since 1970) that no file of the image is newer than, and the base in
        words: an image of a registry with the digest that its name stood for.

    Raises:
        Refused: the base is not there, or is another one than was named.
    """
    base, what = recipe.base, recipe.from_what
    if "suite" in base:
        bootstrap(base["suite"], rootfs, log, lock)
        return _EPOCH, what
    if "docker" in base:
        what = oci.unpacked(base["docker"], rootfs, log, lock)
    else:
        archive = fetched(base["url"], base["sha256"], registry / BASES)
        rootfs.mkdir()
        words = ["tar", "--numeric-owner", "-xpf", str(archive), "-C", str(rootfs)]
        alone.run(words, f"{base['url']}: it cannot be unpacked", log, lock=lock)
    if not (rootfs / "bin/sh").exists() and not (rootfs / "usr/bin/sh").exists():
        raise Refused(f"{what}: it holds no /bin/sh, so no root file system of Linux")
    return newest(rootfs), what


def bootstrap(suite: str, rootfs: Path, log: Path, lock: int) -> None:
    """The smallest system of a release, from the package sources of this host."""
    sources = sources_of(suite)
    if not sources:
        raise Refused(
            f"{suite}: no package source of this host has it (apt-get indextargets); add one to "
            "/etc/apt/sources.list.d, or name another suite"
        )
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
    command += [f"--aptopt={line}" for line in apt_options()]
    command += [suite, str(rootfs), *sources]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH), "PYTHONHASHSEED": "0"}
    what = f"{suite} cannot be bootstrapped"
    alone.run(command, what, log, lock=lock, environment=environment)


def sources_of(suite: str) -> list[str]:
    """The lines of apt's sources that this host has of a release and its updates."""
    told = _said(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)",
        "Identifier: Packages",
    )  # fmt: skip
    lines = []
    for line in told.splitlines():
        uri, release, component, *key = line.split()
        if release != suite and not release.startswith(f"{suite}-"):
            continue
        # Where no key is named, apt-get prints the word for it.
        signed = f"[signed-by={key[0]}] " if key and key[0].startswith("/") else ""
        lines.append(f"deb {signed}{uri} {release} {component}")
    return sorted(dict.fromkeys(lines))


def apt_options() -> list[str]:
    """How this host's apt reaches its sources."""
    wanted = re.compile(r'Acquire::https?::[A-Za-z0-9:._-]+ "[^"]+";')
    told = _said("apt-config", "dump", "--no-empty").splitlines()
    return [line.rstrip(";") for line in told if wanted.fullmatch(line)]


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Refused(f"{words[0]}: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout


def fetched(url: str, sha256: str, folder: Path) -> Path:
    """An archive, fetched once: its bytes are the ones that the settings name.

    Raises:
        Refused: it cannot be had, or has another sum.
    """
    kept = folder / sha256
    if kept.is_file() and files.digest(kept) == sha256:
        return kept
    part = folder / f".{sha256}.part"
    try:
        with urllib.request.urlopen(url, timeout=_SILENCE) as answer, part.open("wb") as out:
            shutil.copyfileobj(answer, out, _BLOCK)
        found = files.digest(part)
        if found != sha256:
            raise Refused(f"{url}: expected sha256 {sha256}, found {found}; it was thrown away")
        part.chmod(0o644)
        files.put(part, kept)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Refused(f"{url}: it cannot be fetched: {reason}") from None
    finally:
        part.unlink(missing_ok=True)
    return kept


def newest(rootfs: Path) -> int:
    """When the newest file of a root file system was made."""
    times = [
        int(os.lstat(os.path.join(folder, name)).st_mtime)  # noqa: PTH118
        for folder, _, names in os.walk(rootfs)
        for name in names
    ]
    return max(times, default=_EPOCH)
