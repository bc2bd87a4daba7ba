"""What a job's pods use, as Kubernetes measures it (``metrics.k8s.io``, of metrics-server), and
what its GPUs do, as their driver says.

Both say what is used now, some seconds' worth, and keep nothing: who wants to know of a whole job
asks again and again, and counts each answer once.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from on_node.pods.manifests import CONTAINER

_API = "/apis/metrics.k8s.io/v1beta1"
_QUANTITY = re.compile(r"([0-9.]+)([a-zA-Z]*)")
_SCALES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def path(namespace: str, pod: str = "") -> str:
    """Where it is told of one pod, or of all in a namespace."""
    return f"{_API}/namespaces/{namespace}/pods" + (f"/{pod}" if pod else "")


@dataclass
class Used:
    """By one pod, until now."""

    samples: int = 0
    #: CPUs: of all samples together, and the most.
    cpu_sum: float = 0
    cpu_most: float = 0
    #: Bytes.
    memory_most: float = 0
    #: When the last was taken.
    last: str = ""

    def take(self, told: Mapping[str, Any]) -> None:
        """A PodMetrics; one that was taken already changes nothing."""
        if told["timestamp"] == self.last:
            return
        use = next((it["usage"] for it in told["containers"] if it["name"] == CONTAINER), None)
        if use is None:
            return
        cpu, memory = quantity(use["cpu"]), quantity(use["memory"])
        self.samples, self.last = self.samples + 1, told["timestamp"]
        self.cpu_sum += cpu
        self.cpu_most = max(self.cpu_most, cpu)
        self.memory_most = max(self.memory_most, memory)

    def __str__(self) -> str:
        return (
            f"{self.cpu_sum / max(self.samples, 1):.2f} CPUs on average and {self.cpu_most:.2f} at "
            f"most, {self.memory_most / 2**20:.0f} MiB at most ({self.samples} looks)"
        )


@dataclass
class UsedGpus:
    """By the GPUs of a job on one node, until now."""

    samples: int = 0
    #: Percent of the time in which a kernel ran (utilization.gpu of nvidia-smi(1)): of all samples.
    busy_sum: float = 0
    #: MiB, of one GPU.
    memory_most: float = 0

    def take(self, numbers: str, told: str) -> None:
        """Lines of :func:`ask_gpus`. Where jobs are confined to their devices the driver tells of
        these alone; elsewhere it tells of all, and those with the job's numbers (``0,3``, as
        SLURM_JOB_GPUS has them) count. Of an instance of MIG it says nothing."""
        lines = told.splitlines()
        own = [int(it) for it in numbers.split(",") if it.isdecimal()]
        if len(lines) > len(own):
            lines = [lines[it] for it in own if it < len(lines)]
        for line in lines:
            if match := re.fullmatch(r" *([0-9]+), *([0-9]+) *", line):
                self.samples += 1
                self.busy_sum += float(match[1])
                self.memory_most = max(self.memory_most, float(match[2]))

    def __str__(self) -> str:
        return (
            f"GPUs {self.busy_sum / max(self.samples, 1):.0f} % busy on average, "
            f"{self.memory_most:.0f} MiB of one at most"
        )


def ask_gpus() -> str:
    """What nvidia-smi says of the GPUs that it sees here, a line each; nothing without it."""
    words = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu,memory.used",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def quantity(text: str) -> float:
    """A number of Kubernetes', such as 250m or 64Mi.

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SCALES:
        raise ValueError(f"{text}: no quantity")
    return float(match[1]) * _SCALES[match[2]]
