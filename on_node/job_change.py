"""What a bundle of slurmctld's changes that could be a matter for jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from on_node import job_state, slurm_state
from on_node.slurm_state import Config, Job

SLURM_CONF = "/etc/slurm/slurm.conf"
TOPOLOGY_CONF = "/etc/slurm/topology.conf"


@dataclass(frozen=True)
class Change:
    """What a bundle is to change, and the jobs that there are."""

    #: What slurmctld runs by, and what it is to run by.
    old: Config
    new: Config
    #: What else changes that no running job survives.
    others: tuple[str, ...]
    #: Those that wait or have nodes.
    jobs: tuple[Job, ...]
    #: How many slurmctld keeps, finished ones among them.
    kept: int


def change(bundle: str, alone: Sequence[str]) -> Change | None:
    """What the bundle changes that could be a matter for jobs; None where that is nothing.

    Args:
        bundle: its text.
        alone: the parameters and files whose change no running job survives.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    text = slurm_state.file_of_bundle(bundle, SLURM_CONF)
    present = Path(SLURM_CONF)
    if text is None or not present.exists():
        return None
    new = slurm_state.config_of_text(text, slurm_state.expand)
    last = slurm_state.config_of_text(present.read_text(), slurm_state.expand)
    now = _text(TOPOLOGY_CONF) or ""
    to_be = slurm_state.file_of_bundle(bundle, TOPOLOGY_CONF) or ""
    last = replace(last, apart=slurm_state.apart(now, slurm_state.expand))
    new = replace(new, apart=slurm_state.apart(to_be, slurm_state.expand))
    others = (*_parameters(last, new, alone), *files(bundle, alone))
    if not others and _compared(last) == _compared(new):
        return None
    shown, old = slurm_state.shown_jobs(), replace(slurm_state.running(), apart=last.apart)
    kept = slurm_state.count_of_jobs(shown)
    return Change(old, new, others, tuple(jobs_of(shown, old, new)), kept)


def _compared(config: Config) -> tuple[object, ...]:
    return config.nodes, config.partitions, config.licenses, config.max_jobs, config.apart


def jobs_of(shown: str, old: Config, new: Config) -> list[Job]:
    """The jobs that wait or have nodes; if a partition goes, with all that they may run in."""
    jobs = slurm_state.jobs_of_scontrol(shown, slurm_state.expand)
    if old.partitions.keys() <= new.partitions.keys():
        return jobs
    return job_state.with_all_partitions(
        jobs, Path(old.parameters["statesavelocation"]) / "job_state"
    )


def _text(path: str) -> str | None:
    file = Path(path)
    return file.read_text() if file.exists() else None


def _parameters(last: Config, new: Config, alone: Sequence[str]) -> Iterator[str]:
    for name in (name for name in alone if not name.startswith("/")):
        was, now = last.parameters.get(name.lower()), new.parameters.get(name.lower())
        if was != now:
            yield f"{name} changes from {was or 'the default'} to {now or 'the default'}"


def files(bundle: str, alone: Sequence[str]) -> Iterator[str]:
    """Which of the files the bundle changes."""
    for path in (name for name in alone if name.startswith("/")):
        if _text(path) != slurm_state.file_of_bundle(bundle, path):
            yield f"{path} changes"
