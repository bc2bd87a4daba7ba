"""Jobs that run as pods: a real control plane of Kubernetes, and stand-ins for its kubelets."""

from __future__ import annotations

import base64
import contextlib
import json
import os
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

from tests.lab import control_plane, shared_folder
from tests.lab.conftest import CHECKOUT, USERS, RunningLab, await_that
from tests.lab.control_plane import ControlPlane
from tests.lab.stand_in.metrics import Metrics

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
    #: What its stand-ins are made of.
    folder: Path

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
            # slurmctld forgets one that has ended within minutes.
            told = self.lab.ssh(
                "ctl", f"scontrol -o show job {job} 2>/dev/null || sacct -XPn -j {job} "
                "-o State,ExitCode | sed 's/^/JobState=/; s/|/ ExitCode=/'",
            ).stdout  # fmt: skip
            fields.update(re.findall(r"(\S+?)=(\S*)", told))
            return fields["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")

        try:
            await_that(over, seconds)
        except AssertionError:
            pytest.fail(f"{fields}\n{self.output(job)}\n{self.pods(job)}")
        return fields

    def output(self, job: str, kind: str = "out") -> str:
        """What a job has written, on whichever node."""
        return "".join(
            self.lab.ssh(node, f"cat /srv/nas/{job}.{kind} 2>/dev/null || true").stdout
            for node in NODES
        )

    def pods(self, job: str) -> list[dict[str, Any]]:
        """Its pods that are there."""
        items: list[dict[str, Any]] = self.plane.call(
            "GET", f"/api/v1/pods?labelSelector=job-id={job}"
        )["items"]
        return items

    def running(self, job: str, nodes: int = 1) -> list[dict[str, Any]]:
        """Its pods, once they run: one for each of its nodes, which are made one by one."""
        found: list[dict[str, Any]] = []

        def run() -> bool:
            found[:] = self.pods(job)
            return len(found) == nodes and all(
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
                    "startWithin": 90,
                    "results": "/srv/nas/results",
                    "keepResults": 30,
                    "priorityClasses": {"high": "slurm-high"},
                    "quota": {"requests.memory": "4Gi"},
                },
            }
            lab.set(kubernetesBridge=bridge)
            lab.change(preemption)
            key = ["pulumi", "config", "set", "--secret", "slurmstack:kubernetesToken",
                   rights(plane), "--stack", lab.name]  # fmt: skip
            lab.run(*key)
            lab.up()
            for node in NODES:
                kubelet(lab, plane, node, folder)
                # A share is the same everywhere; here it is a folder of each machine.
                lab.ssh(node, "install -d -m 1777 /srv/nas/results")
            with measured(lab, plane, folder):
                yield Pods(lab, plane, folder)
        finally:
            lab.ssh("ctl", "squeue -h -o %A | xargs -r scancel", check=False)
            lab.settings.write_text(before)
            lab.up()
            for node in NODES:
                lab.ssh(node, f"systemctl stop stand-in-kubelet; rm -rf /srv/nas {PLACE}",
                        check=False)  # fmt: skip
            lab.ssh("ctl", "systemctl stop stand-in-registry; rm -rf /srv/nas", check=False)


def preemption(config: dict[str, Any]) -> None:
    """Partitions whose jobs give way to those of another, in each of the two ways."""
    extra = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE"}
    config["slurm"]["extra"] |= extra
    config["partitions"] |= {
        "cheap": {"Nodes": "cn01", "extra": {"PreemptMode": "REQUEUE"}},
        "scrap": {"Nodes": "cn01", "extra": {"PreemptMode": "CANCEL"}},
        "urgent": {"Nodes": "cn01", "extra": {"PriorityTier": 10}},
    }


def rights(plane: ControlPlane) -> str:
    """What the page has an administrator apply; the bridge's token."""
    kinds = {
        "Namespace": "/api/v1/namespaces",
        "ServiceAccount": "/api/v1/namespaces/slurmstack/serviceaccounts",
        "Secret": "/api/v1/namespaces/slurmstack/secrets",
        "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/slurmstack/roles",
        "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/slurmstack/rolebindings",
        **{f"ValidatingAdmissionPolicy{it}": "/apis/admissionregistration.k8s.io/v1/"
           f"validatingadmissionpolic{words}" for it, words in (("", "ies"),
                                                               ("Binding", "ybindings"))},
    }  # fmt: skip
    text = (CHECKOUT / "docs" / "kubernetes-rights.yaml").read_text()
    # As the page has a site with other folders do.
    for body in yaml.safe_load_all(text.replace("['/mnt/nas']", "['/srv/nas']")):
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


