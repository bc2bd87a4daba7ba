"""Where hosts leave figures for node-exporter."""

from __future__ import annotations

#: A folder of text files (`--collector.textfile.directory`).
METRICS = "/var/lib/slurmstack-metrics"
