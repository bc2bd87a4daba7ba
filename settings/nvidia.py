"""``slurmstack:nvidia``: NVIDIA's driver and what belongs to it on compute nodes with GPUs.

What the packages are called is from the pages of Ubuntu's archive (source packages
nvidia-graphics-drivers-570-server and fabric-manager-570; 22.04 and 24.04 have the same names). For
NVIDIA's own repository, up to branch 575: NVIDIA's packaging on GitHub (ubuntu-packaging-nvidia-
driver, apt-packaging-fabric-manager), which has the same names without ``-server``, and what public
installations of 570.133.20, 570.148.08 and 575.57.08 list; docs/drivers.md says which. Neither
repository was at hand: ``packages`` names others.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from settings.artifact import PackageFile
from settings.base import HostList, Model, matching
from settings.packages import PackageName

Version = Annotated[
    str,
    matching(
        r"[0-9][A-Za-z0-9.+:~-]*", "the version of a package, such as 570.172.08-0ubuntu0.22.04.1"
    ),
]
DriverVersion = Annotated[
    str,
    matching(
        r"[0-9]{3,}\.[0-9]+(\.[0-9]+)?(-[A-Za-z0-9.+~]+)?",
        "the version of the driver's packages, such as 570.172.08-0ubuntu0.22.04.1",
    ),
]
#: Whose names packages have → those of the driver: kernel modules by DKMS, nvidia-smi,
#: persistenced, and the libraries of CUDA and video, which all have the very same version.
_DRIVER = {
    "ubuntu": (
        "nvidia-headless-no-dkms-{branch}-server{modules}",
        "nvidia-dkms-{branch}-server{modules}",
        "nvidia-kernel-source-{branch}-server{modules}",
        "nvidia-kernel-common-{branch}-server",
        "nvidia-compute-utils-{branch}-server",
        "nvidia-utils-{branch}-server",
        "libnvidia-cfg1-{branch}-server",
        "libnvidia-compute-{branch}-server",
        "libnvidia-decode-{branch}-server",
    ),
    "nvidia": (
        "nvidia-headless-no-dkms-{branch}{modules}",
        "nvidia-dkms-{branch}{modules}",
        "nvidia-kernel-source-{branch}{modules}",
        "nvidia-kernel-common-{branch}",
        "nvidia-compute-utils-{branch}",
        "nvidia-utils-{branch}",
        "libnvidia-cfg1-{branch}",
        "libnvidia-compute-{branch}",
        "libnvidia-decode-{branch}",
    ),
}
#: The daemon of NVIDIA's own repository is a package of its own, without a branch in its name, from
#: some version between 570.133.20 and this one on. Left to apt it would be the newest, which
#: conflicts with the driver's libnvidia-cfg1.
_PERSISTENCED, _PERSISTENCED_SINCE = "nvidia-persistenced", (570, 148, 8)
#: From this branch on NVIDIA's own repository has names of another kind: 590 by NVIDIA's Driver
#: Installation Guide ("Ubuntu 590 and later packages"), and 580 has no nvidia-compute-utils.
NVIDIA_RENAMED = 580
#: The first branch for CUDA 13 (NVIDIA, CUDA Compatibility, table 1).
CUDA_13 = 580


def upstream(version: str) -> str:
    """NVIDIA's own version in that of a package: without epoch and revision (deb-version(7))."""
    return re.sub(r"^[0-9]+:", "", version).rpartition("-")[0] or version


def numbers(version: str) -> tuple[int, ...]:
    """A version to compare."""
    return tuple(int(part) for part in re.findall(r"\d+", upstream(version)))