@contextlib.contextmanager
def measured(lab: RunningLab, plane: ControlPlane, folder: Path) -> Iterator[None]:
    """With metrics of pods, which the API server asks a stand-in for."""
    key, certificate = folder / "kubelet.key", folder / "kubelet.crt"
    pem = folder / "metrics.pem"
    pem.write_text(certificate.read_text() + key.read_text())
    metrics = Metrics({it: f"{lab.address(it)}:10250" for it in NODES}, plane.address, pem)
    system = "/api/v1/namespaces/kube-system"
    service = {"name": "metrics-server", "namespace": "kube-system"}
    try:
        plane.call("POST", f"{system}/services", {
            "apiVersion": "v1", "kind": "Service", "metadata": service,
            "spec": {"ports": [{"name": "https", "port": 443}]},
        })  # fmt: skip
        plane.call("POST", "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {**service, "labels": {"kubernetes.io/service-name": service["name"]}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": metrics.port}],
            "endpoints": [{"addresses": [plane.address], "conditions": {"ready": True}}],
        })  # fmt: skip
        plane.call("POST", "/apis/apiregistration.k8s.io/v1/apiservices", {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "service": service,
                     "groupPriorityMinimum": 100, "versionPriority": 100,
                     "insecureSkipTLSVerify": True},
        })  # fmt: skip
        yield
    finally:
        metrics.close()


@pytest.fixture(scope="module", autouse=True)
def hopeless(pods: Pods) -> str:
    """A job whose image cannot be pulled, which is waited for beside all others."""
    head = HEAD.replace("tools/alpine:3.20", "missing:1")
    return pods.submit("true\n", head=head)


#: A pod that tells which of its runs began, and that it had its time to end; its second run ends.
RUNS = """\
echo "run $SLURM_RESTART_COUNT" >>/srv/nas/$SLURM_JOB_ID.runs
trap 'echo saved >>/srv/nas/$SLURM_JOB_ID.runs; exit 0' TERM
[ $SLURM_RESTART_COUNT != 0 ] || { sleep 600 & wait; }
"""


@pytest.fixture(scope="module", autouse=True)
def requeued(pods: Pods) -> str:
    """A job that was requeued: Slurm starts it anew after two minutes (cred_expire of AuthInfo)."""
    job = pods.submit(RUNS)
    (first,) = pods.running(job)
    assert first["metadata"]["labels"]["restart"] == "0"
    await_that(lambda: pods.output(job, "runs") == "run 0\n", 60)
    pods.lab.ssh("ctl", f"scontrol requeue {job}")
    return job


@pytest.fixture(scope="module", autouse=True)
def preempted(pods: Pods) -> tuple[str, str, str]:
    """Two jobs that gave way to the third, one to be run anew and one for good."""
    head = HEAD.replace("--partition=main", "--partition={} --gres=gpu:{}")
    again, never = (pods.submit(RUNS, head=head.format(it, 2)) for it in ("cheap", "scrap"))
    for job in (again, never):
        pods.running(job)
        await_that(lambda job=job: pods.output(job, "runs") == "run 0\n", 60)  # type: ignore[misc]
    return again, never, pods.submit("echo urgent\n", head=head.format("urgent", 4))


@pytest.fixture(scope="module", autouse=True)
def too_long(pods: Pods) -> str:
    """A job that takes longer than it may."""
    return pods.submit(RUNS, head=HEAD.replace("--time=5", "--time=1"))


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
    pods.lab.ssh("ctl", f"scancel {job}")
    pods.ended(job)


def test_a_job_that_is_cancelled_takes_its_pod_along(pods: Pods) -> None:
    job = pods.submit("trap 'echo saved; exit 0' TERM\necho begun\nsleep 300 & wait\n")
    pods.running(job)
    await_that(lambda: "begun" in pods.output(job), 60)
    pods.lab.ssh("ctl", f"scancel {job}")
    assert pods.ended(job)["JobState"] == "CANCELLED"
    # Slurm gives nothing out before the pod has gone, and it had its time.
    assert pods.pods(job) == []
    assert "begun\n" in pods.output(job).partition("saved\n")[0]
    assert "saved\n" in pods.output(job)


def test_a_job_on_two_nodes_and_an_array(pods: Pods) -> None:
    body = 'echo "node $SLURM_NODEID of $SLURMSTACK_NODES"; [ $SLURM_NODEID = 0 ] || exit 5\n'
    wide = pods.submit(body, head=HEAD.replace("--mem", "--nodes=2 --mem"))
    fields = pods.ended(wide)
    output = pods.output(wide)
    assert fields["ExitCode"] == "5:0", output
    for line in ("node 0 of cn01,cn02\n", "cn02: node 1 of cn01,cn02\n"):
        assert line in output
    array = pods.submit("echo task $SLURM_ARRAY_TASK_ID\n",
                        head=HEAD.replace("--mem", "--array=3-4 --mem"))  # fmt: skip
    for task in ("3", "4"):
        fields = pods.ended(f"{array}_{task}")
        assert fields["JobState"] == "COMPLETED"
        assert f"task {task}\n" in pods.output(fields["JobId"])


def test_a_quota_that_is_used_up_is_waited_for_in_words(pods: Pods) -> None:
    head = HEAD.replace("--mem=50M", "--mem=3G")
    first = pods.submit("sleep 300\n", head=head)
    pods.running(first)
    second = pods.submit("echo at last\n", head=head)
    await_that(lambda: "waits: " in pods.output(second) and "exceeded quota" in
               pods.output(second), 60)  # fmt: skip
    pods.lab.ssh("ctl", f"scancel {first}")
    assert pods.ended(second)["JobState"] == "COMPLETED"
    assert "at last\n" in pods.output(second)


