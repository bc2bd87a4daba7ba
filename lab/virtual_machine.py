"""A node with a kernel of its own: a virtual machine in software, for what a machine inside a
container cannot show: cgroup v2, NFS, disks, quotas.

Its disk is made from the same image and the same files as every other node's; a kernel lies over
the image, in the cache, and with it the packages that deployments install there, as processors in
software take minutes to unpack them. Hardware virtualisation is not asked for: the machine that
runs the lab may be a virtual one itself.
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
KERNEL = ("linux-image-cloud-amd64", "initramfs-tools", "lz4")
#: Nothing of them is started before a deployment does.
PACKAGES = (
    "libpam-slurm-adopt", "mdadm", "munge", "nfs-common", "nfs-kernel-server", "pamtester", "quota",
    "slurmd", "xfsprogs",
)  # fmt: skip
#: Raised when what this module puts over an image changes.
RECIPE = 2
#: All that it needs to find its disk: more takes a software machine seconds to unpack.
_INITRAMFS = "MODULES=list\nCOMPRESS=lz4\n"
_MODULES = "virtio_pci\nvirtio_blk\nvirtio_net\next4\n"
_DISK = "4G"
#: Its contents are thrown away, and need not be on this machine's disk in any order.
DRIVE = "if=virtio,format=raw,cache=unsafe"
#: Of each NVMe disk beside its own; sparse, as empty ones are.
_NVME_BYTES = 1 << 30
#: Libraries take the wide vectors of newer ones, at which software is slow: "max" needs 97 seconds
#: of processors' time for what this one does in 67.
_MODEL = "Nehalem"
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
    layer = cache / f"kernel{RECIPE}-{image.name.removeprefix('image-')}"
    with locked(cache):
        if not layer.exists():
            _make_layer(lab, image, layer, log)
            for other in cache.glob("kernel*-*"):
                if not (cache / f"image-{other.name.partition('-')[2]}").exists():
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
    command += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", _MODEL]
    command += ["-smp", _PROCESSORS, "-m", _MEMORY]
    command += ["-kernel", str(_newest(layer, "vmlinuz")), "-initrd", str(_newest(layer, "initrd"))]
    command += ["-append", _COMMAND_LINE, "-serial", f"file:{folder / 'console.log'}"]
    command += ["-drive", f"file={disk},{DRIVE}"]
    tap = f"tap,id=lab,ifname={tap_up(lab, node)},script=no,downscript=no"
    command += ["-netdev", tap, "-device", f"virtio-net-pci,netdev=lab,mac={_mac(lab, node)}"]
    command += ["-device", "virtio-rng-pci"]
    for nvme in _nvmes(lab, node):
        command += ["-drive", f"file={nvme},id={nvme.stem},{DRIVE.replace('virtio', 'none')}"]
        command += ["-device", f"nvme,drive={nvme.stem},serial={nvme.stem}"]
    start(command, folder / "qemu.log")


def remove_disk(lab: Lab, node: str) -> None:
    """Forget what it wrote."""
    for disk in (lab.node_folder(node) / "disk.img", *_nvmes(lab, node)):
        disk.unlink(missing_ok=True)


def add_disks(lab: Lab, node: str, count: int) -> None:
    """Empty NVMe disks, there from the next boot on; those that it has stay as they are."""
    for number in range(count):
        with (lab.node_folder(node) / f"nvme{number}.img").open("ab") as disk:
            disk.truncate(_NVME_BYTES)


def _nvmes(lab: Lab, node: str) -> list[Path]:
    return sorted(lab.node_folder(node).glob("nvme*.img"))


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
        run([*inside, *apt, *KERNEL], timeout=900, log=log)
        # It is booted with what was made by now: mdadm would have each boot load all kinds of RAID.
        (conf / "update-initramfs.conf").write_text("update_initramfs=no\n")
        run([*inside, *apt, *PACKAGES], timeout=900, log=log)
        run([*inside, "apt-get", "clean"], log=log)
        for wanted in (upper / "etc/systemd/system").glob("*.wants/*"):
            (root / wanted.relative_to(upper)).unlink()
        # Its mount namespaces are numbered by a kernel of its own.
        run([*inside, "systemctl", "disable", "lab-settle.service"], log=log)
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