class Driver(Model):
    """``slurmstack:nvidia.driver``."""

    version: DriverVersion
    #: Which kernel modules.
    modules: Literal["open", "proprietary"] = "open"
    #: Whose names its packages have.
    names: Literal["ubuntu", "nvidia"] = "ubuntu"
    #: Its packages, in place of those that follow from these; all at this version.
    packages: tuple[PackageName, ...] = ()

    @property
    def branch(self) -> int:
        """570 of 570.172.08."""
        return int(self.version.partition(".")[0])

    @property
    def upstream(self) -> str:
        """What the kernel module and nvidia-smi call themselves."""
        return upstream(self.version)

    @property
    def package_names(self) -> tuple[str, ...]:
        """All of its packages."""
        modules = "-open" if self.modules == "open" else ""
        named = [name.format(branch=self.branch, modules=modules) for name in _DRIVER[self.names]]
        if self.names == "nvidia" and numbers(self.version) >= _PERSISTENCED_SINCE:
            named.append(_PERSISTENCED)
        return self.packages or tuple(named)

    @property
    def built(self) -> bool:
        """Whether its modules are built on the node (DKMS)."""
        return any("dkms" in name for name in self.package_names)


class FabricManager(Model):
    """``slurmstack:nvidia.fabricManager``: without it GPUs behind NVSwitches do no work."""

    version: DriverVersion
    #: Host list: the nodes that have NVSwitches; left out, all that get the driver.
    hosts: HostList | None = None
    package: PackageName | None = None

    @property
    def package_name(self) -> str:
        return self.package or f"nvidia-fabricmanager-{self.version.partition('.')[0]}"


class Addition(Model):
    """Software beside the driver: packages at one version."""

    version: Version
    #: In place of those that it usually has.
    packages: tuple[PackageName, ...] = ()


class Nvidia(Model):
    """``slurmstack:nvidia``."""

    #: Host list; left out, the compute nodes that have NVIDIA GPUs.
    hosts: HostList | None = None
    driver: Driver
    fabric_manager: FabricManager | None = None
    #: Whether nvidia-persistenced keeps the driver loaded while no program uses a GPU.
    persistence: bool = True
    container_toolkit: Addition | None = None
    dcgm: Addition | None = None
    gdrcopy: Addition | None = None
    #: Whether nvidia-peermem is loaded, by which InfiniBand adapters reach the GPUs' memory.
    peer_memory: bool = False
    #: Versions of CUDA that programs and images are built with, such as "12.8".
    cuda: tuple[
        Annotated[str, matching(r"[0-9]+\.[0-9]+", 'a version of CUDA in quotes, such as "12.8"')],
        ...,
    ] = ()
    #: Package files of the site, where no package source has them.
    package_files: tuple[PackageFile, ...] = ()

    @property
    def additions(self) -> dict[str, Addition]:
        """Key → what is given beside the driver."""
        keys = {
            "containerToolkit": self.container_toolkit, "dcgm": self.dcgm, "gdrcopy": self.gdrcopy,
        }  # fmt: skip
        return {key: it for key, it in keys.items() if it is not None}

    def packages_of(self, key: str) -> tuple[str, ...]:
        """The packages of an addition."""
        return self.additions[key].packages or self._usual[key]

    @property
    def _usual(self) -> dict[str, tuple[str, ...]]:
        # The toolkit's four are installed at one version (its installation guide); DCGM 4 has a
        # package for each major CUDA (its user guide); GDRCopy's are of its own packaging.
        cuda = 13 if self.driver.branch >= CUDA_13 else 12
        return {
            "containerToolkit": (
                "nvidia-container-toolkit", "nvidia-container-toolkit-base",
                "libnvidia-container-tools", "libnvidia-container1",
            ),
            "dcgm": ("datacenter-gpu-manager-4-core", f"datacenter-gpu-manager-4-cuda{cuda}"),
            "gdrcopy": ("gdrdrv-dkms", "libgdrapi"),
        }  # fmt: skip

    @property
    def versions(self) -> dict[str, str]:
        """Package → version, of all that any node gets."""
        found = dict.fromkeys(self.driver.package_names, self.driver.version)
        if self.fabric_manager is not None:
            found[self.fabric_manager.package_name] = self.fabric_manager.version
        for key, addition in self.additions.items():
            found |= dict.fromkeys(self.packages_of(key), addition.version)
        return found