def test_pods_without_a_job_end(pods: Pods) -> None:
    job = pods.submit("sleep 300\n")
    (pod,) = pods.running(job)
    inside = f"/api/v1/namespaces/{pod['metadata']['namespace']}"
    labels = pod["metadata"]["labels"]
    orphan = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "orphan", "labels": {**labels, "job-id": "999999"}},
        "spec": {**pod["spec"], "volumes": [], "containers": [
            {**pod["spec"]["containers"][0], "volumeMounts": [], "command": ["sleep", "300"]}]},
    }  # fmt: skip
    earlier = json.loads(json.dumps(orphan))
    earlier["metadata"] |= {"name": "earlier", "labels": {**labels, "restart": "7"}}
    for body in (orphan, earlier):
        pods.plane.call("POST", f"{inside}/pods", body)
    pods.lab.ssh("ctl", "systemctl start slurmstack-pods-end.service")
    selector = f"{inside}/pods?labelSelector=app=slurm-job"

    def left() -> set[str]:
        items = pods.plane.call("GET", selector)["items"]
        return {it["metadata"]["name"] for it in items}

    await_that(lambda: not left() & {"orphan", "earlier"}, 60)
    assert f"slurm-job-{job}" in left()
    # slurmctld is away: nobody knows what is an orphan.
    pods.lab.ssh("ctl", "systemctl stop slurmctld")
    try:
        end = "systemctl start slurmstack-pods-end.service"
        assert pods.lab.ssh("ctl", end, check=False).returncode != 0
        assert f"slurm-job-{job}" in left()
    finally:
        pods.lab.ssh("ctl", "systemctl start slurmctld")
    shown = pods.lab.run("slurmstack", "job", "show", job, "--stack", pods.lab.name).stdout
    assert f"  pod       user-{USERS['alice']}/slurm-job-{job} Running, on cn0" in shown
    assert "  image     ctl:5408/tools/alpine:3.20\n" in shown
    pods.lab.ssh("ctl", f"scancel {job}")
    pods.ended(job)


def test_nobody_gets_a_pod_but_by_a_job_of_their_own(pods: Pods) -> None:
    job = pods.submit("sleep 300\n")
    pods.running(job)
    node = pods.lab.ssh("ctl", f"squeue -h -j {job} -o %B").stdout.strip()
    ask = """\
import json, socket
peer = socket.socket(socket.AF_UNIX)
peer.connect("/run/slurmstack-pods/agent.sock")
peer.sendall(json.dumps({"ask": "token"}).encode() + b"\\n")
print(peer.recv(10000).decode())
"""
    pods.lab.send(node, "cat >/srv/nas/ask.py; chmod 644 /srv/nas/ask.py", ask.encode())
    # Neither somebody else, nor the user beside the job, nor under the name of its step.
    named = f'exec -a "slurmstepd: [{job}.batch]" python3 /srv/nas/ask.py'
    for user, words in (("bob", "python3 /srv/nas/ask.py"), ("alice", named), ("bob", named)):
        told = pods.lab.ssh(node, f"runuser -u {user} -- bash -c '{words}'").stdout
        assert "this is no batch step of a job" in told, told
        assert "token" not in told
    for path in ("/etc/slurmstack/kubernetes-token", "/run/slurmstack-pods/jobs"):
        assert pods.lab.ssh(node, f"runuser -u alice -- cat {path}", check=False).returncode != 0
    pods.lab.ssh("ctl", f"scancel {job}")
    # By sbatch itself, past the folder's and the command's look at the file.
    head = HEAD.replace("#!/bin/bash", "#!/usr/local/bin/slurmstack-pod /bin/bash").replace(
        "ctl:5408", "docker.io"
    )
    pods.lab.send("ctl", "cat >/srv/nas/evil.sh; chmod 644 /srv/nas/evil.sh", head.encode())
    told = pods.lab.ssh("ctl", "runuser -u alice -- sbatch --parsable /srv/nas/evil.sh").stdout
    fields = pods.ended(told.strip())
    assert fields["ExitCode"] == "125:0"
    assert "line 4: K8S_IMAGE: registry docker.io is not allowed" in pods.output(told.strip())
    pods.ended(job)


