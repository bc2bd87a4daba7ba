"""A root file system as it goes into an image: what runtimes read, and no trace of its making."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from on_node.images import alone
from on_node.images.base import apt_options
from on_node.images.places import INSIDE
from on_node.images.recipe import Recipe
from on_node.images.refused import Refused

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = "/opt/python"
#: While the image is made: what its script reads, and how apt reaches packages.
_HERE = "tmp/slurmstack"
#: Who may have signed the certificate of a package index: as this host has it.
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_APT = "etc/apt/apt.conf.d/99slurmstack-build"
#: What tells when or where an image was made, or is kept to make it quicker to change.
_TRACES = (
    "var/log", "var/tmp", "tmp", "run", "dev", "var/cache/apt", "var/lib/apt/lists",
    "var/cache/ldconfig", "root/.cache",
)  # fmt: skip
_TRACE_FILES = (
    "etc/machine-id", "var/lib/dbus/machine-id", "etc/hostname", "etc/resolv.conf", "etc/passwd-",
    "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
    "var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/available", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock", "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old", "var/lib/systemd/random-seed", _APT,
)  # fmt: skip
#: What Enroot runs in a container (its src/docker.sh writes the like for images of registries).
_RC = """\
mkdir -p "/" 2> /dev/null
cd "/" && unset OLDPWD || exit 1

