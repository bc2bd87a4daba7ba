"""One build at a time: a candidate that is whole, or nothing.

A candidate is an image and, beside it, what is known of it: `.candidates/NAME.json`. That comes
last, and names the image's file by its digest.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from on_node.images import alone, base, files, rootfs
from on_node.images.places import BASES, CANDIDATES, WORK
from on_node.images.recipe import Recipe, Site
from on_node.images.refused import Refused
from on_node.images.registry import Registry, now

#: Every reader of squashfs has gzip. Owners and extended attributes mean nothing to runtimes
#: without rights; Enroot leaves out the owners as well when it imports (its src/docker.sh).
_SQUASH = ("-noappend", "-no-progress", "-quiet", "-comp", "gzip", "-all-root", "-no-xattrs")


def build(site: Site, recipe: Recipe, who: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Make an image, to be tried and published.

    Args:
        site: whose registry.
        recipe: what is made.
        who: asked for it.
        say: gets a line a step.

    Returns:
        What is known of the candidate.

    Raises:
        Refused: another build goes on, a step failed, or there is no room.
    """
    folders(site.root)
    with working(site, f"the build of {recipe.title} by {who}") as (work, lock):
        _room(site)
        say(f"{recipe.title}: from {recipe.from_what}")
        began = time.monotonic()
        tree, log = work / "rootfs", work / "log"
        log.touch(mode=0o600)
        epoch, base_was = base.lay(recipe, site.root, tree, log, lock)
        say(f"{recipe.title}: what goes into it")
        rootfs.make(recipe, tree, epoch, log, lock)
        packages = rootfs.finish(recipe, tree, epoch, base_was)
        say(f"{recipe.title}: its image")
        part = site.root / CANDIDATES / ".part"
        _squash(tree, part, epoch, log, lock)
        size, sha256 = part.stat().st_size, files.digest(part)
        if site.limit is not None and Registry(site.root).taken() + size > site.limit:
            raise Refused(f"{site.root}: an image of {size >> 20} MiB is more than is left of its "
                          f"limit of {site.limit >> 20} MiB; slurmstack image gc or rm makes "
                          "room")  # fmt: skip
        known = {
            "name": recipe.name, "version": recipe.version, "sha256": sha256, "size": size,
            "file": f"{CANDIDATES}/{recipe.name}+{recipe.version}+{sha256[:12]}.sqsh",
            "base": base_was, "recipe": recipe.digest, "built": now(), "built_by": who,
            "packages": len(packages), "seconds": round(time.monotonic() - began),
        }  # fmt: skip
        keep(site.root, part, known)
        return known


def folders(root: Path) -> None:
    """What a registry has; registry.yaml comes with what is published first."""
    for folder in (root / CANDIDATES, root / BASES):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


@contextmanager
def working(site: Site, what: str) -> Iterator[tuple[Path, int]]:
    """A folder of this build's own; what one that was killed left is taken away first.

    Yields:
        The folder, and the lock's descriptor for the programs that work in it.

    Raises:
        Refused: another one builds or tries an image.
    """
    WORK.mkdir(mode=0o700, exist_ok=True)
    with files.held(site.root / ".building", what) as lock:
        work = WORK / "build"
        clean(site.root)
        work.mkdir(mode=0o700)
        try:
            yield work, lock
        except OSError as error:
            place = error.filename or site.root
            raise Refused(f"{place}: {error.strerror or error}; nothing was published") from None
        finally:
            clean(site.root)


def clean(root: Path) -> None:
    """Take away what is no candidate and what belongs to no build; mounts there are none."""
    shutil.rmtree(WORK / "build", ignore_errors=True)
    (root / CANDIDATES / ".part").unlink(missing_ok=True)
    for place in (root / BASES).glob(".*.part"):
        place.unlink()
    known = {it["file"] for it in candidates(root)}
    for place in (root / CANDIDATES).glob("*.sqsh"):
        if f"{CANDIDATES}/{place.name}" not in known:
            place.unlink()


def keep(root: Path, part: Path, known: dict[str, Any]) -> None:
    """An image becomes the candidate of its name, in place of the one before."""
    part.chmod(0o644)
    files.put(part, root / known["file"])
    files.write_json(root / CANDIDATES / f"{known['name']}.json", known)


def candidates(root: Path) -> list[dict[str, Any]]:
    """What is built and not published."""
    found = []
    for place in sorted((root / CANDIDATES).glob("*.json")):
        if place.name.startswith("."):
            continue
        try:
            known = json.loads(place.read_text(encoding="utf-8"))
            known["file"], known["sha256"], known["size"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if (root / known["file"]).is_file():
            found.append(known)
    return found


def candidate(root: Path, name: str) -> dict[str, Any]:
    """
    Raises:
        Refused: nothing of this name is built, or it was changed since.
    """
    for known in candidates(root):
        if known["name"] == name:
            found = files.digest(root / known["file"])
            if found != known["sha256"]:
                raise Refused(
                    f"{root / known['file']} was changed: sha256 {found}; it was built with "
                    f"{known['sha256']}; build it anew (slurmstack image build {name})"
                )
            return known
    raise Refused(f"{name}: none is built that is not published; slurmstack image build {name}")


def _room(site: Site) -> None:
    taken = Registry(site.root).taken()
    if site.limit is not None and taken >= site.limit:
        raise Refused(f"{site.root}: {taken >> 20} MiB of its limit of {site.limit >> 20} MiB are "
                      "taken; slurmstack image gc or rm makes room")  # fmt: skip


def _squash(tree: Path, part: Path, epoch: int, log: Path, lock: int) -> None:
    words = ["mksquashfs", str(tree), str(part), *_SQUASH, "-mkfs-time", str(epoch)]
    environment = {key: it for key, it in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    alone.run(words, f"{part.parent}: the image cannot be written", log, lock=lock,
              environment=environment)  # fmt: skip
