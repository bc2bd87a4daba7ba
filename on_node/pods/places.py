"""Where things are on a compute node; named by the component, too."""

from __future__ import annotations

from pathlib import Path

CONFIGURATION = Path("/etc/slurmstack/pods.json")
#: Root's alone.
CREDENTIAL = Path("/etc/slurmstack/kubernetes-token")
#: Where batch steps ask for their pods.
SOCKET = "/run/slurmstack-pods/agent.sock"
#: JOBID → where its pods are: which jobs of this node have any, told without the API.
RECORDS = Path("/run/slurmstack-pods/jobs")
