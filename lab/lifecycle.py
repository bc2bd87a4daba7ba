"""A lab from nothing to running machines, and back to nothing."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import (
    deploy,
    image,
    keys,
    machine,
    mirror,
    network,
    packages,
    stack,
    virtual_machine,
)
from lab.errors import LabError
from lab.names import Lab, bridge_name, check_name, choose_subnet, host_part, lab_folder
from lab.progress import Progress
from lab.sources import acquire_options, find_mirrors
from lab.system import SEARCH, allow_watchers

#: Of inotify, for all labs of this machine together: some eighty nodes.
WATCHERS = 512


def checkout() -> Path:
    """The checkout that this package lies in."""
    return Path(__file__).resolve().parent.parent


def existing(name: str) -> Lab | None:
    """The lab of this name if one was begun, running or not."""
    record = lab_folder(checkout(), check_name(name)) / "lab.json"
    try:
        subnet = int(json.loads(record.read_text())["subnet"])
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Lab(name, checkout(), subnet)


def require(name: str) -> Lab:
    """The lab of this name; `LabError` with how to make it where there is none."""
    lab = existing(name)
    if lab is None:
        raise LabError(f"there is no lab named {name}: make it with `make lab LAB={name}`")
    return lab


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab boots machines and makes a network bridge: run it as root (sudo)")


def up(name: str, nodes: Sequence[str], progress: Progress) -> tuple[Lab, bool]:
    """Bring the lab's network, mirror, keys and machines up; whether anything was changed.

    What is there stays as it is. Machines of this lab beyond `nodes` are booted too.
    """
    require_root()
    for node in nodes:
        host_part(node)
    changed = _install_packages(name, progress)
    with network.claiming():
        lab = _claim(name)
        if network.up(lab):
            progress.say(f"bridge {lab.bridge} with {lab.gateway}/24")
            changed = True
    with locked(lab):
        options = acquire_options()
        mirrors = find_mirrors()
        cache = image.cache_folder()
        if mirror.up(lab, mirrors, cache):
            progress.say(
                f"package mirror at {mirror.proxy(lab)} in front of {_shown(mirrors.archive)}"
            )
            changed = True
        deploy.prepare(lab)
        keys.make_passphrase(lab)
        keys.make_user_key(lab)
        if keys.agent_up(lab):
            progress.say("SSH agent with the lab's key")
            changed = True
        base = image.find(cache, options)
        if base is None and not all(
            (lab.node_folder(node) / "node.json").exists() for node in nodes
        ):
            progress.say("building the image of the machines (half a minute, once)")
            base = image.build(lab, cache, options, log_file(lab, "image"))
            progress.say(f"image {base}")
            changed = True
        if base is not None:
            for node in nodes:
                machine.make(lab, node, base)
        return lab, _boot(lab, sorted({*nodes, *lab.nodes()}, key=host_part), progress) or changed


def node_up(
    lab: Lab,
    node: str,
    progress: Progress,
    *,
    fresh: bool = False,
    virtual: bool = False,
    disks: int = 0,
) -> bool:
    """Boot one node of a running lab, made first where it is new or to be made `fresh`; `virtual`
    makes a new one a virtual machine with a kernel of its own, which may have NVMe `disks`."""
    require_root()
    if disks and not virtual:
        raise LabError("--disks are those of a virtual machine: add --virtual")
    host_part(node)
    if network.owner(lab.bridge) != str(lab.checkout):
        raise LabError(f"the lab {lab.name} is not up: `make lab LAB={lab.name}` first")
    with locked(lab):
        if fresh:
            machine.remove(lab, node)
            (lab.node_folder(node) / "node.json").unlink(missing_ok=True)
        cache, log = image.cache_folder(), log_file(lab, "image")
        base = image.build(lab, cache, acquire_options(), log)
        kernel = None
        if virtual:
            if shutil.which(virtual_machine.QEMU, path=SEARCH) is None:
                progress.say(f"installing {virtual_machine.QEMU_PACKAGE}")
                packages.install([virtual_machine.QEMU_PACKAGE], log_file(lab, "packages"))
            kernel = virtual_machine.kernel(lab, cache, base, log)
        machine.make(lab, node, base, kernel)
        virtual_machine.add_disks(lab, node, disks)
        return _boot(lab, [node], progress)


def node_down(lab: Lab, node: str, progress: Progress, *, hard: bool) -> bool:
    """Power one node off, cut off at once if `hard`; its disk stays for the next `node_up`."""
    require_root()
    if node not in lab.nodes():
        raise LabError(f"the lab {lab.name} has no node {node}: it has {', '.join(lab.nodes())}")
    stopped = machine.power_off(lab, node, hard=hard)
    machine.unmount(lab, node)
    how = "cut off" if hard else "shut down"
    progress.say(f"{node} {how}" if stopped else f"{node} was not running")
    return stopped


def down(name: str, progress: Progress) -> bool:
    """Take the lab down and remove all of it; False if there was nothing.

    Needs no record of how far it came, so that it also clears up after a crash.
    """
    require_root()
    folder = lab_folder(checkout(), check_name(name))
    # The subnet matters to no step of taking down, so a lab without its record is taken down too.
    lab = existing(name) or Lab(name, checkout(), 0)
    exists = folder.exists() or network.owner(lab.bridge) == str(lab.checkout)
    if not exists and shutil.which("ip") is not None:
        stack.remove_settings(lab)
        progress.say(f"no lab named {name}: nothing to take down")
        return False
    with locked(lab):
        deploy.end_leftovers(lab)
        nodes = lab.nodes()
        _each(nodes, lambda node: machine.remove(lab, node))
        if nodes:
            progress.say(f"machines ended: {', '.join(nodes)}")
        if mirror.down(lab):
            progress.say("package mirror ended")
        if keys.agent_down(lab):
            progress.say("SSH agent ended")
        if network.down(lab):
            progress.say(f"bridge {lab.bridge} removed")
        stack.remove_settings(lab)
        if stack.holds_secrets(lab):
            progress.say(f"{lab.stack_file.name} stays: it holds secrets")
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
    progress.say(
        f"the lab {name} is gone; the image and its packages stay in {image.cache_folder()}"
    )
    return True


def log_file(lab: Lab, name: str) -> Path:
    """Where a long step's output goes."""
    folder = lab.folder / "log"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


