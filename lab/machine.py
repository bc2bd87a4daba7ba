"""A node: an overlay over the image, booted by systemd-nspawn as a machine with its own systemd, or
as a virtual machine (`lab.virtual_machine`).

A running node is found by the arguments of its process, never by a pid file, so that after a crash
or a reboot no other process is taken for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from lab import keys, mirror, virtual_machine
from lab.errors import LabError
from lab.names import USER, USER_ID, Lab, places
from lab.network import tap_down
from lab.system import Argument, booted_with_systemd, is_alive, processes, run, start, wait_for

# Of a busy machine, too.
BOOT_SECONDS = 240
POWER_OFF_SECONDS = 20

# systemd(1): SIGRTMIN+4 powers a machine off.
_POWER_OFF = signal.SIGRTMIN + 4

_NETWORK = """\
[Match]
Name=host0 eth0

[Network]
Address={address}/24
LinkLocalAddressing=no
IPv6AcceptRA=no
"""

# Joins the cgroups named before `--`, then becomes what stands behind it.
_IN_CGROUPS = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'


def make(lab: Lab, node: str, image: Path, kernel: Path | None = None) -> bool:
    """A node's disk over the image, with its name, address and keys; False if it has one.

    Args:
        kernel: for a virtual machine, the layer that holds it.
    """
    folder = lab.node_folder(node)
    record = folder / "node.json"
    if record.exists():
        return False
    unmount(lab, node)
    for part in ("upper", "work"):
        shutil.rmtree(folder / part, ignore_errors=True)
    host_key = keys.make_host_key(lab, node)
    upper = folder / "upper"
    address = lab.address(node)
    _put(upper, "etc/hostname", f"{node}\n")
    _put(upper, "etc/hosts", _hosts(lab))
    _put(upper, "etc/machine-id", f"{uuid.uuid4().hex}\n")
    _put(upper, "etc/systemd/network/10-host0.network", _NETWORK.format(address=address))
    _put(upper, "etc/apt/apt.conf.d/90lab-mirror", f'Acquire::http::Proxy "{mirror.proxy(lab)}";\n')
    _put(upper, "etc/ssh/ssh_host_ed25519_key", host_key.read_text(), 0o600)
    _put(upper, "etc/ssh/ssh_host_ed25519_key.pub", f"{keys.public(host_key)}\n")
    _put(upper, "root/.ssh/authorized_keys", f"{keys.public(lab.key)}\n", 0o600)
    _put(upper, f"home/{USER}/.ssh/authorized_keys", f"{keys.public(lab.key)}\n", 0o600)
    _like_image(upper, image)
    home = upper / "home" / USER
    for path in (home, *home.rglob("*")):
        os.chown(path, USER_ID, USER_ID)
    # Written last: without it the next run makes the disk anew.
    layers = {"image": str(image)} | ({"kernel": str(kernel)} if kernel is not None else {})
    record.write_text(json.dumps(layers) + "\n")
    return True


def mount(lab: Lab, node: str) -> None:
    """Mount the node's disk where it is not mounted yet."""
    folder = lab.node_folder(node)
    root = folder / "root"
    if os.path.ismount(root):
        return
    layers = _layers(lab, node)
    for layer in layers:
        if not layer.is_dir():
            raise LabError(
                f"{node}: its image {layer} is gone: `make lab-down LAB={lab.name}`, then make lab"
            )
    for part in ("root", "work", "upper"):
        (folder / part).mkdir(exist_ok=True)
    lower = ":".join(map(str, layers))
    options = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    try:
        run(["mount", "-t", "overlay", f"slurmstack-{lab.machine(node)}", "-o", options, root])
    except LabError as error:
        raise LabError(
            f"{node}: cannot mount its disk ({error}): the kernel needs overlayfs, and the "
            "checkout must lie on a file system that can be an overlay's upper layer (ext4, xfs)"
        ) from error


