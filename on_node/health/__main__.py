"""The health of this node.

check      runs all checks, notes what they say, and tells Slurm: what fails drains the node, and
           it returns when that passes; exit 1 where anything fails (HealthCheckProgram)
prolog     only what is known at once and would make a job fail; exit 1 then
epilog     ends what the job left behind, and sweeps its user's files where no job of theirs is left
forget-xids   XIDs so far have been seen to: a GPU was reset without a reboot
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from on_node.health import fabric, gpus, jobs, probes, system, xids
from on_node.health.results import GOOD, Result, fault

CONFIG = Path(os.environ.get("SLURMSTACK_HEALTH", "/etc/slurmstack/health.json"))
#: Of this boot.
RUN = Path("/run/slurmstack-health")
#: Kept over boots: what was found last, and for which checks the node was drained.
KEPT = Path("/var/lib/slurmstack-health")
DRAINED = KEPT / "drained.json"
METRICS = Path("/var/lib/slurmstack-metrics/slurmstack_health.prom")
JOBS = RUN / "jobs"
#: A file for each job: epilogs run side by side.
LEFT = RUN / "leftovers"
SINCE = RUN / "xids-since"
#: Seconds in which a prolog's checks and an epilog's work are done.
_PROLOG, _KILL, _SWEEP = 0.3, 3.0, 5.0


def results(config: Mapping[str, Any], seconds: float, prolog: bool = False) -> dict[str, Result]:
    """Check → its word.

    Args:
        config: what components/health/node_health.py wrote.
        seconds: how long slow checks are waited for.
        prolog: only those that a job needs and that are known at once.
    """
    wanted = gpus.Wanted(**config["gpus"]) if config["gpus"] else None
    slow: dict[str, tuple[probes.Probe, str]] = {
        "disk": (lambda: system.disks(config["disk"]), "a disk does not answer")
    }
    for path in config["mounts"]:
        slow[f"mount {path}"] = partial(system.mount, path), f"{path} does not answer"
    if not prolog:
        slow["munge"] = system.munge, "munge does not answer"
        slow["fork"] = (lambda: system.fork(config["fork"])), "no process can be started"
        if wanted is not None:
            slow["gpus"] = (lambda: gpus.gpus(wanted)), "nvidia-smi does not answer"
            slow["nvlink"] = (lambda: gpus.nvlinks(wanted)), "nvidia-smi does not answer"
            slow["gpu-clocks"] = gpus.clocks, "nvidia-smi does not answer"
    found: dict[str, Result] = {}
    ib = config["infiniband"]
    found["infiniband"] = fabric.infiniband(ib["ports"], ib["rate"])
    if wanted is not None:
        found["xid"] = xids.xids(config["xids"], _since())
        found["gpu-devices"] = gpus.devices(wanted)
    if not prolog:
        there = system.processes()
        names = [name for _, name, _ in there]
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        found["zombies"] = system.zombies(there, config["zombies"])
        found["clock"] = system.clock(there, config["clock"], uptime)
        found["links"] = fabric.flaps(config["link_flaps"], RUN / "links.json")
        found["leftovers"] = _leftovers()
        if not jobs.steps():
            found["memory"] = system.memory(config["memory"])
            if wanted is not None:
                used = config["gpu_memory"]
                slow["gpu-memory"] = (lambda: gpus.memory_held(used)), "nvidia-smi does not answer"
        if wanted is not None:
            found["gpu-versions"] = gpus.versions()
            found["fabric-manager"] = gpus.fabric_manager(names)
    out = set(config["without"])
    slow = {name: it for name, it in slow.items() if name.split()[0] not in out}
    found |= probes.answers(slow, RUN, seconds)
    return {name: it for name, it in sorted(found.items()) if name.split()[0] not in out}


def _since() -> float:
    try:
        return float(SINCE.read_text())
    except (OSError, ValueError):
        return -1


def _leftovers() -> Result:
    """Processes that an epilog could not end."""
    now = time.monotonic()
    still = []
    for path in sorted(LEFT.glob("[0-9]*")):
        since, processes = json.loads(path.read_text())
        running = [pid for pid, start in processes if jobs.runs(pid, start)]
        if not running:
            path.unlink(missing_ok=True)
        elif now - since > probes.PATIENCE:
            still += [f"{pid} of job {path.name}" for pid in running]
    return fault(f"processes that cannot be ended: {', '.join(still)}") if still else GOOD


def check(config: Mapping[str, Any]) -> int:
    """All of them, noted and told."""
    began, before = time.monotonic(), _drained_for()
    found = results(config, config["deadline"])
    took = time.monotonic() - began
    faults = {name: it.words for name, it in found.items() if it.verdict == "fault"}
    said = _told(config, found, before)
    shown = {name: {"verdict": it.verdict, "words": it.words} for name, it in found.items()}
    last = {"time": time.time(), "seconds": round(took, 3), "told": said, "checks": shown}
    _keep(KEPT / "last.json", last)
    _measured(found, took)
    for name, words in faults.items():
        print(f"{name}: {words}")
    return 1 if faults else 0


def _told(
    config: Mapping[str, Any], found: Mapping[str, Result], before: Sequence[str] | None
) -> str:
    """Tell slurmctld, and keep for which checks the node is drained: what was done, or `failed`.

    A run of the checks and a job's prolog meet here, one after the other. A drain is noted before
    it is made: one of which nothing is known would never end.

    Args:
        before: for which checks it was drained when these were begun.
    """
    faults = {name for name, it in found.items() if it.verdict == "fault"}
    with (RUN / "told.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        drained_for = _drained_for()
        # Where nothing is known of what came before, slurmctld is asked once.
        if not faults and (drained_for == [] or drained_for != before):
            return "nothing"  # a prolog's word is newer than these checks
        known = drained_for or []
        if faults:
            _keep(DRAINED, {"checks": sorted({*faults, *known})})
        from on_node.health import told

        try:
            said = told.tell(config["node"], found, known).what
        except RuntimeError as error:
            print(f"slurmctld was told nothing: {error}", file=sys.stderr)
            return "failed"
        if said == "drain":
            _keep(DRAINED, {"checks": sorted(faults)})
        elif said == "return" or (said == "nothing" and _all_good(found)):
            _keep(DRAINED, {"checks": []})
        return said


def _drained_for() -> list[str] | None:
    """Checks; None where nothing was ever kept, or was lost."""
    checks = _recall(DRAINED).get("checks")
    return list(checks) if isinstance(checks, list) else None


def _all_good(found: Mapping[str, Result]) -> bool:
    return all(it.verdict == "good" for it in found.values())


def _measured(found: Mapping[str, Result], took: float) -> None:
    """For node-exporter's textfile collector."""
    if not METRICS.parent.is_dir():
        return
    lines = [
        "# HELP slurmstack_health_check Of each check of the node: 1 good, 0 a fault, -1 unknown.",
        "# TYPE slurmstack_health_check gauge",
    ]
    numbers = {"good": 1, "fault": 0, "unknown": -1}
    for name, it in found.items():
        label = name.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'slurmstack_health_check{{check="{label}"}} {numbers[it.verdict]}')
    lines += [
        "# HELP slurmstack_health_duration_seconds How long the last run took.",
        "# TYPE slurmstack_health_duration_seconds gauge",
        f"slurmstack_health_duration_seconds {took:.3f}",
        "# HELP slurmstack_health_last_run_timestamp_seconds When it was.",
        "# TYPE slurmstack_health_last_run_timestamp_seconds gauge",
        f"slurmstack_health_last_run_timestamp_seconds {time.time():.0f}",
    ]
    new = METRICS.with_name(".health.prom.new")
    new.write_text("\n".join(lines) + "\n")
    new.replace(METRICS)