def test_results_are_whole_and_proven(pods: Pods) -> None:
    for name in NODES:
        for user, number in (("alice", "1"), ("bob", "2")):
            old = f"install -d -o {user} /srv/nas/results/{number}"
            pods.lab.ssh(name, f"{old}; touch -d '40 days ago' /srv/nas/results/{number}")
    job = pods.submit("echo kept; mkdir $SLURMSTACK_OUTPUTS/a; echo 1 >$SLURMSTACK_OUTPUTS/a/b\n")
    fields = pods.ended(job)
    assert fields["JobState"] == "COMPLETED", pods.output(job)
    node, place = fields["BatchHost"], f"/srv/nas/results/{job}"
    words = "find . -type f | sort; stat -c %U stdout.log; cat stdout.log job_summary.txt; ls -A .."
    listed = pods.lab.ssh(node, f"cd {place}; {words}").stdout
    assert listed.startswith(
        "./checksums.txt\n./job_summary.txt\n./outputs/a/b\n./stderr.log\n./stdout.log\n"
        f"alice\nkept\njob: {job}\n"
    )
    assert "exit code: 0\n" in listed
    assert f".{job}.part" not in listed
    # What this user left long ago has given way; what others left has not.
    assert "/srv/nas/results/1: removed, older than 30 days\n" in pods.output(job)
    left = pods.lab.ssh(node, "ls /srv/nas/results").stdout.split()
    assert ("1" in left, "2" in left) == (False, True)
    # The share is the controller's, too.
    packed = pods.lab.ssh(node, f"tar -C {place}/.. -cz {job} | base64 -w0").stdout
    pods.lab.send("ctl", "base64 -d | tar -C /srv/nas/results -xz", packed.encode())
    verify = ("slurmstack", "job", "verify", job, "--stack", pods.lab.name)
    assert pods.lab.run(*verify).stdout == f"job {job}: its results are as they were\n"
    pods.lab.ssh("ctl", f"cd {place}/outputs; echo 2 >a/b; touch c; rm ../stderr.log")
    done = pods.lab.run(*verify, check=False)
    assert (done.returncode, done.stdout) == (
        1, "outputs/a/b: is another one\noutputs/c: was not there\nstderr.log: is gone\n",
    )  # fmt: skip


def test_what_a_pod_uses_is_told(pods: Pods) -> None:
    """A processor for 40 s and 40 MiB: in its results, and in accounting."""
    body = "import time\nheld = bytearray(40 << 20)\nend = time.time() + 40\n"
    body += "while time.time() < end: pass\n"
    job = pods.submit(body, head=HEAD.replace("/bin/bash", "/usr/bin/python3"))
    (pod,) = pods.running(job)
    inside = f"/apis/metrics.k8s.io/v1beta1/namespaces/{pod['metadata']['namespace']}/pods"

    def told() -> bool:
        try:
            pods.plane.call("GET", f"{inside}/{pod['metadata']['name']}")
        except urllib.error.HTTPError as error:
            if error.code not in (404, 503):
                raise
            return False
        return True

    await_that(told, 60)
    pods.lab.ssh("ctl", "systemctl start slurmstack-pods-end.service")
    fields = pods.ended(job)
    assert fields["JobState"] == "COMPLETED", pods.output(job)
    summary = pods.lab.ssh(fields["BatchHost"], f"cat /srv/nas/results/{job}/job_summary.txt")
    figures = (rf"{fields['BatchHost']}: ([0-9.]+) CPUs on average and ([0-9.]+) at most, "
               r"([0-9]+) MiB at most \(([0-9]+) looks\)")  # fmt: skip
    match = re.search(rf"^used: {figures}$", summary.stdout, re.M)
    assert match, summary.stdout
    mean, most, memory, looks = map(float, match.groups())
    assert 0.1 < mean <= most < 1.3
    assert 45 < memory < 80
    assert looks >= 2
    await_that(lambda: pods.pods(job) == [], 60)
    pods.lab.ssh("ctl", "systemctl start slurmstack-pods-end.service")
    comment = pods.lab.ssh("ctl", f"sacct -X -n -P -j {job} -o AdminComment").stdout.strip()
    assert re.fullmatch(f"pods: {figures}", comment), comment


def test_images_are_fetched_before_they_are_needed(pods: Pods) -> None:
    def pull(*words: str) -> Any:
        done = pods.lab.run("slurmstack", "job", "pull", *words, "--json", "--stack",
                            pods.lab.name, check=False)  # fmt: skip
        return done.returncode, {
            (it["node"], it["image"].partition("/")[2]): it for it in json.loads(done.stdout)
        }

    here, missing = "ctl:5408/tools/alpine:3.20", "ctl:5408/missing:1"
    code, told = pull(here)
    assert (code, {key: it["there"] for key, it in told.items()}) == (
        0, {(node, "tools/alpine:3.20"): True for node in NODES},
    )  # fmt: skip
    code, told = pull(here, missing, "--nodes", "cn02", "--within", "10s")
    assert (code, len(told)) == (1, 2)
    assert told["cn02", "tools/alpine:3.20"]["there"]
    assert told["cn02", "missing:1"]["words"] == "ErrImagePull: ctl:5408/missing:1: not found"
    left = "/api/v1/namespaces/slurmstack/pods?labelSelector=app=slurm-image"
    await_that(lambda: pods.plane.call("GET", left)["items"] == [])
    refused = pods.lab.run("slurmstack", "job", "pull", "elsewhere.example/a:1", "--stack",
                           pods.lab.name, check=False)  # fmt: skip
    assert refused.returncode == 1
    assert "expected an image of ctl:5408 with a tag or a digest" in " ".join(
        refused.stderr.split()
    )


@pytest.fixture
def accounted(pods: Pods) -> Iterator[Pods]:
    """With bob in an account, too."""
    pods.lab.ssh("ctl", "sacctmgr -i add user bob account=physics")
    yield pods
    pods.lab.ssh("ctl", "squeue -h -u bob -o %A | xargs -r scancel")
    await_that(lambda: pods.lab.ssh("ctl", "squeue -h -u bob").stdout == "")
    pods.lab.ssh("ctl", "sacctmgr -i remove user bob")


