"""SlurmController: slurmctld, and the slurm.conf that the whole cluster runs by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from components.accounting import slurmdbd
from components.accounting.accounting_objects import before_slurmctld
from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.compute import slurmd_port
from components.configuration import programs
from components.configuration.plugins import plugins_are_there
from components.configuration.served_files import restart_lines, served_files
from components.configuration.slurm_conf import (
    every_line,
    parameters,
    restart_keys,
    slurm_conf,
    together,
)
from components.containers import enroot_pyxis
from components.failure import unless_idle
from components.gpu import geometry
from components.guards import guards
from components.guards.upgrades import before_upgrade
from components.health import with_jobs
from components.keys import jwt_key_pair, munge_key
from components.packages import package_repository
from components.packages.slurm_packages import slurm_package, slurm_packages, started_again, trigger
from remote.bundle import Bundle, Check, Directory, File, Guard, Package, Part, Unit, Validate
from settings import Settings
from settings.model import Hardware
from settings.rollout import number_of
from settings.scripts import SERVED
from templates.rendering import render

ROLE = "slurmctld"
SLURM_CONF = "/etc/slurm/slurm.conf"
#: Seconds that a slurmctld may take to read slurm.conf: it takes less than one for 1,000 nodes.
_READING = 60
#: Seconds after which nodes that did not come back with a new slurm.conf are told of it once more,
#: and that they may take then.
_SOON = 15
_RETURN = 60
#: Seconds that reconfigure.sh may take.
_RECONFIGURE = 400


class SlurmController(HostRole):
    """The controller: slurmctld with the cluster's slurm.conf, which it serves to the nodes."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings, name = assembly.settings, assembly.controller
        bundle = controller_bundle(name, settings, assembly.hardware)
        roles = (
            munge_key.ROLE,
            guards.ROLE,
            programs.ROLE,
            with_jobs.ROLE,
            *package_repository.ROLES,
            jwt_key_pair.ROLE,
            slurmdbd.ROLE,
        )
        # Its own programs it needs in any case: without them slurmctld does not start. GPUs are cut
        # before slurm.conf names what they are cut into.
        placed = [
            bundle
            for bundle in assembly.deployed
            if bundle.role in (programs.ROLE, with_jobs.ROLE, geometry.ROLE) and bundle.node != name
        ]
        before = [
            *assembly.on(name, *roles),
            *unless_idle(placed, assembly.hosts),
            *geometry.kept(assembly),
            *slurmd_port.heard_before(assembly),
        ]
        controller = cls(name, assembly, bundle, before)
        package = slurm_package(settings, "slurmctld").name
        assembly.outputs["slurmVersion"] = controller.deployed.answer.apply(
            lambda answer: answer.packages.get(package)
        )


def controller_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """What the controller's host gets.

    A changed slurm.conf is taken up by ``scontrol reconfigure``, which starts new daemons and
    falls back to the running ones if they do not come up (scontrol(1), since 23.11); a parameter
    that this cannot change restarts slurmctld, which no running job notices.
    """
    files = {SLURM_CONF: slurm_conf(settings, hardware), **served_files(settings, hardware)}
    return Bundle(
        node,
        ROLE,
        [
            *_login_nodes_resolve(settings),
            *guards.before_slurmctld_changes(settings),
            *slurm_packages(settings, "client", "slurmctld"),
            *before_upgrade(settings),
            *started_again("slurmctld"),
            *enroot_pyxis.controller_parts(settings),
            Directory("/etc/slurm"),
            Directory("/var/log/slurm", owner="slurm:slurm"),
            Directory(
                settings.slurm.StateSaveLocation, owner="slurm:slurm", mode="0700", parents=True
            ),
            *(File(path, text) for path, text in files.items()),
            *programs.controller_parts(settings),
            Package("iproute2"),
            plugins_are_there(every_line(settings, hardware), SLURM_CONF),
            Validate(
                "slurm-conf",
                render(
                    "controller/slurm-conf-is-read.sh",
                    folder=str(PurePosixPath(SLURM_CONF).parent),
                    seconds=_READING,
                    several=_several(settings),
                ),
                on=(*files, *enroot_pyxis.served(settings), *programs.served(settings)),
                timeout=_READING + 30,
            ),
            *before_slurmctld(settings, SLURM_CONF),
            Unit(
                "slurmctld.service",
                restart_on=(trigger(settings, "slurmctld"),),
                reload_on=(*files, *enroot_pyxis.served(settings), *programs.served(settings)),
                reload=guards.keep_jobs(settings) + _reload(settings),
                restart_keys=(
                    *restart_keys(settings, "slurmctld"),
                    *restart_lines(settings, "slurmctld"),
                ),
                drain_on=guards.not_under_jobs(files) if guards.waits_for_jobs(settings) else (),
                # Longer than reload.sh may take: cut off, it could leave slurmctld stopped.
                timeout=2 * _RECONFIGURE + _SOON + _RETURN,
            ),
            Check(
                "controller-answers",
                render("controller/controller-answers.sh", together=together(settings)),
            ),
            *guards.after_slurmctld_changes(),
            *enroot_pyxis.checks(settings),
        ],
    )


def _several(settings: Settings) -> list[str]:
    """The parameters that slurm.conf has more than one line of, which not every release takes."""
    names = [line.name for line in parameters(settings) if line.name in SERVED]
    return [name for name in SERVED if names.count(name) > 1]


def _reload(settings: Settings) -> str:
    """How slurmctld and the nodes take up changed files."""
    may_fail = number_of(settings.rollout.may_fail, len(settings.compute))

    def back(patience: int) -> str:
        return guards.program("node_states", "back", SLURM_CONF, str(patience), str(may_fail))

    note = guards.program("node_states", "started", SLURM_CONF)
    return render("controller/reload.sh", note=note, soon=back(_SOON), back=back(_RETURN))


def _login_nodes_resolve(settings: Settings) -> list[Part]:
    """slurmctld tells srun of its job's end by the name of srun's host. Without a name server that
    knows it, slurmctld 24.11 asks for it ten times, a second apart, and answers nobody meanwhile.
    """
    if not settings.login:
        return []
    script = render("controller/login-nodes-resolve.sh", nodes=settings.login)
    return [Guard("login-nodes-resolve", script, timeout=60)]