@contextlib.contextmanager
def locked(lab: Lab) -> Iterator[None]:
    """Two commands on one lab, one after the other; on the folder itself, so nothing is left."""
    lab.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lab.folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(
                f"another command works on the lab {lab.name} just now: wait for it, or take "
                "another lab with LAB=name"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _claim(name: str) -> Lab:
    """The lab's record, with a subnet that nothing else on this machine has."""
    lab = existing(name)
    if lab is not None:
        return lab
    labs = checkout() / ".lab"
    taken = network.taken_networks(without=bridge_name(name))
    for record in labs.glob("*/lab.json"):
        other = existing(record.parent.name)
        if other is not None:
            taken.append(ipaddress.IPv4Network(f"10.73.{other.subnet}.0/24"))
    lab = Lab(name, checkout(), choose_subnet(name, taken))
    # Root's alone: the key and the logs lie in it.
    lab.folder.mkdir(parents=True, exist_ok=True)
    lab.folder.chmod(0o700)
    (lab.folder / "lab.json").write_text(json.dumps({"subnet": lab.subnet}) + "\n")
    return lab


def _install_packages(name: str, progress: Progress) -> bool:
    needed = packages.missing()
    if not needed:
        return False
    progress.say(f"installing {', '.join(needed)}")
    log = log_file(Lab(name, checkout(), 0), "packages")
    packages.install(needed, log)
    return True


def _boot(lab: Lab, nodes: Sequence[str], progress: Progress) -> bool:
    keys.write_ssh_files(lab)
    before = allow_watchers(WATCHERS)
    if before is not None:
        progress.say(
            f"fs.inotify.max_user_instances {before} → {WATCHERS}, until this machine's restart"
        )
    started = [node for node in nodes if machine.boot(lab, node)]
    if not started:
        running = ", ".join(f"{node} {lab.address(node)}" for node in nodes)
        progress.say(f"machines run already: {running}")
        return False
    progress.say(f"booting {', '.join(started)}")

    def wait(node: str) -> None:
        state = machine.wait_until_up(lab, node)
        progress.say(f"{node} {lab.address(node)} is up, systemd says {state or 'nothing'}")

    _each(started, wait)
    return True


def _each(nodes: Sequence[str], action: Callable[[str], None]) -> None:
    """The action on all nodes at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        futures = [pool.submit(action, node) for node in nodes]
    for future in futures:
        future.result()


def _shown(address: str) -> str:
    """An address without its user and password."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