def test_what_a_job_may_do_of_itself_and_of_others(accounted: Pods) -> None:
    pods = accounted
    job = pods.submit("sleep 300\n")
    other = pods.submit("sleep 300\n")
    of_bob = pods.submit("sleep 300\n", user="bob")
    (pod,), (beside,), (his,) = pods.running(job), pods.running(other), pods.running(of_bob)
    assert his["metadata"]["namespace"] == f"user-{USERS['bob']}"
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
        f"/api/v1/namespaces/{his['metadata']['namespace']}/pods/{his['metadata']['name']}",
        f"/api/v1/namespaces/{his['metadata']['namespace']}/pods/{his['metadata']['name']}/log",
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


def test_the_token_of_a_node_is_for_pods_of_users_alone(pods: Pods) -> None:
    """Who is root on a compute node has it."""
    job = pods.submit("sleep 300\n")
    (pod,) = pods.running(job)
    token = pods.lab.ssh("cn01", "cat /etc/slurmstack/kubernetes-token").stdout.strip()
    own = pod["metadata"]["namespace"]
    rbac, group = "/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"

    def binding(kind: str, role: str, *subjects: dict[str, str]) -> dict[str, Any]:
        return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "more"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": list(subjects)}  # fmt: skip

    bridge = {"kind": "ServiceAccount", "name": "bridge", "namespace": "slurmstack"}
    bob = {"kind": "User", "name": "bob", "apiGroup": group}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
               "spec": {"expirationSeconds": 600}}  # fmt: skip
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "others"}}
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{own}-root"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
                 "hostPath": {"path": "/etc"},
                 "claimRef": {"namespace": own, "name": "root"}},
    }  # fmt: skip

    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "another"},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "",
                 "volumeName": "of-another", "resources": {"requests": {"storage": "1Gi"}}},
    }  # fmt: skip

    def other(**changes: Any) -> dict[str, Any]:
        spec = {**pod["spec"], **changes}
        meta = {"name": "other", "labels": pod["metadata"]["labels"]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    as_bob = {**pod["spec"]["securityContext"], "runAsUser": USERS["bob"]}
    host = {
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}], "serviceAccountName": "default",
        "containers": [{**pod["spec"]["containers"][0], "volumeMounts": []}],
    }  # fmt: skip
    forbidden, policy, security = "is forbidden: User", "denied request: ", "violates PodSecurity"
    tried: list[tuple[str, str, Any, str]] = [
        ("GET", "/api/v1/secrets", None, forbidden),
        ("GET", "/api/v1/namespaces/kube-system/secrets", None, forbidden),
        ("GET", "/api/v1/namespaces/slurmstack/secrets/bridge", None, forbidden),
        ("GET", "/api/v1/pods", None, forbidden),
        ("GET", "/api/v1/nodes", None, forbidden),
        ("DELETE", f"/api/v1/namespaces/{own}", None, forbidden),
        ("DELETE", "/api/v1/nodes/cn02", None, forbidden),
        ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", request,
         forbidden),
        ("POST", "/api/v1/namespaces/slurmstack/serviceaccounts/bridge/token", request, forbidden),
        ("POST", f"{rbac}/clusterrolebindings",
         binding("ClusterRoleBinding", "cluster-admin", bridge), forbidden),
        ("POST", f"{rbac}/namespaces/{own}/rolebindings",
         binding("RoleBinding", "cluster-admin", bridge), "attempting to grant RBAC permissions"),
        # What RBAC would let it do, the policy does not.
        ("POST", f"{rbac}/namespaces/kube-system/rolebindings",
         binding("RoleBinding", "slurmstack-user", bridge), policy + "the bridge is for"),
        ("POST", f"{rbac}/namespaces/{own}/rolebindings",
         binding("RoleBinding", "slurmstack-user", bob), policy + "a right is for the bridge"),
        ("POST", "/api/v1/namespaces", space, policy + "the bridge is for namespaces of users"),
        ("PATCH", f"/api/v1/namespaces/{own}",
         {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
         policy + "a namespace of a user has PodSecurity restricted"),
        ("PATCH", "/api/v1/namespaces/kube-system", {"metadata": {"labels": {"a": "b"}}},
         policy + "the bridge is for namespaces of users"),
        ("POST", "/api/v1/persistentvolumes", volume, policy + "a volume is one of the shared"),
        ("POST", f"/api/v1/namespaces/{own}/persistentvolumeclaims", claim,
         policy + "a claim is on one of these volumes"),
        ("POST", f"/api/v1/namespaces/{own}/pods",
         other(priorityClassName="system-node-critical", priority=None),
         policy + "a pod runs as the user of its namespace"),
        ("POST", f"/api/v1/namespaces/{own}/pods", other(securityContext=as_bob),
         policy + "a pod runs as the user of its namespace"),
        ("POST", f"/api/v1/namespaces/{own}/pods", other(hostNetwork=True), security),
        ("POST", "/api/v1/namespaces/slurmstack/pods", other(**host), security),
    ]  # fmt: skip
    for verb, path, body, words in tried:
        kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
        with pytest.raises(urllib.error.HTTPError) as error:
            pods.plane.call(verb, path, body, token, kind)
        said = json.loads(error.value.read())["message"]
        assert words in said, (verb, path, said)
    pods.lab.ssh("ctl", f"scancel {job}")
    pods.ended(job)


