"""What the bridge asks Kubernetes for, as plain objects.

A user's namespace holds what is the user's: a quota, the rules of the network, the shared folders
as claims (PodSecurity ``restricted`` lets no pod name a folder of its node), and the pods. What
belongs to one job has its first pod for an owner, and goes with it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from on_node.pods.allocation import Allocation, Share
from on_node.pods.results import outputs
from on_node.pods.site import Site

#: The service account as which pods run: it may do nothing.
ACCOUNT = "slurm-job"
#: Of all objects of one job.
LABEL = {"app": "slurm-job"}
#: Of users' namespaces.
USER_LABEL = {"slurmstack": "user"}
#: The one container.
CONTAINER = "job"
#: In the pod: the job file.
_FILE_FOLDER = "/run/slurmstack"
_FILE = f"{_FILE_FOLDER}/job"
#: Of whom a namespace is; an annotation, since a name of a user may be no label.
OWNER = "slurmstack/owner"

#: The bridge's own namespace and account, and what binds its right to a user's namespace
#: (docs/kubernetes-rights.yaml).
BRIDGE = "slurmstack"
_RIGHT = "slurmstack-user"

Object = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What the job file says."""

    image: str
    interpreter: tuple[str, ...]
    text: str
    workdir: str | None
    script: str | None


def namespace(site: Site, uid: int) -> str:
    """A user's."""
    return f"{site.prefix}{uid}"


def pod_name(job: int, index: int) -> str:
    """Of a job's pod on its first, second, … node."""
    return f"slurm-job-{job}" + (f"-{index}" if index else "")


def for_user(site: Site, given: Allocation) -> list[tuple[str, Object]]:
    """What a user's pods need, each with its path, in the order in which it is made."""
    name = namespace(site, given.uid)
    inside = f"/api/v1/namespaces/{name}"
    made: list[tuple[str, Object]] = [
        (
            inside,
            {
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "labels": {**USER_LABEL,
                               "pod-security.kubernetes.io/enforce": "restricted"},
                    "annotations": {OWNER: given.user},
                },
            },
        ),
        right(name),
        (
            f"{inside}/serviceaccounts/{ACCOUNT}",
            {
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT},
                "automountServiceAccountToken": False,
            },
        ),
        (
            f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/own-pods",
            {
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "own-pods"},
                # Nobody comes in but the user's other pods, as those of one job do.
                "spec": {"podSelector": {}, "policyTypes": ["Ingress"],
                         "ingress": [{"from": [{"podSelector": {}}]}]},
            },
        ),
    ]  # fmt: skip
    if site.quota:
        quota = {
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "slurmstack"},
            "spec": {"hard": dict(site.quota)},
        }  # fmt: skip
        made.append((f"{inside}/resourcequotas/slurmstack", quota))
    for folder in site.rules.folders:
        made += _folder(name, folder)
    return made


def right(namespace: str) -> tuple[str, Object]:
    """The bridge's own right in a user's namespace, which it has nowhere else."""
    group = "rbac.authorization.k8s.io"
    return (
        f"/apis/{group}/v1/namespaces/{namespace}/rolebindings/slurmstack-bridge",
        {
            "apiVersion": f"{group}/v1", "kind": "RoleBinding",
            "metadata": {"name": "slurmstack-bridge"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _RIGHT},
            "subjects": [{"kind": "ServiceAccount", "name": "bridge", "namespace": BRIDGE}],
        },
    )  # fmt: skip


def _folder(namespace: str, folder: str) -> list[tuple[str, Object]]:
    """A shared folder as a volume and the claim that has it for good."""
    claim = claim_name(folder)
    volume = f"{namespace}-{claim}"
    size = {"storage": "1Gi"}  # asked for by the API, and held by nobody
    modes = ["ReadWriteMany"]
    return [
        (
            f"/api/v1/persistentvolumes/{volume}",
            {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
                "spec": {
                    "capacity": size, "accessModes": modes, "storageClassName": "",
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": folder, "type": "Directory"},
                    "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                                 "namespace": namespace, "name": claim},
                },
            },
        ),
        (
            f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}",
            {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim},
                "spec": {"accessModes": modes, "storageClassName": "", "volumeName": volume,
                         "resources": {"requests": size}},
            },
        ),
    ]  # fmt: skip


def claim_name(folder: str) -> str:
    """A name for a folder that no other has: of /mnt/nas it is ``mnt-nas-`` and a hash."""
    plain = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:30].rstrip("-")
    return f"{plain or 'root'}-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def pods(site: Site, given: Allocation, wanted: Wanted, groups: Sequence[int]) -> list[Object]:
    """The job's pods, one a node, the batch step's first."""
    return [
        _pod(site, given, wanted, groups, index, share) for index, share in enumerate(given.shares)
    ]


