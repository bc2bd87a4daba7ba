"""Guards: what refuses changes on the controller's host that would lose jobs, state or decisions.

The programs are those of ``on_node``; they lie on the host before any bundle is applied that asks
them. Beside the resource, the parts of other bundles that ask.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pulumi

from components.bundle_resource import HostRole
from components.controller.slurm_conf import slurm_conf
from components.host.precheck import guard as precheck
from remote.bundle import Bundle, Check, Command, Directory, File, Guard, Package, Part
from remote.host import Host
from settings import Settings
from settings.model import Hardware
from templates.rendering import render

ROLE = "guards"
FIT_ROLE = "nodes-fit"
SLURM_CONF = "/etc/slurm/slurm.conf"
_LIBRARY = "/usr/local/lib/slurmstack"
_PROGRAMS = ("__init__", "job_guard", "node_states", "slurm_state", "state_guard")
#: Seconds that nodes have to register with slurmctld after a change.
_PATIENCE = 60
#: Lines of slurm.conf by which slurmctld judges what a node reports.
_JUDGED_BY = (
    "NodeName=", "GresTypes=", "NodeFeaturesPlugins=", "SlurmctldParameters=", "SlurmdParameters=",
)  # fmt: skip


class Guards(HostRole):
    """The programs that the guards of slurmctld's and slurmdbd's bundles run."""

    def __init__(
        self,
        name: str,
        host: Host,
        settings: Settings,
        depends_on: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, host, guards_bundle(host.name, settings), depends_on, opts)


class NodesFit(HostRole):
    """slurmctld's word that the nodes are fit by the figures that slurm.conf now has of them.

    After the compute nodes' own bundles, since what a node reports may follow from these. Nodes
    that were dead before the change, and those that people have taken out, fail nothing.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        settings: Settings,
        hardware: Mapping[str, Hardware],
        depends_on: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        bundle = nodes_fit_bundle(host.name, settings, hardware)
        super().__init__(name, host, bundle, depends_on, opts)


def guards_bundle(node: str, settings: Settings) -> Bundle:
    """The programs, and the Python that they need."""
    folder = Path(__file__).parents[2] / "on_node"
    return Bundle(
        node,
        ROLE,
        [
            precheck(node, settings),
            Package("python3"),
            Directory(f"{_LIBRARY}/on_node"),
            *(
                File(f"{_LIBRARY}/on_node/{name}.py", (folder / f"{name}.py").read_text())
                for name in _PROGRAMS
            ),
        ],
    )


def nodes_fit_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """A command that is due when something changes by which slurmctld judges nodes."""
    lines = [
        line for line in slurm_conf(settings, hardware).splitlines() if line.startswith(_JUDGED_BY)
    ]
    script = render(
        "controller/nodes-fit.sh",
        judged_by=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        run=program("node_states", "fit", SLURM_CONF, str(_PATIENCE)),
    )
    return Bundle(node, FIT_ROLE, [Command("nodes-fit", script, timeout=_PATIENCE + 60)])


def program(name: str, *words: str) -> str:
    """The command line of one of the programs."""
    return f"PYTHONPATH={_LIBRARY} python3 -m on_node.{name} {shlex.join(words)}"


def _of_bundle(name: str, *words: str) -> str:
    return f'{program(name, *words)} "$SLURMSTACK_BUNDLE"'


def before_slurmctld_changes(settings: Settings) -> list[Part]:
    """Guards of slurmctld's bundle."""
    controller = settings.roles.controller
    others = [host.address for name, host in settings.hosts.items() if name != controller]
    stays = f"{_of_bundle('state_guard', 'slurmctld')} {shlex.join(others)}".rstrip()
    jobs = [Guard("jobs-stay", _of_bundle("job_guard", "check"), timeout=120)]
    return [
        Guard("state-stays", stays, timeout=60),
        *([] if settings.guards.allow_job_loss else jobs),
        Guard("decisions-noted", program("node_states", "before", SLURM_CONF), timeout=60),
    ]


def before_slurmdbd_changes() -> list[Part]:
    """Guards of slurmdbd's bundle."""
    return [Guard("state-stays", _of_bundle("state_guard", "slurmdbd"), timeout=60)]


def folder_stays(role: str, folder: str, what: str) -> list[Part]:
    """A guard of a role's bundle for a folder of files that only its old place has."""
    script = render(
        "controller/folder-stays.sh",
        folder=folder,
        role=role,
        run=program("state_guard", "folder"),
        what=shlex.quote(what),
    )
    return [Guard("state-stays", script, timeout=60)]


def reload(settings: Settings) -> str:
    """How slurmctld takes up a changed slurm.conf: no job starts where it would be ended."""
    keep = (
        ""
        if settings.guards.allow_job_loss
        else render(
            "controller/keep-jobs.sh",
            hold=program("job_guard", "hold", SLURM_CONF),
            release=program("job_guard", "release"),
        )
    )
    return keep + render("controller/reconfigure.sh")


def after_slurmctld_changes() -> list[Part]:
    """Checks of slurmctld's bundle, once it answers."""
    script = f"{program('job_guard', 'release')} && {program('node_states', 'after', SLURM_CONF)}\n"
    return [Check("decisions-kept", script, timeout=60)]
