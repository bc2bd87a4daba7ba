"""What an option changes, and where: one that is ignored, or that reaches a role which it does not
concern, changes other bundles than those written down here.

`bundles.txt` has what nodes get without these options; here the text of files and scripts counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest

from components.accounting.accounting_objects import accounting_bundle
from components.accounting.slurmdbd import database_bundle
from components.compute.compute_node import compute_bundle
from components.compute.node_accepted import accepted_bundle
from components.compute.nodes_fit import nodes_fit_bundle
from components.configuration.programs import programs_bundle
from components.containers.apptainer import apptainer_bundle
from components.controller.slurm_controller import controller_bundle
from components.diagnosis.job_diagnosis import diagnosis_bundle
from components.guards.destroy_guard import destroy_guard_bundle
from components.guards.guards import guards_bundle
from components.health.node_acceptance import acceptance_bundle
from components.health.node_health import health_bundle
from components.host.drift_check import drift_check_bundle
from components.host.host_baseline import system_bundle
from components.host.storage import storage_bundle
from components.keys.jwt_key_pair import jwt_bundle
from components.kubernetes.job_files import job_files_bundle
from components.login.login_node import login_bundle
from components.monitoring.grafana import grafana_bundle
from components.monitoring.monitoring_tls import monitoring_tls_bundle
from components.monitoring.node_exporter import node_exporter_bundle
from components.monitoring.prometheus import monitoring_bundle
from components.monitoring.slurm_exporter import slurm_exporter_bundle
from components.rest.slurmrestd import rest_bundle
from remote.bundle import Bundle
from settings import Settings, parse
from tests.unit.components.test_cluster import HARDWARE, bare, everything
from tests.unit.settings.test_rest import GOOD

Hardwares = Mapping[str, Any]
ROLES: dict[str, Callable[[Settings, Hardwares], Bundle]] = {
    "slurmd": lambda it, has: compute_bundle("cn01", it, has),
    "accepted": lambda it, _: accepted_bundle("cn01", it),
    "acceptance": lambda it, _: acceptance_bundle("cn01", it),
    "health": lambda it, has: health_bundle("cn01", it, has),
    "system": lambda it, _: system_bundle("cn01", it),
    "programs": lambda it, _: programs_bundle("cn01", it),
    "apptainer": lambda it, _: apptainer_bundle("cn01", it),
    "slurmctld": lambda it, has: controller_bundle("ctl", it, has),
    "nodes-fit": lambda it, has: nodes_fit_bundle("ctl", it, has),
    "guards": lambda it, _: guards_bundle("ctl", it),
    "destroy-guard": lambda it, _: destroy_guard_bundle("ctl", it),
    "slurmdbd": lambda it, _: database_bundle("ctl", it, "made"),
    "accounting": lambda it, _: accounting_bundle("ctl", it),
    "jwt": lambda it, _: jwt_bundle(it),
    "slurmrestd": lambda it, _: rest_bundle(it),
    "login": lambda it, _: login_bundle("in", it),
    "storage": lambda it, _: storage_bundle("in", it),
    "job-files": lambda it, _: job_files_bundle("ctl", it),
    "diagnosis": lambda it, _: diagnosis_bundle("cn01", it),
    "drift-check": lambda it, _: drift_check_bundle("ctl", it),
    "monitoring": lambda it, _: monitoring_bundle("ctl", it, {"ctl": "pem\n"}),
    "monitoring-tls": lambda it, _: monitoring_tls_bundle("ctl", it),
    "node-exporter": lambda it, _: node_exporter_bundle("ctl", it, GOOD),
    "node-exporter of a node": lambda it, _: node_exporter_bundle("cn01", it, GOOD),
    "slurm-exporter": lambda it, _: slurm_exporter_bundle("ctl", it),
    "grafana": lambda it, _: grafana_bundle("ctl", it, GOOD),
}


def over(settings: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some keys changed, at any depth."""
    for key, value in changes.items():
        inner = settings.get(key)
        settings[key] = over({**inner}, value) if isinstance(inner, dict) else value
    return settings


def told(changes: Mapping[str, Any]) -> dict[str, str]:
    base = {**bare(), **copy.deepcopy(everything()), "limits": {}, "precheck": {}, "rollout": {},
            "guards": {}, "jwt": {}}  # fmt: skip
    # None changes under jobs, so that one of the options is refused beside them.
    del base["nvidia"], base["boot"], base["fabric"]
    base["nodes"] = bare()["nodes"]
    settings = parse(over(base, changes))
    hardware = dict.fromkeys(settings.compute, HARDWARE)
    return {name: make(settings, hardware).render() for name, make in ROLES.items()}


@cache
def without() -> dict[str, str]:
    return told({})


