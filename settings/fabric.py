"""``slurmstack:fabric``: NVIDIA's drivers of network adapters on compute nodes, DOCA-OFED or, as it
was called until October 2024, MLNX_OFED.

The packages of one release have versions of many kinds (of the kernel's modules, rdma-core, UCX,
the firmware's tools), and none follows from another: they are named, each with its own. No
repository of NVIDIA's was at hand.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from settings.artifact import PackageFile
from settings.base import HostList, Model, matching
from settings.boot import KernelModule
from settings.nvidia import Version
from settings.packages import PackageName

Release = Annotated[
    str,
    matching(
        r"[0-9]{1,2}\.[0-9]{1,2}-[0-9]+(\.[0-9]+){2}",
        "what modinfo -F version mlx5_core says of it, such as 24.10-2.1.8",
    ),
]


class Fabric(Model):
    """``slurmstack:fabric``."""

    #: Host list; left out, all compute nodes.
    hosts: HostList | None = None
    #: What its modules of the kernel, and ``ofed_info -s``, call themselves.
    version: Release
    #: Package → version.
    packages: Annotated[dict[PackageName, Version], Field(min_length=1)]
    #: Modules that are loaded at each boot beside those that an adapter asks for.
    modules: tuple[KernelModule, ...] = ("ib_umad", "ib_ipoib")
    #: Package files of the site, where no package source has them.
    package_files: tuple[PackageFile, ...] = ()

    @property
    def built(self) -> bool:
        """Whether its modules are built on the node (DKMS)."""
        return any("dkms" in name for name in self.packages)
