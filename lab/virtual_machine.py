"""A node with a kernel of its own: a virtual machine in software, for what a machine inside a
container cannot show, which is cgroup v2.

Its disk is made from the same image and the same files as every other node's; a kernel lies over
the image, in the cache. Hardware virtualisation is not asked for: the machine that runs the lab may
be a virtual one itself.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab import mirror
from lab.errors import LabError
from lab.image import locked
from lab.names import Lab
from lab.network import tap_up
from lab.system import run, start

#: What is called, and Debian's package of it; e2fsprogs is essential.
QEMU, QEMU_PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
KERNEL = ("linux-image-cloud-amd64", "initramfs-tools")
#: All that it needs to find its disk: more takes a software machine seconds to unpack.
_INITRAMFS = "MODULES=list\nCOMPRESS=lz4\n"
_MODULES = "virtio_pci\nvirtio_blk\nvirtio_net\next4\n"
_DISK = "4G"
#: Its contents are thrown away, and need not be on this machine's disk in any order.
DRIVE = "if=virtio,format=raw,cache=unsafe"
_MEMORY, _PROCESSORS = "1536", "2"
_COMMAND_LINE = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet mitigations=off"


def why_not() -> str | None:
    """Why this machine can run no such node, or None if it can be tried."""
    if os.uname().machine != "x86_64":
        return f"virtual machines of the lab are x86_64; this machine is {os.uname().machine}"
    return None


def kernel(lab: Lab, cache: Path, image: Path, log: Path) -> Path:
    """The layer over the image that holds a kernel, made once (a minute) and cached.

    Args:
        image: a folder of the cache.

    Raises:
        LabError: it cannot be made here.
    """
    reason = why_not()
    if reason is not None:
        raise LabError(reason)
    layer = cache / f"kernel-{image.name.removeprefix('image-')}"
    with locked(cache):
        if not layer.exists():
            _make_layer(lab, image, layer, log)
            for other in cache.glob("kernel-*"):
                if not (cache / other.name.replace("kernel-", "image-", 1)).exists():
                    shutil.rmtree(other)
    return layer


def boot(lab: Lab, node: str, root: Path, layer: Path) -> None:
    """Power it on; its disk is made from ``root``, which is mounted, where it has none yet."""
    folder = lab.node_folder(node)
    disk = folder / "disk.img"
    if not disk.exists():
        new = folder / "disk.new"
        new.unlink(missing_ok=True)
        run(["mke2fs", "-q", "-t", "ext4", "-d", root, new, _DISK], timeout=600)
        new.rename(disk)
    command = [QEMU, "-name", lab.machine(node), "-nodefaults", "-no-user-config", "-nographic"]
    command += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", _PROCESSORS, "-m", _MEMORY]
    command += ["-kernel", str(_newest(layer, "vmlinuz")), "-initrd", str(_newest(layer, "initrd"))]
    command += ["-append", _COMMAND_LINE, "-serial", f"file:{folder / 'console.log'}"]
    command += ["-drive", f"file={disk},{DRIVE}"]
    tap = f"tap,id=lab,ifname={tap_up(lab, node)},script=no,downscript=no"
    command += ["-netdev", tap, "-device", f"virtio-net-pci,netdev=lab,mac={_mac(lab, node)}"]
    command += ["-device", "virtio-rng-pci"]
    start(command, folder / "qemu.log")


def remove_disk(lab: Lab, node: str) -> None:
    """Forget what it wrote."""
    (lab.node_folder(node) / "disk.img").unlink(missing_ok=True)


def _make_layer(lab: Lab, image: Path, layer: Path, log: Path) -> None:
    partial = layer.with_name(f"partial-{layer.name}")
    shutil.rmtree(partial, ignore_errors=True)
    upper, work, root = (partial / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir(parents=True)
    options = f"lowerdir={image},upperdir={upper},workdir={work}"
    run(["mount", "-t", "overlay", "slurmstack-kernel", "-o", options, root])
    try:
        conf = root / "etc/initramfs-tools"
        (conf / "conf.d").mkdir(parents=True)
        (conf / "conf.d/lab").write_text(_INITRAMFS)
        (conf / "modules").write_text(_MODULES)
        apt = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
        apt += ["-o", f"Acquire::http::Proxy={mirror.proxy(lab)}"]
        apt += ["-o", "Dpkg::Options::=--force-confold"]
        inside = ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no"]
        inside += ["--keep-unit", "--setenv=DEBIAN_FRONTEND=noninteractive", "--pipe"]
        run([*inside, *apt, *KERNEL, "lz4"], timeout=900, log=log)
        run([*inside, "apt-get", "clean"], log=log)
    finally:
        run(["umount", root])
    # Its own: what a node of the image has it keeps.
    (upper / "etc/machine-id").unlink(missing_ok=True)
    upper.rename(layer)
    shutil.rmtree(partial)


def _newest(layer: Path, what: str) -> Path:
    """``boot/vmlinuz-VERSION`` of the layer."""
    return sorted((layer / "boot").glob(f"{what}*-*"))[-1]


def _mac(lab: Lab, node: str) -> str:
    last = lab.address(node).rpartition(".")[2]
    return f"02:73:01:00:{lab.subnet:02x}:{int(last):02x}"