CERTIFIED = "monitoring-tls, node-exporter, node-exporter of a node, grafana"
#: Those that bring a package of Slurm to the controller's host.
BRING_SLURM = "slurmctld, slurmdbd, jwt, slurmrestd"
#: Option, value, and the bundles that change.
OPTIONS: list[tuple[str, Any, str]] = [
    ("rollout.endJobs", True, "slurmd, accepted, slurmctld"),
    ("rollout.drainTimeout", "2h", "slurmd, accepted, slurmctld"),
    ("rollout.drain", "never", "slurmd, slurmctld"),
    ("rollout.drain", "always", "slurmd"),
    ("rollout.mayFail", 2, "slurmctld"),
    ("rollout.batch", 1, ""),
    ("guards.allowJobLoss", True, "system, slurmctld, destroy-guard, storage"),
    ("precheck.freeDisk", 5, "system, storage"),
    # `slurmstack check` alone asks for it.
    ("precheck.clockSkew", 5, ""),
    ("precheck.infinibandRate", 100, "health"),
    ("limits.memlock", 5, "slurmd, system"),
    ("healthCheck.interval", 120, "slurmctld"),
    ("healthCheck.nodeState", ["IDLE"], "slurmctld"),
    # The epilog must know whose jobs are there, so that the prolog stays.
    ("healthCheck.prolog", False, "health"),
    ("healthCheck.epilog", False, "health, programs, slurmctld"),
    ("acceptance.gate", ["rollout"], "slurmd"),
    ("accounting.dump", {"keep": 3}, "accounting"),
    ("accounting.dump", {"directory": "/x"}, "accounting, node-exporter"),
    ("accounting.dump", {"onCalendar": "daily"}, "accounting"),
    ("accounting.dump", {"beforeUpgrade": False}, BRING_SLURM),
    ("accounting.mariadb", {"innodb_lock_wait_timeout": 3}, "slurmdbd"),
    ("accounting.slurmdbd", {"PurgeJobAfter": 3}, "slurmdbd"),
    ("accounting.qos", {"a": {}}, "accounting"),
    ("jwt.maxLifetime", "2h", "slurmctld, jwt"),
    ("jwt.keySize", 4096, "jwt"),
    ("jwt.userTokens", False, "slurmctld"),
    ("jwt.keys", ["a", "b"], "jwt"),
    ("rest.port", 7000, "slurmrestd"),
    ("rest.loopbackPort", 7001, "slurmrestd"),
    ("rest.tls", "1.3", "slurmrestd"),
    ("rest.limits", {"body": 2048}, "slurmrestd"),
    ("rest.limits", {"connections": 9}, "slurmrestd"),
    ("rest.limits", {"connectionsPerClient": 9}, "slurmrestd"),
    ("rest.limits", {"requestsPerClient": 9}, "slurmrestd"),
    ("rest.limits", {"answer": 9}, "slurmrestd"),
    ("rest.limits", {"atOnce": 9}, "slurmrestd"),
    ("storage.home", {"options": ["hard"]}, "system"),
    # A measure writes.
    ("storage.home", {"options": ["ro"]}, "acceptance, system"),
    ("storage.home", {"packages": ["nfs-of-the-site"]}, "system"),
    ("storage.home", {"exportOptions": ["ro"]}, "storage"),
    ("storage.home", {"clients": "cn01"}, "storage"),
    ("storage.home", {"mount": "/m"}, "acceptance, health, system"),
    ("monitoring.interval", 20, "monitoring, grafana"),
    ("monitoring.slurmInterval", 20, "slurm-exporter"),
    ("monitoring.retentionSize", "1GB", "monitoring"),
    ("monitoring.port", 9999, "monitoring, grafana"),
    ("monitoring.alertmanagerPort", 9998, "monitoring"),
    ("monitoring.exporterPort", 9997, "monitoring, node-exporter, node-exporter of a node"),
    ("monitoring.serverName", "x.example", "monitoring, monitoring-tls, grafana"),
    ("monitoring.certificateDays", 60, CERTIFIED),
    ("monitoring.renewDays", 10, CERTIFIED),
    ("monitoring.keyMaxAge", "10d", "node-exporter, node-exporter of a node"),
    ("monitoring.groupWait", 5, "monitoring"),
    ("monitoring.repeatInterval", 600, "monitoring"),
    ("slurm.SlurmctldPort", "6820-6830",
     "slurmd, accepted, slurmctld, guards, slurmrestd, login"),
    ("slurm.SlurmdSpoolDir", "/x", "slurmd, slurmctld"),
    ("slurm.StateSaveLocation", "/x", BRING_SLURM.replace(",", ", guards,", 1)),
    ("packages.copyStateBeforeUpgrade", False, BRING_SLURM),
    # By which slurmctld judges what nodes report.
    ("slurm.SlurmdParameters", "config_overrides", "slurmctld, nodes-fit"),
    ("slurm.SlurmdLogFile", "/x", "slurmctld, diagnosis"),
    ("slurm.MessageTimeout", 77, "slurmctld"),
    ("jobContainer.AutoBasePath", False, "slurmd, slurmctld"),
    ("identities.munge", {"uid": 7000}, "system, storage"),
    ("identities.slurmrestd", {"uid": 7000}, "system, slurmrestd, storage"),
    ("enrootPyxis.pyxis", {"options": {"container_scope": "global"}}, "slurmd, slurmctld, login"),
    ("apptainer.conf", {"mount home": False}, "apptainer"),
    ("jobEnvironment", {"A": "b"}, "slurmd"),
    # Beside its own roles: Gres follows, and the health check counts GPUs.
    ("nodes", [{"hosts": "cn[01-02]", "mig": {"0": {"3g.40gb": 2}}}],
     "health, slurmctld, nodes-fit"),
]  # fmt: skip


def named(value: Any) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("option", "value", "wanted"), OPTIONS, ids=named)
def test_what_an_option_changes(option: str, value: Any, wanted: str) -> None:
    changes = value
    for key in reversed(option.split(".")):
        changes = {key: changes}
    now = told(changes)
    assert [name for name, text in without().items() if now[name] != text] == [
        name for name in wanted.split(", ") if name
    ]