def _pod(
    site: Site, given: Allocation, wanted: Wanted, groups: Sequence[int], index: int, share: Share
) -> Object:
    resources = {"cpu": str(share.cpus), "memory": f"{share.memory}Mi"}
    if site.gpu and share.gpus:
        resources[site.gpu] = str(len(share.gpus))
    volumes: list[Object] = [
        {"name": "file", "secret": {"secretName": pod_name(given.job, 0), "defaultMode": 0o555}}
    ]
    mounts: list[Object] = [{"name": "file", "mountPath": _FILE_FOLDER, "readOnly": True}]
    for number, folder in enumerate(site.rules.folders):
        claim = {"claimName": claim_name(folder)}
        volumes.append({"name": f"folder{number}", "persistentVolumeClaim": claim})
        mounts.append({"name": f"folder{number}", "mountPath": folder})
    container: Object = {
        "name": CONTAINER,
        "image": wanted.image,
        "command": [*wanted.interpreter, _FILE],
        "env": [{"name": name, "value": value}
                for name, value in _environment(site, given, wanted, index, share).items()],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }  # fmt: skip
    if wanted.workdir:
        container["workingDir"] = wanted.workdir
    spec: Object = {
        "nodeName": site.nodes.get(share.node, share.node),
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": site.grace,
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsUser": given.uid, "runAsGroup": given.gid, "runAsNonRoot": True,
            "supplementalGroups": list(groups),
        },
        "containers": [container],
        "volumes": volumes,
    }  # fmt: skip
    if given.qos in site.priorities:
        spec["priorityClassName"] = site.priorities[given.qos]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(given.job, index),
            "labels": labels(given) | {"index": str(index)},
            "annotations": {
                OWNER: given.user, "slurmstack/account": given.account,
                "slurmstack/job-name": given.name, "slurmstack/node": share.node,
            },
        },
        "spec": spec,
    }  # fmt: skip


def labels(given: Allocation) -> dict[str, str]:
    """By which a job's pods are found; of a name that is no label only what can be one."""
    told = {
        **LABEL, "job-id": str(given.job), "restart": str(given.restarts),
        "owner": label(given.user), "account": label(given.account),
    }  # fmt: skip
    if given.array:
        told |= {"array-job-id": str(given.array[0]), "array-task-id": str(given.array[1])}
    return told


def label(text: str) -> str:
    """A label's value: 63 letters, digits, -, _ and ., an end of which is a letter or digit."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:63].strip("_.-")


def _environment(
    site: Site, given: Allocation, wanted: Wanted, index: int, share: Share
) -> Mapping[str, str]:
    """What a job finds of itself, by Slurm's names."""
    numbers = ",".join(str(number) for number in share.gpus)
    told = {
        "SLURM_JOB_ID": str(given.job),
        "SLURM_JOB_NAME": given.name,
        "SLURM_JOB_USER": given.user,
        "SLURM_JOB_ACCOUNT": given.account,
        "SLURM_JOB_QOS": given.qos,
        "SLURM_JOB_PARTITION": given.partition,
        "SLURM_RESTART_COUNT": str(given.restarts),
        "SLURM_JOB_NUM_NODES": str(len(given.shares)),
        "SLURM_NODEID": str(index),
        "SLURMD_NODENAME": share.node,
        "SLURM_CPUS_ON_NODE": str(share.cpus),
        "SLURM_MEM_PER_NODE": str(share.memory),
        "SLURMSTACK_NODES": ",".join(it.node for it in given.shares),
        "USER": given.user,
        # None is none: without it, a runtime hands out all.
        "NVIDIA_VISIBLE_DEVICES": numbers or "void",
    }
    if share.gpus:
        told["SLURM_JOB_GPUS"] = numbers
    if given.array:
        told["SLURM_ARRAY_JOB_ID"] = str(given.array[0])
        told["SLURM_ARRAY_TASK_ID"] = str(given.array[1])
    if site.results:
        told["SLURMSTACK_OUTPUTS"] = outputs(site.results, given.job)
    if wanted.script:
        told["K8S_SCRIPT"] = wanted.script
    # $(NAME) is Kubernetes' own, and the name of a job is the user's.
    return {name: value.replace("$", "$$") for name, value in told.items()}


def for_job(given: Allocation, wanted: Wanted, uid: str) -> list[tuple[str, Object]]:
    """What belongs to one job, each with the path of its kind: the file, and the right to follow
    its own pods and to end them.

    Args:
        given: the job.
        wanted: its file.
        uid: of its first pod, with which all goes.
    """
    name = pod_name(given.job, 0)
    names = [pod_name(given.job, index) for index in range(len(given.shares))]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    meta = {"name": name, "labels": labels(given), "ownerReferences": [owner]}
    subject = {"kind": "ServiceAccount", "name": name}
    rbac, group = "/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    return [
        (
            "/api/v1|secrets",
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": meta, "immutable": True,
                "data": {"job": base64.b64encode(wanted.text.encode()).decode()},
            },
        ),
        (
            "/api/v1|serviceaccounts",
            {
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta,
                "automountServiceAccountToken": False,
            },
        ),
        (
            f"{rbac}|roles",
            {
                "apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta,
                "rules": [
                    {"apiGroups": [""], "resources": ["pods"], "resourceNames": names,
                     "verbs": ["get", "delete"]},
                    {"apiGroups": [""], "resources": ["pods/log"], "resourceNames": names,
                     "verbs": ["get"]},
                    {"apiGroups": ["metrics.k8s.io"], "resources": ["pods"],
                     "resourceNames": names, "verbs": ["get"]},
                ],
            },
        ),
        (
            f"{rbac}|rolebindings",
            {
                "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta,
                "subjects": [subject],
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            },
        ),
    ]  # fmt: skip
