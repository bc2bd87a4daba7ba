"""Things that are done to a lab that is watched, and the alerts that must come of each.

GPUs and InfiniBand are not there: what their exporters would say is written after the names of
DCGM's fields and of node-exporter's, and put beside what node-exporter itself tells. It stands in
for them, and shows rules and dashboards, no hardware.
"""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.lab.conftest import RunningLab

_DUMPS = "/var/backups/slurmdbd"
_BY_HAND = "# by hand"
_SBATCH = "sbatch --quiet --mem=50 --chdir=/tmp"
_STAND_IN = "/var/lib/slurmstack-metrics/stand_in.prom"
_LIMITS = "/etc/security/limits.d/90-slurmstack.conf"
_CONF = "/run/slurm/conf/slurm.conf"
_CERTIFICATE = "/usr/local/lib/slurmstack/exporter-certificate"
#: What the product knows of a host is looked at now, not in a minute.
_LOOK = "systemctl start slurmstack-host-metrics"
_NODES = ("ctl", "login01", "cn01")
_RULES = "/etc/prometheus/slurmstack/rules"
#: Metric → its value, and what it is when there is trouble. Counters grow.
_GPU = {
    "DCGM_FI_DEV_GPU_UTIL": (97, 97),
    "DCGM_FI_DEV_FB_USED": (61000, 61000),
    "DCGM_FI_DEV_FB_FREE": (20000, 20000),
    "DCGM_FI_DEV_POWER_USAGE": (640, 640),
    "DCGM_FI_DEV_GPU_TEMP": (61, 88),
    "DCGM_FI_DEV_SM_CLOCK": (1980, 1200),
    "DCGM_FI_DEV_THERMAL_VIOLATION": (0, 9000),
    "DCGM_FI_DEV_POWER_VIOLATION": (0, 0),
    "DCGM_FI_DEV_XID_ERRORS": (0, 79),
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": (0, 7),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": (0, 1),
    "DCGM_FI_DEV_ROW_REMAP_PENDING": (0, 1),
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": (0, 1),
    "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": (0, 4),
    "DCGM_FI_PROF_SM_ACTIVE": (0.9, 0.9),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (0.6, 0.6),
    "DCGM_FI_PROF_PCIE_RX_BYTES": (2e9, 2e9),
    "DCGM_FI_PROF_PCIE_TX_BYTES": (2e9, 2e9),
    "DCGM_FI_PROF_NVLINK_RX_BYTES": (1e11, 1e11),
    "DCGM_FI_PROF_NVLINK_TX_BYTES": (1e11, 1e11),
}
_PORT = {
    "node_infiniband_state_id": (4, 1),
    "node_infiniband_physical_state_id": (5, 3),
    "node_infiniband_rate_bytes_per_second": (5e10, 5e10),
    "node_infiniband_port_data_received_bytes_total": (1e12, 2e12),
    "node_infiniband_port_data_transmitted_bytes_total": (1e12, 2e12),
    "node_infiniband_port_transmit_wait_total": (0, 100),
    "node_infiniband_link_downed_total": (0, 9),
    "node_infiniband_symbol_error_total": (0, 5),
    "node_infiniband_link_error_recovery_total": (0, 5),
    "node_infiniband_port_discards_transmitted_total": (0, 5),
    "node_infiniband_port_errors_received_total": (0, 5),
}


def figures(bad: bool) -> str:
    """What exporters of two GPUs and two ports would say; of one, once it is bad."""
    found = []
    for number in (0, 1):
        labels = f'gpu="{number}",modelName="a stand-in",hpc_job="4711"'
        port = f'device="mlx5_{number}",port="1"'
        for where, metrics in ((labels, _GPU), (port, _PORT)):
            found += [
                f"{name}{{{where}}} {values[bad and number == 1]}"
                for name, values in metrics.items()
            ]
    return "\n".join(sorted(found)) + "\n"


def _told(text: str) -> str:
    """What puts exporters' text beside what node-exporter itself tells, at one moment."""
    return f"printf %s {shlex.quote(text)} >{_STAND_IN}.new && mv {_STAND_IN}.new {_STAND_IN}"


@dataclass(frozen=True)
class Deed:
    """Something done on a host, how it is undone, and which alerts come of it."""

    alerts: tuple[str, ...]
    node: str
    do: str
    undo: str = "true"


