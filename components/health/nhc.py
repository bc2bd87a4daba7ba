"""Node health checks: nhc.conf for LBNL's NHC, which slurmd runs."""

from __future__ import annotations

from collections.abc import Mapping

from components.host.mounts import mounted
from components.host.scratch import scratches
from remote.bundle import Directory, File, Package, Part
from settings import Settings
from settings.gres import real_gpus
from settings.model import Hardware
from templates.rendering import render

CONF = "/etc/nhc/nhc.conf"


def parts(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> list[Part]:
    """What a compute node gets of it."""
    check = settings.health_check
    if check is None or check.by != "nhc" or node not in settings.compute:
        return []
    package: list[Part] = [Package(check.package)] if check.package else []
    text = nhc_conf(node, settings, hardware[node])
    return [*package, Directory("/etc/nhc"), File(CONF, text)]


def nhc_conf(node: str, settings: Settings, has: Hardware) -> str:
    """nhc.conf: what the settings say the node has, then the rules of the site.

    It speaks of this node alone, so that a node that joins changes no other; alike nodes have
    alike files.
    """
    assert settings.health_check is not None
    node_class = settings.compute[node]
    sockets = has.Boards * has.SocketsPerBoard
    cores = sockets * has.CoresPerSocket
    offered = node_class.RealMemory or has.RealMemory
    checks = [
        f"check_hw_cpuinfo {sockets} {cores} {cores * has.ThreadsPerCore}",
        f"check_hw_physmem {offered}MB {has.RealMemory}MB 3%",
    ]
    if settings.precheck.infiniband_rate is not None:
        checks.append(f"check_hw_ib {settings.precheck.infiniband_rate}")
    if real_gpus(node_class.gres(has)):
        checks.append("check_cmd_status -t 20 -r 0 nvidia-smi --query-gpu=uuid --format=csv")
    for share in mounted(node, settings).values():
        access = "ro" if "ro" in share.mount_options else "rw"
        checks.append(f"check_fs_mount_{access} -f {share.mounted_at}")
    for scratch in scratches(node, settings).values():
        checks.append(f"check_fs_mount_rw -f {scratch.path}")
    return render("health/nhc.conf", checks=checks, rules=settings.health_check.rules)
