"""Guards: what refuses changes on the controller's host that would lose jobs, state or decisions.

The programs are those of ``on_node``; they lie on the host before any bundle is applied that asks
them. Beside the resource, the parts of other bundles that ask.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import host_baseline
from on_node import node_drain
from remote.bundle import (
    Bundle,
    Check,
    Directory,
    File,
    Guard,
    Package,
    Part,
    Withdrawal,
)
from settings import Settings
from settings.parameters import files_without_jobs, without_jobs
from templates.rendering import render

ROLE = "guards"
SLURM_CONF = "/etc/slurm/slurm.conf"
#: What on_node/state_guard.py refuses, jobs or not.
HAVE_A_GUARD = ("ClusterName", "StateSaveLocation")
_LIBRARY = "/usr/local/lib/slurmstack"
_SOURCES = Path(__file__).parents[2] / "on_node"


class Guards(HostRole):
    """The programs that the guards of slurmctld's and slurmdbd's bundles run."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        name = assembly.controller
        bundle = guards_bundle(name, assembly.settings)
        cls(name, assembly, bundle, assembly.on(name, host_baseline.ROLE))


def guards_bundle(node: str, settings: Settings) -> Bundle:
    """The programs, and the Python that they need. It comes before all else of a controller, and
    so refuses a host to which the controller moves without its state."""
    folder = f"{_LIBRARY}/on_node"
    others = [host.address for name, host in settings.hosts.items() if name != node]
    stays = render(
        "guards/controller-stays.sh",
        hosts=others,
        # Of a range, slurmctld listens on each.
        port=settings.slurm.SlurmctldPort.partition("-")[0],
        slurm_conf=SLURM_CONF,
        state=settings.slurm.StateSaveLocation,
    )
    return Bundle(
        node,
        ROLE,
        [
            *([Guard("controller-stays", stays)] if others else []),
            Package("python3"),
            Directory(folder),
            *(
                File(f"{folder}/{source.name}", source.read_text())
                for source in sorted(_SOURCES.glob("*.py"))
            ),
        ],
    )


def program(name: str, *words: str) -> str:
    """The command line of one of the programs."""
    return f"PYTHONPATH={_LIBRARY} python3 -m on_node.{name} {shlex.join(words)}".rstrip()


def before_slurmctld_changes(settings: Settings) -> list[Part]:
    """Guards of slurmctld's bundle."""
    state = f'{program("state_guard", "slurmctld")} "$SLURMSTACK_BUNDLE"'
    asked = "node_drain" if waits_for_jobs(settings) else "job_guard"
    check = f'{program(asked, "check")} "$SLURMSTACK_BUNDLE" {shlex.join(_alone())}'
    jobs = Guard("jobs-stay", check, timeout=120)
    return [
        Guard("state-stays", state, timeout=60),
        *([] if settings.guards.allow_job_loss else [jobs]),
        Guard("decisions-noted", program("node_states", "before", SLURM_CONF), timeout=60),
        # Also where the settings let it drain no more: what an earlier run left is given back.
        _drains(settings),
    ]


def waits_for_jobs(settings: Settings) -> bool:
    """Whether a slurm.conf that would end jobs waits for them, with their nodes drained."""
    return settings.rollout.drain != "never" and not settings.guards.allow_job_loss


def not_under_jobs(files: Collection[str]) -> tuple[str, ...]:
    """Those of slurmctld's files of which something may not change under jobs."""
    return tuple(path for path in files if path in (SLURM_CONF, *_alone()))


def _drains(settings: Settings) -> Withdrawal:
    """How nodes are drained before slurm.conf changes under them, and given back."""
    rollout = settings.rollout
    check = settings.health_check
    health = None if check is None else check.command
    work = shlex.quote(render("guards/node-work.sh", health=health))
    proof = render("guards/node-proven.sh", ours=node_drain.OURS, work=work, health=health)
    script = render(
        "guards/nodes-drained.sh",
        run=program("node_drain"),
        proof=proof.rstrip(),
        seconds=rollout.drain_timeout,
        end_jobs=rollout.end_jobs,
        alone=shlex.join(_alone()),
    )
    return Withdrawal("nodes-drained", script, timeout=rollout.drain_timeout + 900)


def _alone() -> tuple[str, ...]:
    """The parameters and files whose change no running job survives."""
    return (
        *(name for name in without_jobs() if name not in HAVE_A_GUARD),
        *(f"/etc/slurm/{name}" for name in files_without_jobs()),
    )


def before_slurmdbd_changes() -> list[Part]:
    """Guards of slurmdbd's bundle."""
    state = f'{program("state_guard", "slurmdbd")} "$SLURMSTACK_BUNDLE"'
    return [Guard("state-stays", state, timeout=60)]


def folder_stays(role: str, folder: str, what: str) -> list[Part]:
    """A guard of a role's bundle for a folder of files that only its old place has.

    Args:
        role: the bundle's role.
        folder: the only folder that the role has.
        what: the setting that names it.
    """
    script = render(
        "guards/folder-stays.sh",
        folder=folder,
        role=role,
        run=program("state_guard", "folder"),
        what=shlex.quote(what),
    )
    return [Guard("state-stays", script, timeout=60)]


def keep_jobs(settings: Settings) -> str:
    """What slurmctld's reload begins with: no job starts where the change would end it."""
    if settings.guards.allow_job_loss:
        return ""
    return render(
        "guards/keep-jobs.sh",
        hold=program("job_guard", "hold", SLURM_CONF),
        release=program("job_guard", "release"),
    )


def after_slurmctld_changes() -> list[Part]:
    """Checks of slurmctld's bundle, once it answers."""
    release = program("job_guard", "release")
    after = program("node_states", "after", SLURM_CONF)
    return [Check("decisions-kept", f"{release} && {after}\n", timeout=60)]
