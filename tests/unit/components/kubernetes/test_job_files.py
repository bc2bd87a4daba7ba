"""The submit folder and the command: who has which, and with what rights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.kubernetes.job_files import CONFIGURATION, job_files_bundle
from remote.bundle import Bundle, Directory, File, Unit, User
from settings import parse
from settings.problems import SettingsError
from tests.unit.components.test_cluster import bare

BRIDGE = {"registries": [{"name": "hub:5407", "scheme": "http"}, {"name": "quay.example"}]}


def bundle(node: str, **bridge: Any) -> Bundle:
    return job_files_bundle(node, parse({**bare(), "kubernetesBridge": {**BRIDGE, **bridge}}))


def files(of: Bundle) -> dict[str, File]:
    return {part.path: part for part in of.parts if isinstance(part, File)}


def test_the_service_is_the_controller_s() -> None:
    head, other = bundle("ctl"), bundle("cn01")
    assert [it.name for it in head.parts if isinstance(it, Unit)] == [
        "slurmstack-job-folder.service"
    ]
    assert not [it for it in other.parts if isinstance(it, Unit | User)]
    for one in (head, other):
        assert "/usr/local/bin/slurmstack-job" in files(one)
        assert "/usr/local/lib/slurmstack-jobs/on_node/kubernetes/rules.py" in files(one)


def test_who_may_do_what_in_the_folder() -> None:
    folders = {it.path: (it.owner, it.mode) for it in bundle("ctl").parts
               if isinstance(it, Directory) and it.path.startswith("/mnt")}  # fmt: skip
    ours = "slurmstack-jobs:slurmstack-jobs"
    assert folders == {
        "/mnt/nas/slurm-jobs": ("root:root", "0755"),
        "/mnt/nas/slurm-jobs/submit": (ours, "1777"),
        "/mnt/nas/slurm-jobs/.taken": (ours, "0711"),
        "/mnt/nas/slurm-jobs/processed": (ours, "0755"),
        "/mnt/nas/slurm-jobs/failed": (ours, "0755"),
    }


def test_the_service_has_no_right_but_to_change_its_user() -> None:
    unit = files(bundle("ctl"))["/etc/systemd/system/slurmstack-job-folder.service"].content
    for line in (
        "User=slurmstack-jobs", "CapabilityBoundingSet=CAP_SETUID CAP_SETGID",
        "NoNewPrivileges=yes", "ProtectSystem=strict", "ReadWritePaths=/mnt/nas/slurm-jobs",
    ):  # fmt: skip
        assert f"\n{line}\n" in str(unit)


def test_what_the_program_reads() -> None:
    text = files(bundle("ctl", folder="/srv/jobs", settled=5))[CONFIGURATION].content
    assert json.loads(text) == {
        "ca": None, "folder": "/srv/jobs", "folders": ["/mnt/nas"], "registrySeconds": 5,
        "registries": {"hub:5407": "http", "quay.example": "https"}, "settledSeconds": 5,
        "waitingFiles": 200, "pods": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"registries": []}, "registries"),
        ({"registries": [{"name": "https://hub"}]}, "a registry as images name it"),
        ({"registries": [{"name": "hub"}, {"name": "hub"}]}, "each registry once"),
        ({"folder": "jobs"}, "a whole path"),
        ({"waitingFiles": 0}, "waitingFiles"),
    ],
)
def test_what_is_no_bridge(values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        bundle("ctl", **values)
