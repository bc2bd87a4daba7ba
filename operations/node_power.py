"""A node that loses its power while a job runs there: by the site's commands, and on again.

Which node is off because of us is noted beside the stack before it is switched off: a command that
was killed in the middle leaves the next one to switch it on and give it back.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from on_node.node_states import State
from operations import drain
from operations.cluster import Cluster
from operations.refused import Refused
from operations.validations import Word
from settings.acceptance import Power

TEST = "node powered off in the middle"
#: Seconds for slurmctld to see that it is gone, beyond its own time for that; for it to boot; for
#: its job.
_SEEN, _BOOT, _JOB = 120.0, 900.0, 300.0
#: Seconds for a command of the site: a management controller may answer nothing at all.
_COMMAND = 120.0
_PAUSE = 1.0


def lost_and_back(
    cluster: Cluster, power: Power, node: str, reservation: str, partition: str
) -> Word:
    """Switch a node off under a job that may be requeued, and on again: slurmctld must see both,
    and the job must end well after it.

    Args:
        cluster: whose.
        power: the commands.
        node: reserved for root, without jobs.
        reservation: that holds it.
        partition: one that has it.
    """
    timeout = _time_to_be_lost(cluster)
    if not timeout:
        return Word(TEST, node, "not here", "SlurmdTimeout is 0: slurmctld gives up no node")
    job = cluster.ask(
        f"cd / && sbatch --parsable --requeue --reservation={reservation} -p {partition} -w {node}"
        " -n1 --mem=10 --time=30 --job-name=slurmstack-validate -o /dev/null"
        " --wrap 'test \"${SLURM_RESTART_COUNT:-0}\" -gt 0 || sleep 1800'",
        "sbatch",
    ).strip()
    state = f"scontrol show job {job} -o"
    try:
        if not _await(lambda: "JobState=RUNNING" in cluster.ask(state, "scontrol show job"), _JOB):
            return Word(TEST, node, "failed", f"job {job} does not start")
        _note(cluster.place, node)
        _run(power.off, node)
        if not _await(lambda: _is_lost(cluster, node), timeout + _SEEN):
            return Word(TEST, node, "failed", "slurmctld does not see that it is gone")
        if "JobState=RUNNING" in cluster.ask(state, "scontrol show job"):
            return Word(TEST, node, "failed", f"job {job} is still said to run")
    finally:
        back = switch_on(cluster, power)
    if not back:
        return Word(TEST, node, "failed", "it has not come back")

    def ended() -> bool:
        told = cluster.ask(f"{state} 2>/dev/null || true", "scontrol show job")
        return "JobState=COMPLETED" in told

    if not _await(ended, _JOB):
        return Word(TEST, node, "failed", f"job {job} was not run again")
    return Word(TEST, node, "proven", "its job was requeued, and ended well after it")


def switch_on(cluster: Cluster, power: Power | None) -> bool:
    """Whether nodes that we switched off are back: they are on, take jobs again, and are forgotten.

    Raises:
        Refused: one is off, and there is no command to switch it on.
    """
    nodes = switched_off(cluster.place)
    for node in nodes:
        if power is None:
            raise Refused(f"{node} was powered off by slurmstack validate: switch it on, and give "
                          f"slurmstack:acceptance.power back")  # fmt: skip
        _run(power.on, node)
        if not _await(lambda node=node: _is_back(cluster, node), _BOOT):  # type: ignore[misc]
            return False
    (cluster.place / "powered-off.json").unlink(missing_ok=True)
    return True


def switched_off(place: Path) -> list[str]:
    """Nodes that a command switched off, and has not switched on again."""
    try:
        found: list[str] = json.loads((place / "powered-off.json").read_text())
        return found
    except (OSError, ValueError):
        return []


def _note(place: Path, node: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    new = place / "powered-off.json.new"
    new.write_text(json.dumps([node]))
    new.replace(place / "powered-off.json")


def _run(command: str, node: str) -> None:
    words = ["timeout", f"{_COMMAND:g}", "sh", "-c", command.replace("{node}", node)]
    done = subprocess.run(
        words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode == 124:
        raise Refused(f"{node}: {command}: it has not ended within {_COMMAND:g} s")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise Refused(f"{node}: {command}: exit {done.returncode}: {said[-1]}")


def _is_lost(cluster: Cluster, node: str) -> bool:
    return "DOWN" in _state(cluster, node).flags


def _is_back(cluster: Cluster, node: str) -> bool:
    """Answers; what slurmctld itself has against it because it was off is taken back. What a
    person has decided of it meanwhile stays, and is not waited out."""
    state = _state(cluster, node)
    if state.closed_by_person or state.fit:
        return state.answers
    if state.answers and "DOWN" in state.flags:
        cluster.ask(drain.resuming([node]), "scontrol update")
    return False


def _time_to_be_lost(cluster: Cluster) -> float:
    """Seconds after which slurmctld gives up a node: SlurmdTimeout of slurm.conf(5). It looks three
    times in that time, and may have looked just before the end, twice where another look still
    waits for an answer: with 300 s, a node was not DOWN after 420 (24.11.5)."""
    told = cluster.ask("scontrol show config", "scontrol show config")
    match = re.search(r"^SlurmdTimeout\s*=\s*(\d+)", told, re.MULTILINE)
    return (float(match[1]) if match else 300.0) * 5 / 3


def _state(cluster: Cluster, node: str) -> State:
    return cluster.states([node])[node]


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True
