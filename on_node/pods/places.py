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
#: Where a node's kubelet has a folder for each of its pods, NAMESPACE_NAME_UID, from before its
#: container runs until after it has gone: what runs here, told without the API.
KUBELET = Path("/var/log/pods")
