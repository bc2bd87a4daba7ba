"""Jobs that run as pods: a real control plane of Kubernetes, and stand-ins for its kubelets."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import control_plane
from tests.lab.conftest import CHECKOUT, USERS, RunningLab, await_that
from tests.lab.control_plane import ControlPlane

pytestmark = pytest.mark.lab

NODES = ("cn01", "cn02")
KUBELET = Path(__file__).parent / "stand_in" / "kubelet.py"
#: Where stand-ins are on nodes.
PLACE = "/var/lib/stand-in-kubelet"
#: Stands for a registry: it has every image.
REGISTRY = """
import http.server
class Registry(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", 5408), Registry).serve_forever()
"""
HEAD = """\
#!/bin/bash
#SBATCH --partition=main --mem=50M --time=5
#SBATCH --output=/srv/nas/%j.out
#K8S_IMAGE=ctl:5408/tools/alpine:3.20
"""


@dataclass(frozen=True)
class Pods:
    """The lab, and Kubernetes beside it."""

    lab: RunningLab
    plane: ControlPlane

    def submit(self, body: str, *options: str, user: str = "alice", head: str = HEAD) -> str:
        """A job of somebody's, from a file of theirs; its id."""
        file = f"/srv/nas/{user}-{time.monotonic_ns()}.sh"
        self.lab.send("ctl", f"install -m 644 -o {user} /dev/stdin {file}", (head + body).encode())
        words = f"SBATCH_EXPORT=NONE slurmstack-job submit {file} 2>&1"
        options_of = {"SBATCH_" + it.partition("=")[0]: it.partition("=")[2] for it in options}
        names = " ".join(f"{name}={value}" for name, value in options_of.items())
        told = self.lab.ssh("ctl", f"runuser -u alice -- sh -c 'cd /srv/nas; {names} {words}'"
                            .replace("-u alice", f"-u {user}")).stdout  # fmt: skip
        match = re.search(r"Submitted batch job (\d+)", told)
        assert match, told
        return match[1]

    def ended(self, job: str, seconds: float = 120) -> dict[str, str]:
        """What slurmctld says of a job once it has ended."""
        fields: dict[str, str] = {}

        def over() -> bool:
            told = self.lab.ssh("ctl", f"scontrol -o show job {job}").stdout
            fields.update(re.findall(r"(\S+?)=(\S*)", told))
            return fields["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")

        try:
            await_that(over, seconds)
        except AssertionError:
            pytest.fail(f"{fields}\n{self.output(job)}\n{self.pods(job)}")
        return fields

    def output(self, job: str) -> str:
        """What a job has written, on whichever node."""
        return "".join(
            self.lab.ssh(node, f"cat /srv/nas/{job}.out 2>/dev/null || true").stdout
            for node in NODES
        )

    def pods(self, job: str) -> list[dict[str, Any]]:
        """Its pods that are there."""
        items: list[dict[str, Any]] = self.plane.call(
            "GET", f"/api/v1/pods?labelSelector=job-id={job}"
        )["items"]
        return items

    def running(self, job: str) -> list[dict[str, Any]]:
        """Its pods, once they run."""
        found: list[dict[str, Any]] = []

        def run() -> bool:
            found[:] = self.pods(job)
            return bool(found) and all(
                it.get("status", {}).get("phase") == "Running" for it in found
            )

        try:
            await_that(run, 120)
        except AssertionError:
            pytest.fail(f"{self.output(job)}\n{found}")
        return found


@pytest.fixture(scope="module")
def pods(users: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """The lab with the bridge to a control plane of its own."""
    lab = users
    folder = tmp_path_factory.mktemp("kubernetes")
    before = lab.settings.read_text()
    with control_plane.running(folder / "plane", lab.lab.gateway) as plane:
        try:
            for node in ("ctl", *NODES):
                lab.ssh(node, "install -d -m 1777 /srv/nas")
            program = base64.b64encode(REGISTRY.encode()).decode()
            lab.ssh("ctl", f"echo {program} | base64 -d >/root/registry.py; systemd-run --unit "
                           "stand-in-registry python3 /root/registry.py")  # fmt: skip
            bridge = {
                "folder": "/srv/nas/slurm-jobs",
                "folders": ["/srv/nas"],
                "registries": [{"name": "ctl:5408", "scheme": "http"}],
                "settled": 1,
                "pods": {
                    "server": plane.server,
                    "ca": plane.ca,
                    "grace": 5,
                    "startWithin": 40,
                    "priorityClasses": {"high": "slurm-high"},
                    "quota": {"requests.cpu": "8", "requests.memory": "32Gi", "pods": "6"},
                },
            }
            lab.set(kubernetesBridge=bridge)
            key = ["pulumi", "config", "set", "--secret", "slurmstack:kubernetesToken",
                   rights(plane), "--stack", lab.name]  # fmt: skip
            lab.run(*key)
            lab.up()
            for node in NODES:
                kubelet(lab, plane, node, folder)
            yield Pods(lab, plane)
        finally:
            lab.ssh("ctl", "squeue -h -o %A | xargs -r scancel", check=False)
            lab.settings.write_text(before)
            lab.up()
            for node in NODES:
                lab.ssh(node, f"systemctl stop stand-in-kubelet; rm -rf /srv/nas {PLACE}",
                        check=False)  # fmt: skip
            lab.ssh("ctl", "systemctl stop stand-in-registry; rm -rf /srv/nas", check=False)


def rights(plane: ControlPlane) -> str:
    """What the page has an administrator apply; the bridge's token."""
    kinds = {
        "Namespace": "/api/v1/namespaces",
        "ServiceAccount": "/api/v1/namespaces/slurmstack/serviceaccounts",
        "Secret": "/api/v1/namespaces/slurmstack/secrets",
        "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    }
    for body in yaml.safe_load_all((CHECKOUT / "docs" / "kubernetes-rights.yaml").read_text()):
        plane.call("POST", kinds[body["kind"]], body)
    priority = {
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "slurm-high"}, "value": 1000,
    }  # fmt: skip
    plane.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", priority)
    secret: dict[str, Any] = {}

    def made() -> bool:
        secret.update(plane.call("GET", "/api/v1/namespaces/slurmstack/secrets/bridge"))
        return "token" in secret.get("data", {})

    await_that(made, 60)
    return base64.b64decode(secret["data"]["token"]).decode()


def kubelet(lab: RunningLab, plane: ControlPlane, node: str, folder: Path) -> None:
    """Start the stand-in on a node."""
    told = {
        "server": plane.server, "token": plane.tokens[f"system:node:{node}"], "node": node,
        "address": lab.address(node), "port": 10250,
    }  # fmt: skip
    key, certificate = folder / "kubelet.key", folder / "kubelet.crt"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             f"/CN={node}", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    lab.ssh(node, f"install -d -m 711 {PLACE}")
    for name, text in {
        "kubelet.py": KUBELET.read_text(), "kubelet.json": json.dumps(told), "ca.pem": plane.ca,
        "tls.pem": certificate.read_text() + key.read_text(),
    }.items():  # fmt: skip
        lab.send(node, f"umask 077; cat >{PLACE}/{name}", text.encode())
    lab.ssh(node, "systemctl reset-failed stand-in-kubelet 2>/dev/null; systemd-run --unit "
                  f"stand-in-kubelet python3 {PLACE}/kubelet.py {PLACE}")  # fmt: skip


def test_a_job_is_a_pod_and_ends_as_it_does(pods: Pods) -> None:
    body = 'echo "$SLURM_JOB_ID of $(id -u):$(id -g) on $SLURMD_NODENAME"; echo wrong >&2; exit 7\n'
    job = pods.submit(body)
    fields = pods.ended(job)
    output = pods.output(job)
    assert (fields["JobState"], fields["ExitCode"]) == ("FAILED", "7:0"), output
    uid = USERS["alice"]
    assert f"{job} of {uid}:{uid} on {fields['BatchHost']}\nwrong\n" in output
    await_that(lambda: pods.pods(job) == [], 60)


def test_a_pod_is_as_large_as_what_the_job_was_given(pods: Pods) -> None:
    head = HEAD.replace("--mem=50M", "--mem=70M --qos=high --gres=gpu:2 --cpus-per-task=2")
    job = pods.submit("sleep 300\n", head=head)
    (pod,) = pods.running(job)
    spec = pod["spec"]
    container = spec["containers"][0]
    wanted = {"cpu": "2", "memory": "70Mi", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"limits": wanted, "requests": wanted}
    assert (spec["nodeName"], spec["priorityClassName"]) == ("cn01", "slurm-high")
    environment = {it["name"]: it.get("value") for it in container["env"]}
    assert environment["SLURM_JOB_GPUS"] == "0,1"
    labels = pod["metadata"]["labels"]
    assert {"app": "slurm-job", "job-id": job, "owner": "alice", "account": "physics"}.items() <= (
        labels.items()
    )
    namespace = pods.plane.call("GET", f"/api/v1/namespaces/user-{USERS['alice']}")
    enforced = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"
    # It ends with its job, and Slurm gives nothing out before.
    pods.lab.ssh("ctl", f"scancel {job}")
    assert pods.ended(job)["JobState"] == "CANCELLED"
    assert pods.pods(job) == []


def test_what_a_job_may_do_of_itself_and_of_others(pods: Pods) -> None:
    job = pods.submit("sleep 300\n")
    other = pods.submit("sleep 300\n")
    (pod,), (beside,) = pods.running(job), pods.running(other)
    inside = f"/api/v1/namespaces/{pod['metadata']['namespace']}"
    name = pod["metadata"]["name"]
    request = {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600},
    }  # fmt: skip
    made = pods.plane.call("POST", f"{inside}/serviceaccounts/{name}/token", request)
    token = made["status"]["token"]
    assert pods.plane.call("GET", f"{inside}/pods/{name}", token=token)["kind"] == "Pod"
    for path in (
        f"{inside}/pods/{beside['metadata']['name']}", f"{inside}/secrets/{name}",
        f"{inside}/pods", "/api/v1/namespaces/slurmstack/secrets/bridge", "/api/v1/nodes",
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError, match="403"):
            pods.plane.call("GET", path, token=token)
    pods.lab.ssh("ctl", f"scancel {job} {other}")
    pods.ended(job)
    pods.ended(other)
    # With the pod goes what was the job's.
    for kind in ("secrets", "serviceaccounts"):
        left = f"{inside}/{kind}?labelSelector=job-id={job}"
        await_that(lambda left=left: pods.plane.call("GET", left)["items"] == [], 120)  # type: ignore[misc]