def unmount(lab: Lab, node: str) -> None:
    """Unmount the node's disk where it is mounted."""
    root = lab.node_folder(node) / "root"
    while os.path.ismount(root):
        if run(["umount", root], check=False).returncode != 0:
            # Something of this machine looks into it; it goes when that ends.
            run(["umount", "--lazy", root])


def is_running(lab: Lab, node: str) -> bool:
    """Whether the node's machine runs."""
    return bool(_supervisors(lab, node))


def boot(lab: Lab, node: str) -> bool:
    """Power the node on; False if it runs. Returns at once: `wait_until_up` waits."""
    if is_running(lab, node):
        return False
    _remove_cgroups(lab, node)
    mount(lab, node)
    folder = lab.node_folder(node)
    kernel, *image = _layers(lab, node)
    if image:
        virtual_machine.boot(lab, node, folder / "root", kernel)
        unmount(lab, node)
        return True
    machine = lab.machine(node)
    command = ["systemd-nspawn", "--quiet", f"--directory={folder / 'root'}", "--boot"]
    command += ["--register=no", "--keep-unit", f"--machine={machine}", f"--hostname={node}"]
    command += [f"--network-bridge={lab.bridge}", "--resolv-conf=off", "--timezone=off"]
    command += ["--link-journal=no", "--console=pipe"]
    console = folder / "console.log"
    if booted_with_systemd():
        # A unit of its own, so that the machine outlives the shell and owns its cgroup.
        unit = ["systemd-run", "--quiet", "--collect", f"--unit=slurmstack-{machine}"]
        unit += ["-p", "Delegate=yes", "-p", "KillMode=mixed", "-p", "TasksMax=infinity"]
        unit += ["-p", f"StandardOutput=append:{console}", "-p", "StandardError=inherit"]
        run([*unit, "--", *command])
        return True
    cgroups = _cgroups(lab, node)
    for cgroup in cgroups:
        cgroup.mkdir(exist_ok=True)
    start(["sh", "-c", _IN_CGROUPS, "sh", *map(str, cgroups), "--", *command], console)
    return True


def wait_until_up(lab: Lab, node: str) -> str:
    """Wait until sshd answers and systemd has started all units.

    Returns systemd's state, `running`, or another with the units that failed.
    """
    console = lab.node_folder(node) / "console.log"
    patience = BOOT_SECONDS * (4 if _is_virtual(lab, node) else 1)
    wait_for(
        lambda: _greets(lab.address(node)) or not is_running(lab, node),
        seconds=patience,
        what=f"{node}: its sshd did not answer at {lab.address(node)}; see {console}",
    )
    if not is_running(lab, node):
        lines = console.read_text(errors="replace").strip().splitlines()[-3:]
        raise LabError(f"{node}: the machine ended while booting: {' | '.join(lines)} ({console})")
    command = "systemctl is-system-running --wait || systemctl list-units --failed --plain --quiet"
    answer = ssh(lab, node, command, timeout=patience, check=False)
    return " ".join((answer.stdout or answer.stderr).split())


