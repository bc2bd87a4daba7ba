"""The image that every node starts from: a generic Debian machine, built once and cached.

Nothing of Slurm or MUNGE is in it; installing those is the product's work.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab import mirror
from lab.names import USER, USER_ID, Lab
from lab.sources import SUITE
from lab.system import run

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "less",
    "openssh-server",
    "procps",
    "systemd",
    "systemd-sysv",
    "udev",
)
# Raised when what this module does to an image changes, so that old images are not taken.
RECIPE = 3
# An older image is built anew: its packages would all be upgraded by hand otherwise.
MAXIMUM_AGE = 14 * 24 * 3600

_MASKED = (
    # Would take dpkg's lock at a moment of its own choosing.
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
)


def cache_folder() -> Path:
    """`$SLURMSTACK_CACHE`, or `slurmstack` in the user's cache folder."""
    chosen = os.environ.get("SLURMSTACK_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "slurmstack"


_SETTLE = """\
[Unit]
Description=Numbers of namespaces
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/settle

[Install]
WantedBy=sysinit.target
"""


def find(cache: Path, options: Mapping[str, str]) -> Path | None:
    """The newest image of this recipe that is young enough, or None."""
    images = sorted(cache.glob(f"image-{_digest(options)}-*"))
    if images and time.time() - images[-1].stat().st_mtime < MAXIMUM_AGE:
        return images[-1]
    return None


def build(lab: Lab, cache: Path, options: Mapping[str, str], log: Path) -> Path:
    """Build the image through the lab's mirror (half a minute) and return its folder.

    `options` are apt options that the nodes share with this machine. Two labs that start at once
    build it once.
    """
    with locked(cache):
        image = find(cache, options)
        if image is not None:
            return image
        for partial in cache.glob("partial-*"):  # of a build that was cut off
            shutil.rmtree(partial)
        partial = cache / f"partial-{os.getpid()}"
        apt = {"Acquire::http::Proxy": mirror.proxy(lab), "Acquire::Languages": "none", **options}
        # It ends with this process, however that ends.
        command = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
        ]
        command += [f"--include={','.join(PACKAGES)}", "--skip=cleanup/apt/lists"]
        command += [f'--aptopt={name} "{value}"' for name, value in apt.items()]
        run([*command, SUITE, partial, *mirror.source_lines(SUITE)], timeout=900, log=log)
        _finish(partial, options, log)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        image = cache / f"image-{_digest(options)}-{stamp}"
        os.utime(partial)
        partial.rename(image)
        _prune(cache)
        return image


def _finish(root: Path, options: Mapping[str, str], log: Path) -> None:
    apt = root / "etc/apt/apt.conf.d"
    (apt / "99mmdebstrap").unlink(missing_ok=True)
    kept = {"Acquire::Languages": "none", **options}
    text = "".join(f'{name} "{value}";\n' for name, value in sorted(kept.items()))
    (apt / "90lab").write_text(text)
    # A lab's disks are thrown away; waiting for them to be written is lost time.
    (root / "etc/dpkg/dpkg.cfg.d/lab").write_text("force-unsafe-io\n")
    sshd = root / "etc/ssh/sshd_config.d/lab.conf"
    sshd.write_text("PermitRootLogin prohibit-password\nPasswordAuthentication no\n")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()  # each node gets its own
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("# A lab node has no name server.\n")
    chroot = ["chroot", str(root)]
    run([*chroot, "systemctl", "enable", "systemd-networkd.service", "ssh.service"], log=log)
    run([*chroot, "systemctl", "mask", *_MASKED], log=log)
    # Before anything else of a boot, also of one that the machine itself asks for.
    (root / "usr/local/sbin/settle").write_text((Path(__file__).parent / "settle.sh").read_text())
    (root / "usr/local/sbin/settle").chmod(0o755)
    (root / "etc/systemd/system/lab-settle.service").write_text(_SETTLE)
    run([*chroot, "systemctl", "enable", "lab-settle.service"], log=log)
    user = ["useradd", f"--uid={USER_ID}", "--create-home", "--shell=/bin/bash", USER]
    run([*chroot, *user], log=log)
    run([*chroot, "apt-cache", "gencaches"], log=log)
    run([*chroot, "ldconfig"], log=log)
    # /usr is as new as /etc and /var know it: no update services at the first boot.
    for folder in ("etc", "var"):
        (root / folder / ".updated").touch()


def _prune(cache: Path) -> None:
    """Delete images that are too old to be taken again and that no node's disk lies over."""
    mounts = Path("/proc/self/mounts").read_text()
    for image in cache.glob("image-*"):
        old = time.time() - image.stat().st_mtime >= MAXIMUM_AGE
        if old and f"lowerdir={image}," not in mounts:
            shutil.rmtree(image)


def _digest(options: Mapping[str, str]) -> str:
    recipe = [RECIPE, SUITE, os.uname().machine, PACKAGES, sorted(options.items())]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Two that make something in the cache, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