def prolog(config: Mapping[str, Any]) -> int:
    """Before a job: exit 1, and the node drained with our words, where it could not run."""
    job, uid = os.environ.get("SLURM_JOB_ID", ""), int(os.environ.get("SLURM_JOB_UID", "0"))
    if job:
        jobs.begin(JOBS, job, uid)
    if not config["prolog"]:
        return 0
    faults = {
        name: it
        for name, it in results(config, _PROLOG, prolog=True).items()
        if it.verdict == "fault"
    }
    if not faults:
        return 0
    for name, it in faults.items():
        print(f"{name}: {it.words}")
    # Slurm's own reason, "Prolog error", says nothing of what to mend; ours stands if it is first.
    _told(config, faults, ())
    return 1


def epilog(config: Mapping[str, Any]) -> int:
    """After a job. What cannot be ended is told by the next check; the epilog itself never fails:
    Slurm would drain the node with words that say nothing."""
    job, uid = os.environ.get("SLURM_JOB_ID", ""), int(os.environ.get("SLURM_JOB_UID", "0"))
    if not job:
        return 0
    if config["epilog"] and uid:
        left = jobs.ended(job, uid, _KILL)
        if left:
            print(f"processes of job {job} that do not end: {[pid for pid, _ in left]}")
            _keep(LEFT / job, [time.monotonic(), left])
        if not jobs.others(JOBS, job, uid, jobs.steps()) and not jobs.has_processes(uid):
            deadline = time.monotonic() + _SWEEP
            for folder in config["sweep"]:
                number = jobs.sweep(folder, uid, deadline)
                if number:
                    print(f"{folder}: {number} files of user {uid} removed")
    jobs.end(JOBS, job)
    return 0


def forget_xids() -> int:
    """What the kernel has told so far counts no longer, until the next boot it is kept."""
    _keep(SINCE, time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
    return 0


def _recall(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(content, indent=1))
    new.replace(path)


def main(words: list[str]) -> int:
    verb = words[0] if words else "check"
    RUN.mkdir(mode=0o755, exist_ok=True)
    if verb == "forget-xids":
        return forget_xids()
    config = json.loads(CONFIG.read_text())
    if verb == "prolog":
        return prolog(config)
    if verb == "epilog":
        return epilog(config)
    with (RUN / "lock").open("w") as lock:
        # Another run is told first; this one takes less than a second.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return check(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