def test_a_pod_that_cannot_start_ends_its_job(pods: Pods, hopeless: str) -> None:
    fields = pods.ended(hopeless, 240)
    output = pods.output(hopeless)
    assert (fields["JobState"], fields["ExitCode"]) == ("FAILED", "125:0"), output
    assert "has not started within 90 s: ErrImagePull: ctl:5408/missing:1: not found" in output
    await_that(lambda: pods.pods(hopeless) == [], 60)
    states = pods.lab.ssh("ctl", "sinfo -h -N -o '%N %T %E'").stdout
    assert not re.search("drain|down|fail", states), states


def test_a_job_that_takes_too_long(pods: Pods, too_long: str) -> None:
    fields = pods.ended(too_long, 240)
    assert fields["JobState"] == "TIMEOUT", fields
    assert pods.pods(too_long) == []
    assert pods.output(too_long, "runs") == "run 0\nsaved\n"


def test_jobs_give_way_to_others(pods: Pods, preempted: tuple[str, str, str]) -> None:
    again, never, urgent = preempted
    assert pods.ended(never)["JobState"] == "PREEMPTED"
    assert pods.output(never, "runs") == "run 0\nsaved\n"
    # It had the GPUs of both, and so began when both had ended.
    assert pods.ended(urgent)["JobState"] == "COMPLETED"
    assert pods.ended(again, 300)["JobState"] == "COMPLETED"
    assert pods.output(again, "runs") == "run 0\nsaved\nrun 1\n"
    await_that(lambda: all(pods.pods(job) == [] for job in preempted), 60)
    told = pods.lab.ssh("ctl", f"sacct -D -X -n -P -j {again} -o State").stdout.split()
    assert told == ["PREEMPTED", "COMPLETED"]


def test_a_job_that_is_requeued_runs_once_more(pods: Pods, requeued: str) -> None:
    assert pods.ended(requeued, 300)["JobState"] == "COMPLETED"
    assert pods.output(requeued, "runs") == "run 0\nsaved\nrun 1\n"
    await_that(lambda: pods.pods(requeued) == [], 60)


def test_kubernetes_may_be_away(pods: Pods) -> None:
    # Its four jobs run at once, and there is room for no more.
    await_that(lambda: pods.lab.ssh("ctl", "squeue -h").stdout == "")
    # Numbers without an end, so that what is lost or comes twice is seen.
    long = pods.submit("for i in $(seq 100); do echo line $i; sleep 0.3; done\n")
    short = pods.submit("sleep 3; echo over\n")
    pods.running(long)
    pods.running(short)
    pods.plane.stop_server()
    try:
        new = pods.submit("echo begun\n")
        await_that(lambda: "waits: " in pods.output(new), 60)
        cancelled = pods.submit("sleep 300\n")
        await_that(lambda: "waits: " in pods.output(cancelled), 60)
        pods.lab.ssh("ctl", f"scancel {cancelled}")
        assert pods.ended(cancelled)["JobState"] == "CANCELLED"
    finally:
        pods.plane.start_server()
    for job in (long, short, new):
        assert pods.ended(job, 180)["JobState"] == "COMPLETED", pods.output(job)
    lines = [it for it in pods.output(long).splitlines() if not it.startswith("slurmstack-pod")]
    assert lines == [f"line {number}" for number in range(1, 101)]
    assert "over\n" in pods.output(short)
    assert "begun\n" in pods.output(new)
    await_that(lambda: pods.pods(cancelled) == [], 120)
    states = pods.lab.ssh("ctl", "sinfo -h -N -o '%N %T %E'").stdout
    assert not re.search("drain|down|fail", states), states


def test_a_token_that_has_expired(pods: Pods) -> None:
    """Jobs wait with the reason, those that run go on, no node drains, and nothing is left."""
    running = pods.submit("while [ ! -e /srv/nas/$SLURM_JOB_ID.go ]; do sleep 0.2; done\n")
    pods.running(running)
    places = ("ctl", *NODES)
    aside = "cd /etc/slurmstack; mv kubernetes-token /root; echo old >kubernetes-token"
    for node in places:
        pods.lab.ssh(node, aside)
    try:
        waits = pods.submit("echo at last\n")
        await_that(lambda: "answers 401: Unauthorized" in pods.output(waits), 60)
        said = pods.lab.ssh("ctl", "systemctl start slurmstack-pods-end.service; journalctl -u "
                            "slurmstack-pods-end -o cat --no-pager -n 20", check=False)  # fmt: skip
        assert f"not now: {pods.plane.server} answers 401: Unauthorized" in said.stdout
        for node in NODES:
            pods.lab.ssh(node, f"touch /srv/nas/{running}.go")
        assert pods.ended(running)["JobState"] == "COMPLETED", pods.output(running)
    finally:
        for node in places:
            pods.lab.ssh(node, "mv /root/kubernetes-token /etc/slurmstack/kubernetes-token")
    assert pods.ended(waits)["JobState"] == "COMPLETED", pods.output(waits)
    await_that(lambda: pods.pods(running) == [], 120)
    states = pods.lab.ssh("ctl", "sinfo -h -N -o '%N %T %E'").stdout
    assert not re.search("drain|down|fail", states), states


