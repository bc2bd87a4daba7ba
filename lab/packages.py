"""System packages of this machine that the lab needs, installed without starting a service."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabError
from lab.system import SEARCH, booted_with_systemd, run

# What is called, and the package of Debian and Ubuntu that has it.
NEEDED = {
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nginx": "nginx",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Packages to install, sorted."""
    names = {package for tool, package in NEEDED.items() if shutil.which(tool, path=SEARCH) is None}
    if not KEYRING.exists():
        names.add("debian-archive-keyring")
    return sorted(names)


def install(names: list[str], log: Path) -> None:
    """Install packages with apt; no service of theirs is started, now or at the next boot."""
    if shutil.which("apt-get", path=SEARCH) is None:
        raise LabError(f"needs {', '.join(names)}: install them; apt-get is not on this machine")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "--quiet"]
    # A fresh machine may be installing its updates; dpkg's lock is waited for.
    command += ["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    with _no_service_starts():
        done = run([*command, *names], timeout=900, check=False, log=log, env=quiet)
        if done.returncode != 0:
            # No lists yet, or older than the mirror.
            update = ["apt-get", "update", "-o", "DPkg::Lock::Timeout=300"]
            run(update, timeout=300, check=False, log=log)
            run([*command, *names], timeout=900, log=log, env=quiet)
    if "nginx" in names:
        _keep_web_server_off(log)


def _keep_web_server_off(log: Path) -> None:
    # The lab runs an nginx of its own; the package's must not take port 80 at the next boot.
    run(["systemctl", "disable", "nginx.service"], check=False, log=log)
    if booted_with_systemd():
        run(["systemctl", "stop", "nginx.service"], check=False, log=log)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's policy-rc.d says no to every start, unless the machine has a policy already."""
    try:
        descriptor = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield
        return
    with os.fdopen(descriptor, "w") as policy:
        policy.write("#!/bin/sh\nexit 101\n")
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
