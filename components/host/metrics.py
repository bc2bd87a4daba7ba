"""Where hosts leave figures for node-exporter."""

from __future__ import annotations

from remote.bundle import Command

#: A folder of text files (`--collector.textfile.directory`).
METRICS = "/var/lib/slurmstack-metrics"


def forgotten(name: str, *, unit: str | None = None, lock: str | None = None) -> Command:
    """Takes figures away with their role, so that they are not told for ever.

    Args:
        name: their file is ``slurmstack_NAME.prom``.
        unit: the timer and the service that write them. Such commands run while units still do: it
            is stopped first, or would write them again.
        lock: the file that whoever writes them holds (flock(1)) where no unit does: a run that has
            begun is waited for.
    """
    files = f"{METRICS}/slurmstack_{name}.prom {METRICS}/.{name}.prom.new"
    script = f"systemctl stop {unit}.timer {unit}.service 2>/dev/null\n" if unit else ""
    script += f"[ ! -e {lock} ] || flock -w 60 {lock} true\n" if lock else ""
    return Command(f"forget-{name}", f"{script}rm -f {files}\n", when="remove", timeout=90)