SHARE = "/srv/nas/slurm-jobs"
WATCHER = "slurmstack-job-folder"
#: Of a file whose job is no pod.
PLAIN = """\
#!/bin/sh
#SBATCH --partition=main --mem=10M --time=1 --output=/srv/nas/%j.out
true
"""


def put(lab: RunningLab, name: str) -> None:
    """A file of alice's into the submit folder."""
    lab.send("ctl", f"install -m 600 -o alice -g alice /dev/stdin {SHARE}/submit/{name}",
             PLAIN.encode())  # fmt: skip


def journal(lab: RunningLab, node: str, unit: str) -> str:
    """What a unit has said."""
    return lab.ssh(node, f"journalctl -u {unit} -o cat --no-pager").stdout


def test_a_share_that_is_full_read_only_or_gone(pods: Pods) -> None:
    """Nothing is refused, lost or run twice; the journal says what is the matter."""
    lab = pods.lab
    dirs = (
        f"cd {SHARE}; install -d -o slurmstack-jobs -g slurmstack-jobs -m 711 .taken; install -d "
    )
    dirs += "-o slurmstack-jobs -g slurmstack-jobs -m 1777 submit processed failed"
    lab.ssh("ctl", f"mount -t tmpfs -o size=64k none {SHARE}; {dirs}")
    full, not_now = "No space left on device", "Read-only file system"
    try:
        await_that(lambda: ".taken/.lock: " in journal(lab, "ctl", WATCHER))
        for name, trouble, end, words in (
            ("full.sh", f"cat /dev/zero >{SHARE}/fill || true", f"rm {SHARE}/fill", full),
            ("read.sh", f"mount --bind -o ro {SHARE} {SHARE}", f"umount -l {SHARE}", not_now),
            ("gone.sh", f"mount -t tmpfs none {SHARE}", f"umount {SHARE}", "nothing is taken"),
        ):  # fmt: skip
            lab.ssh("ctl", f"systemctl kill -s STOP {WATCHER}")
            put(lab, name)
            lab.ssh("ctl", f"{{ {trouble}; }} 2>/dev/null; systemctl kill -s CONT {WATCHER}")
            await_that(lambda words=words: words in journal(lab, "ctl", WATCHER))  # type: ignore[misc]
            assert f"{name}: failed" not in journal(lab, "ctl", WATCHER)
            lab.ssh("ctl", end)
            await_that(lambda name=name: f"{name}: processed" in journal(lab, "ctl", WATCHER))  # type: ignore[misc]
        listed = lab.ssh("ctl", "squeue -h -t all -u alice -o %j").stdout.split()
        mine = ["full.sh", "gone.sh", "read.sh"]
        # slurmctld still tells of those of the tests before.
        assert sorted(name for name in listed if name in mine) == mine
        assert lab.ssh("ctl", f"ls {SHARE}/failed {SHARE}/.taken").stdout.split() == [
            f"{SHARE}/.taken:", f"{SHARE}/failed:",
        ]  # fmt: skip
    finally:
        lab.ssh("ctl", f"systemctl kill -s CONT {WATCHER}; while mountpoint -q {SHARE}; do "
                f"umount -l {SHARE}; done", check=False)  # fmt: skip


