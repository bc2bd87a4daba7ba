"""JobFiles: the submit folder on the controller, and the command that says what is wrong with a
job file wherever people work. The program is on_node/kubernetes."""

from __future__ import annotations

import json

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.controller import slurm_controller
from components.host import host_baseline, storage
from components.host.python_programs import python_programs
from components.login import login_node
from remote.bundle import Bundle, Directory, File, Group, Package, Part, Unit, User
from settings import Settings
from settings.kubernetes import KubernetesBridge
from templates.rendering import render

ROLE = "job-files"
USER = "slurmstack-jobs"
COMMAND = "/usr/local/bin/slurmstack-job"
CONFIGURATION = "/etc/slurmstack/jobs.json"
LIBRARY = "/usr/local/lib/slurmstack-jobs"
_SERVICE = "slurmstack-job-folder.service"
_SERVICE_FILE = f"/etc/systemd/system/{_SERVICE}"


class JobFiles(HostRole):
    """The command on one host; on the controller the service that watches the folder, too."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if settings.kubernetes_bridge is None:
            return
        users = {*settings.login, settings.roles.controller}
        roles = (host_baseline.ROLE, storage.ROLE, slurm_controller.ROLE, login_node.ROLE)
        for name in (name for name in assembly.hosts if name in users):
            cls(name, assembly, job_files_bundle(name, settings), assembly.on(name, *roles))


def job_files_bundle(node: str, settings: Settings) -> Bundle:
    """What a host gets on which people work, or the controller."""
    bridge = settings.kubernetes_bridge
    assert bridge is not None
    modules = python_programs(LIBRARY, "kubernetes", "slurm_state", "user_groups")
    told = f"{json.dumps(_told(bridge), indent=2, sort_keys=True)}\n"
    parts = [
        *modules,
        Directory("/etc/slurmstack"),
        File(CONFIGURATION, told),
        File(COMMAND, render("kubernetes/slurmstack-job.sh", library=LIBRARY), mode="0755"),
    ]
    if node == settings.roles.controller:
        read = [part.path for part in modules if isinstance(part, File)]
        parts += _folder(bridge, [*read, CONFIGURATION])
    return Bundle(node, ROLE, parts)


def _folder(bridge: KubernetesBridge, read: list[str]) -> list[Part]:
    owner = f"{USER}:{USER}"
    service = render(
        "kubernetes/job-folder.service", library=LIBRARY, user=USER, folder=bridge.folder
    )
    return [
        Package("python3-inotify"),
        Group(USER),
        User(USER, None, USER),
        Directory(bridge.folder, parents=True),
        # As in /tmp: what somebody has put there nobody else takes away.
        Directory(f"{bridge.folder}/submit", owner=owner, mode="1777"),
        # Owners read their files there, and see none of others.
        Directory(f"{bridge.folder}/.taken", owner=owner, mode="0711"),
        Directory(f"{bridge.folder}/processed", owner=owner),
        Directory(f"{bridge.folder}/failed", owner=owner),
        File(_SERVICE_FILE, service),
        Unit(_SERVICE, restart_on=(_SERVICE_FILE, *read)),
    ]


def _told(bridge: KubernetesBridge) -> dict[str, object]:
    return {
        "folder": bridge.folder,
        "registries": {it.name: it.scheme for it in bridge.registries},
        "folders": list(bridge.folders),
        "waitingFiles": bridge.waiting_files,
        "settledSeconds": bridge.settled,
        "registrySeconds": bridge.registry_timeout,
        "ca": bridge.registry_ca,
        "pods": bridge.pods is not None,
    }