if [ $# -gt 0 ]; then
    exec "$@"
else
    exec /bin/sh
fi
"""
_RUN = (
    "set -e\n"
    + alone.MOUNTS
    + """
if [ -f /etc/hosts ] && [ -f "$1/etc/hosts" ] && [ ! -L "$1/etc/hosts" ]; then
    mount --bind -o ro /etc/hosts "$1/etc/hosts"
fi
if [ -n "$3" ]; then mkdir -p "$1$3" && mount --bind -o ro "$3" "$1$3"; fi
exec chroot "$1" /bin/sh "$2"
"""
)


def make(recipe: Recipe, rootfs: Path, epoch: int, log: Path, lock: int) -> None:
    """Run the image's script in it, as root and in namespaces of its own.

    Raises:
        Refused: a step of it failed.
    """
    here = rootfs / _HERE
    here.mkdir(parents=True)
    # The smallest images of registries have no place for what is mounted.
    for name in ("dev", "proc"):
        (rootfs / name).mkdir(exist_ok=True)
    (here / "make.sh").write_text(recipe.script, encoding="utf-8")
    (here / "lock.txt").write_text(recipe.lock, encoding="utf-8")
    if recipe.lock and _AUTHORITIES.exists():
        shutil.copyfile(_AUTHORITIES, here / "authorities.crt")
    # What packages and pip ask for, as this host finds it.
    resolv = rootfs / "etc/resolv.conf"
    if not resolv.is_symlink() and Path("/etc/resolv.conf").exists():
        shutil.copyfile("/etc/resolv.conf", resolv)
    # What the image has there stays below the mount.
    hosts = rootfs / "etc/hosts"
    lacks_hosts = hosts.parent.is_dir() and not hosts.exists() and not hosts.is_symlink()
    if lacks_hosts:
        hosts.touch()
    if (rootfs / _APT).parent.is_dir():
        (rootfs / _APT).write_text("".join(f"{line};\n" for line in apt_options()))
    missing = recipe.wheels and not Path(recipe.wheels).is_dir()
    if missing:
        raise Refused(f"{recipe.wheels}: no such folder on this host; the lock file's packages "
                      "are to come from there")  # fmt: skip
    # Folders that are there for the mount alone, the innermost first.
    above = [Path(recipe.wheels), *Path(recipe.wheels).parents][:-1] if recipe.wheels else []
    places = [rootfs / str(folder).lstrip("/") for folder in above]
    made = [place for place in places if not place.exists()]
    environment = {
        "PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
        "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0",
    }  # fmt: skip
    words = ["sh", "-c", _RUN, "sh", str(rootfs), f"/{_HERE}/make.sh", recipe.wheels]
    alone.run(
        words, f"{recipe.title}: a step in it failed", log, lock=lock, environment=environment
    )
    for place in made:
        place.rmdir()
    if lacks_hosts:
        hosts.unlink()


def finish(recipe: Recipe, rootfs: Path, epoch: int, base: str) -> dict[str, str]:
    """Put in what runtimes read, and take out what tells of this build.

    Args:
        recipe: the image's.
        rootfs: all of it.
        epoch: no file is newer.
        base: what it began with, in words.

    Returns:
        Package → version, as the image's dpkg has them.
    """
    found = _packages(rootfs)
    for name in _TRACES:
        folder = rootfs / name
        if folder.is_dir() and not folder.is_symlink():
            _emptied(folder)
    for name in _TRACE_FILES:
        (rootfs / name).unlink(missing_ok=True)
    # Mounted over by runtimes, or filled at the start of a system.
    for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (rootfs / name).write_text("")
    for name in ("dev", "proc", "sys", "run", "tmp", "var/tmp"):
        (rootfs / name).mkdir(exist_ok=True, parents=True)
    for name in ("tmp", "var/tmp"):
        (rootfs / name).chmod(0o1777)
    _environment(recipe, rootfs)
    _labels(recipe, rootfs, base)
    about = {
        "name": recipe.name, "version": recipe.version, "base": base,
        "recipe": recipe.digest, "labels": dict(recipe.labels), "packages": found,
    }  # fmt: skip
    (rootfs / INSIDE).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    _no_newer(rootfs, epoch)
    return found


def environment(rootfs: Path) -> dict[str, str]:
    """The variables of an image, as Enroot reads them."""
    try:
        lines = (rootfs / "etc/environment").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


def _environment(recipe: Recipe, rootfs: Path) -> None:
    """For Enroot in /etc/environment and /etc/rc, for Apptainer in /.singularity.d/env."""
    (rootfs / "etc").mkdir(exist_ok=True)
    before = environment(rootfs)
    path = before.get("PATH", "").strip('"') or _PATH
    if (rootfs / PYTHON.lstrip("/")).is_dir() and f"{PYTHON}/bin" not in path.split(":"):
        path = f"{PYTHON}/bin:{path}"
    variables = {**before, "PATH": path, **recipe.environment}
    text = "".join(f"{key}={value}\n" for key, value in sorted(variables.items()))
    (rootfs / "etc/environment").write_text(text, encoding="utf-8")
    folder = rootfs / ".singularity.d/env"
    folder.mkdir(parents=True, exist_ok=True)
    exports = "".join(f"export {key}={shlex.quote(it)}\n" for key, it in sorted(variables.items()))
    (folder / "90-environment.sh").write_text(f"#!/bin/sh\n{exports}", encoding="utf-8")
    (folder / "90-environment.sh").chmod(0o755)
    rc = rootfs / "etc/rc"
    if not rc.exists():
        rc.write_text(_RC, encoding="utf-8")
    (rootfs / "etc/fstab").touch()


def _labels(recipe: Recipe, rootfs: Path, base: str) -> None:
    labels: Mapping[str, str] = {
        "org.opencontainers.image.title": recipe.name,
        "org.opencontainers.image.version": recipe.version,
        "org.opencontainers.image.base.name": base,
        **recipe.labels,
    }
    text = json.dumps(labels, indent=1, sort_keys=True) + "\n"
    (rootfs / ".singularity.d/labels.json").write_text(text, encoding="utf-8")


def _packages(rootfs: Path) -> dict[str, str]:
    admin = rootfs / "var/lib/dpkg"
    if not (admin / "status").exists():
        return {}
    done = subprocess.run(
        ["dpkg-query", f"--admindir={admin}", "-W", "-f", "${Package} ${Version}\\n"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def _emptied(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _no_newer(rootfs: Path, epoch: int) -> None:
    for folder, folders, names in os.walk(rootfs):
        # A link to a folder is among the folders.
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *names))):  # noqa: PTH118
            if os.lstat(path).st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