def test_two_watchers_on_two_hosts(pods: Pods, tmp_path: Path) -> None:
    """One sees to the folder, the other waits, and each file becomes one job whichever dies."""
    lab = pods.lab
    uid, gid = map(
        int, lab.ssh("ctl", "id -u slurmstack-jobs; id -g slurmstack-jobs").stdout.split()
    )
    for name, mode in (("submit", 0o1777), (".taken", 0o711), ("processed", 0o755),
                       ("failed", 0o755)):  # fmt: skip
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, uid, gid)
        (tmp_path / name).chmod(mode)
    tmp_path.chmod(0o755)
    second = "second-watcher"
    lab.ssh("login01", f"install -d {SHARE}; groupadd -g {gid} slurmstack-jobs; "
                       f"useradd -u {uid} -g {gid} slurmstack-jobs")  # fmt: skip
    try:
        for node in ("ctl", "login01"):
            shared_folder.bind(lab.lab, node, tmp_path, SHARE)
        lab.ssh("ctl", f"systemctl restart {WATCHER}")
        await_that(lambda: (tmp_path / ".taken/.lock").exists())
        lab.ssh(
            "login01", f"systemd-run --unit {second} -p User=slurmstack-jobs -p "
            "AmbientCapabilities='CAP_SETUID CAP_SETGID' -p Restart=always -p RestartSec=1 "
            "-p StartLimitIntervalSec=0 -E PYTHONPATH=/usr/local/lib/slurmstack-jobs "
            "python3 -m on_node.kubernetes watch",
        )  # fmt: skip
        waits = f"another watcher has {SHARE} ('ctl "
        await_that(lambda: waits in journal(lab, "login01", second))
        names = [f"two{number}" for number in range(30)]
        for name in names:
            put(lab, name)
        for turn in range(10):
            node, unit = (("ctl", WATCHER), ("login01", second))[turn % 2]
            lab.ssh(node, f"systemctl kill -s KILL {unit}; sleep 1.{turn}; systemctl reset-failed "
                          f"{unit}; systemctl start {unit}", check=False)  # fmt: skip
        await_that(lambda: len([*(tmp_path / "processed").glob("two*.txt")]) >= len(names))
        listed = lab.ssh("ctl", "squeue -h -t all -u alice -o %j").stdout.split()
        assert sorted(name for name in listed if name.startswith("two")) == sorted(names)
        assert sorted(it.name for it in (tmp_path / ".taken").iterdir()) == [".lock"]
        both = [journal(lab, *it) for it in (("ctl", WATCHER), ("login01", second))]
        assert all("two" in it and ": processed" in it for it in both)
    finally:
        lab.ssh("login01", f"systemctl stop {second}; umount -l {SHARE}; userdel slurmstack-jobs; "
                           f"rm -rf /srv/nas", check=False)  # fmt: skip
        lab.ssh("ctl", f"umount -l {SHARE}; systemctl reset-failed {WATCHER}; systemctl restart "
                       f"{WATCHER}", check=False)  # fmt: skip


def test_each_node_of_a_job_waits_for_its_pod(pods: Pods) -> None:
    """Slurm gives a node to the next job only when the pod on it has gone, which takes its time."""
    stays = "trap 'date +%s.%N >/srv/nas/$SLURM_JOB_ID.asked' TERM\n"
    stays += "while :; do date +%s.%N >>/srv/nas/$SLURM_JOB_ID.alive; sleep 0.1; done\n"
    head = HEAD.replace("--mem", "--exclusive --nodes=2 --mem")
    wide = pods.submit(stays, head=head)
    pods.running(wide, 2)
    # A pod that is told to end before its shell has heard of the trap ends at once.
    begun = f"test -s /srv/nas/{wide}.alive"
    await_that(lambda: all(pods.lab.ssh(it, begun, check=False).returncode == 0 for it in NODES))
    next_one = "sbatch --parsable -o /srv/nas/%j.out --mem=10M -w {} --wrap 'date +%s.%N'"
    following = {
        node: pods.lab.ssh("ctl", "runuser -u alice -- sh -c 'cd /srv/nas; exec \"$@\"' sh "
                           + next_one.format(node)).stdout.strip()
        for node in NODES
    }  # fmt: skip
    pods.lab.ssh("ctl", f"scancel {wide}")
    for node, job in following.items():
        assert pods.ended(job)["JobState"] == "COMPLETED"
        times = f"cd /srv/nas; cat {wide}.asked; tail -n 1 {wide}.alive; cat {job}.out"
        asked, alive, began = map(float, pods.lab.ssh(node, times).stdout.split())
        assert asked + 4 < alive < began, node
    assert pods.ended(wide)["JobState"] == "CANCELLED"
    assert pods.pods(wide) == []


def test_a_node_dies_under_a_pod(pods: Pods) -> None:
    here = HEAD.replace("--mem", "--nodelist=cn02 {}--mem")
    again = pods.submit(RUNS, head=here.format(""))
    never = pods.submit(RUNS, head=here.format("--no-requeue "))
    for job in (again, never):
        pods.running(job)
        await_that(lambda job=job: pods.output(job, "runs") == "run 0\n", 60)  # type: ignore[misc]
    # A machine of the lab has its host's time of boot, so that slurmctld goes by what slurmd has no
    # more, when it registers; not of jobs that began within BatchStartTimeout and MessageTimeout.
    times = f"date -d $(squeue -h -j {never} -o %S) +%s; date +%s"

    def old() -> bool:
        began, now = map(int, pods.lab.ssh("ctl", times).stdout.split())
        return now > began + 45

    await_that(old)
    pods.lab.kill("cn02")
    pods.lab.boot("cn02")
    kubelet(pods.lab, pods.plane, "cn02", pods.folder)
    assert pods.ended(never)["JobState"] == "NODE_FAIL"
    # What is left of both the controller ends, within its minute.
    await_that(lambda: pods.pods(never) == [], 120)
    # Slurm keeps a node that came up again unasked (ReturnToService=1).
    if pods.lab.shown("cn02", "%T").startswith("down"):
        pods.lab.ssh("ctl", "scontrol update nodename=cn02 state=resume")
    assert pods.ended(again, 300)["JobState"] == "COMPLETED"
    assert pods.output(again, "runs") == "run 0\nrun 1\n"
    assert pods.output(never, "runs") == "run 0\n"
    await_that(lambda: pods.pods(again) == [], 60)
    told = pods.lab.ssh("ctl", f"sacct -D -X -n -P -j {again} -o State").stdout.split()
    assert told == ["NODE_FAIL", "COMPLETED"]
