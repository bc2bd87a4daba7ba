"""Where hosts leave figures for node-exporter."""

from __future__ import annotations

from remote.bundle import Command

#: A folder of text files (`--collector.textfile.directory`).
METRICS = "/var/lib/slurmstack-metrics"


def forgotten(name: str, unit: str) -> Command:
    """Takes figures away with their role, so that they are not told for ever.

    Args:
        name: their file is ``slurmstack_NAME.prom``.
        unit: the timer and the service that write them. Such commands run while units still do: it
            is stopped first, or would write them again.
    """
    script = (
        f"systemctl stop {unit}.timer {unit}.service 2>/dev/null\n"
        f"rm -f {METRICS}/slurmstack_{name}.prom {METRICS}/.{name}.prom.new\n"
    )
    return Command(f"forget-{name}", script, when="remove", timeout=90)