DEEDS = (
    Deed(
        ("ServiceNotRunning", "KeyDue"),
        "login01",
        "systemctl stop sackd munge && touch -d '2 years ago' /etc/munge/munge.key",
        "touch /etc/munge/munge.key; systemctl start munge sackd",
    ),
    Deed(
        ("CertificateExpiring",),
        "login01",
        f"sed 's/^days=.*/days=1/; s/^renew_days=.*/renew_days=0/' {_CERTIFICATE} | sh -s renew",
        # Due, it renews itself.
        _CERTIFICATE,
    ),
    Deed(
        ("MariaDBAway", "SlurmdbdAway", "DumpOld"),
        "ctl",
        f"systemctl stop slurmdbd mariadb && find {_DUMPS} -exec touch -d '3 days ago' {{}} +",
        f"find {_DUMPS} -exec touch {{}} +; systemctl start mariadb slurmdbd",
    ),
    Deed(
        ("ManyFailuresOnNode",),
        "ctl",
        f"for n in 1 2 3 4 5 6 7 8; do {_SBATCH} -w cn01 --wrap 'exit 3'; done",
    ),
    Deed(
        ("ServiceCrashed",),
        "cn01",
        "systemctl kill --kill-whom=main --signal=ABRT slurmd.service",
    ),
    Deed(
        ("DriftFound",),
        "cn01",
        f"echo '{_BY_HAND}' >>{_LIMITS} && systemctl start slurmstack-drift",
        f"sed -i '/^{_BY_HAND}/d' {_LIMITS}; systemctl start slurmstack-drift",
    ),
    Deed(
        ("DiskFilling",),
        "cn01",
        # Small, and filled no further than that.
        "mkdir -p /srv/small /run/small && mount -t tmpfs -o size=4m tmpfs /run/small && "
        "mkdir /run/small/upper /run/small/work && mount -t overlay -o "
        "lowerdir=/srv/small,upperdir=/run/small/upper,workdir=/run/small/work overlay /srv/small "
        "&& { head -c 8M /dev/zero >/srv/small/file; true; }",
        "umount /srv/small /run/small; rmdir /srv/small /run/small",
    ),
    Deed(
        ("ConfigurationNotControllers",),
        "cn01",
        f"echo '{_BY_HAND}' >>{_CONF}",
        f"sed -i '/^{_BY_HAND}/d' {_CONF}",
    ),
    Deed(
        (
            "GpuXid", "GpuEccErrors", "GpuRowRemapFailed", "GpuRowRemapPending",
            "GpuThermalThrottling", "NvlinkErrors", "InfinibandPortDown", "InfinibandPortFlapping",
        ),
        "cn01",
        _told(figures(True)),
        f"rm -f {_STAND_IN}",
    ),
)  # fmt: skip
#: Of a machine whose power is cut.
POWER_CUT = ("HostDown", "NodeNotResponding", "NodeDown")
#: What panels of jobs and reservations are shown by; one has failed before the others do.
_WORK = (
    f"{_SBATCH} -w cn01 --wrap 'sleep 900' && {_SBATCH} -w cn02 --wrap 'sleep 900' && "
    f"{_SBATCH} --hold --wrap true && {_SBATCH} -w cn01 --wrap 'exit 3' && "
    "scontrol create reservation reservationname=later starttime=now+30days duration=60 "
    "users=root nodes=cn01"
)


def begin(lab: RunningLab) -> None:
    """Work, and exporters that say that all is well; rules are told not to wait."""
    lab.ssh("cn01", _told(figures(False)))
    lab.ssh("ctl", _WORK)
    # How long each rule waits is promtool's to test.
    wait = "s/^    for: .*/    for: 0s/"
    lab.ssh(
        "ctl",
        f"cp -a {_RULES} /run/rules-before && sed -i '{wait}' {_RULES}/*.yml && "
        "systemctl reload prometheus",
    )


def do(lab: RunningLab) -> None:
    """All of it, on all hosts at once."""
    lab.kill("cn02")
    _on_each(lab, {node: [deed.do for deed in DEEDS if deed.node == node] for node in _NODES})


def undo(lab: RunningLab) -> None:
    """All as it was; the rules, too."""
    _on_each(
        lab, {node: [deed.undo for deed in DEEDS if deed.node == node] for node in _NODES}, False
    )
    lab.ssh(
        "ctl",
        f"cp -a /run/rules-before/. {_RULES}/ && rm -r /run/rules-before; "
        "systemctl reload prometheus; scontrol delete reservationname=later; "
        "scancel --user=root",
        check=False,
    )
    lab.boot("cn02")


def _on_each(lab: RunningLab, scripts: dict[str, list[str]], check: bool = True) -> None:
    with ThreadPoolExecutor() as pool:
        for done in [
            pool.submit(
                lab.ssh, node, f" {'&&' if check else ';'} ".join([*words, _LOOK]), check=check
            )
            for node, words in scripts.items()
        ]:
            done.result()
