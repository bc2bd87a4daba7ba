"""What job files and pods both name."""

from __future__ import annotations

#: The first line of a job file that runs as a pod names it, and the interpreter in the pod.
RUNNER = "/usr/local/bin/slurmstack-pod"