def ssh(
    lab: Lab,
    node: str,
    command: str,
    *,
    timeout: float = 60,
    check: bool = True,
    shared: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a node as root, its host key checked; `shared` is `sharing()` for one
    of many that follow each other."""
    words: list[Argument] = ["ssh", "-F", lab.ssh_config, *shared, node, command]
    return run(words, timeout=timeout, check=check, cwd=lab.folder)


def sharing() -> list[str]:
    """Options of ssh(1) with which a command that follows another within two seconds uses its
    connection: a login is most of what a short command costs. What comes later logs in anew, with
    the groups and limits of then. In the lab's folder, where its socket lies: the name of a socket
    may have 100 letters."""
    options = (
        "ControlMaster=auto", "ControlPath=ssh-%n", "ControlPersist=2",
        "ServerAliveInterval=5", "ServerAliveCountMax=2",
    )  # fmt: skip
    return [word for option in options for word in ("-o", option)]


def hang_up(lab: Lab, node: str) -> None:
    """End the connection that is shared, before the machine goes away under it."""
    words: list[Argument] = ["ssh", "-F", lab.ssh_config, *sharing(), "-O", "exit", node]
    run(words, check=False, cwd=lab.folder)


def power_off(lab: Lab, node: str, *, hard: bool = False) -> bool:
    """Shut the node down, or cut its power; False if it did not run. Its disk stays."""
    supervisors = _supervisors(lab, node)
    for supervisor in supervisors:
        inits = _children(supervisor)
        if not hard:
            if not inits:  # a virtual machine
                ssh(lab, node, "systemctl poweroff", check=False)
            _signal(inits, _POWER_OFF)
            _ended(supervisor, POWER_OFF_SECONDS)
        # A machine's processes end with its first one.
        _signal(inits, signal.SIGKILL)
        if not _ended(supervisor, 5):
            _signal([supervisor], signal.SIGKILL)
            if not _ended(supervisor, 10):
                raise LabError(f"{node}: its machine (process {supervisor}) cannot be ended")
    _remove_cgroups(lab, node)
    return bool(supervisors)


def remove(lab: Lab, node: str) -> None:
    """Power off, and leave nothing of the node outside its folder."""
    power_off(lab, node, hard=_is_virtual(lab, node))
    unmount(lab, node)
    tap_down(lab, node)
    virtual_machine.remove_disk(lab, node)
    runtime = Path("/run/systemd/nspawn")
    leftovers = [runtime / part / lab.machine(node) for part in ("propagate", "unix-export")]
    for leftover in leftovers:
        while os.path.ismount(leftover):
            run(["umount", leftover])
        shutil.rmtree(leftover, ignore_errors=True)


def _layers(lab: Lab, node: str) -> list[Path]:
    """What its disk lies over: a virtual machine's kernel, and the image."""
    record = json.loads((lab.node_folder(node) / "node.json").read_text())
    return [Path(record[name]) for name in ("kernel", "image") if name in record]


def _is_virtual(lab: Lab, node: str) -> bool:
    return (lab.node_folder(node) / "disk.img").exists()


def first_process(lab: Lab, node: str) -> int:
    """The number that the init of a running machine has here.

    Raises:
        LabError: it does not run.
    """
    for supervisor in _supervisors(lab, node):
        for process in _children(supervisor):
            return process
    raise LabError(f"{node}: its machine does not run")


def _supervisors(lab: Lab, node: str) -> list[int]:
    # The shell that is about to become systemd-nspawn has the argument, too.
    marks = {
        f"--directory={lab.node_folder(node) / 'root'}",
        f"file={lab.node_folder(node) / 'disk.img'},{virtual_machine.DRIVE}",
    }
    return [pid for pid, words in processes() if marks & {*words} and is_alive(pid)]


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _ended(pid: int, seconds: float) -> bool:
    try:
        wait_for(lambda: not is_alive(pid), seconds=seconds, what=f"process {pid} did not end")
    except LabError:
        return False
    return True


def _greets(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _cgroups(lab: Lab, node: str) -> list[Path]:
    """A cgroup of the machine's own in each hierarchy that a systemd inside it manages.

    Two machines in one cgroup would take each other's for their own.
    """
    folders = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, target, kind, options = line.split()[:4]
        managed = kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(","))
        if managed and "rw" in options.split(","):
            folders.append(Path(target) / f"slurmstack-{lab.machine(node)}")
    return folders


def _remove_cgroups(lab: Lab, node: str) -> None:
    if booted_with_systemd():
        return  # systemd removes its unit's
    for cgroup in _cgroups(lab, node):
        for folder, _folders, _files in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def _like_image(upper: Path, image: Path) -> None:
    """A folder of the upper layer covers the image's: give it the same mode."""
    for path in [upper, *upper.rglob("*")]:
        if path.is_dir():
            covered = image / path.relative_to(upper)
            path.chmod(covered.stat().st_mode & 0o7777 if covered.is_dir() else 0o700)


def _hosts(lab: Lab) -> str:
    """Every name that a node of the lab can have, as a site's name server knows its hosts."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{lab.address(node)} {node}" for node in places()]
    return "\n".join(lines) + "\n"


def _put(upper: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = upper / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
