"""What is asked of Kubernetes: from Slurm's word alone, whatever a user has written."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from on_node.kubernetes.job_file import MAX_SIZE
from on_node.kubernetes.rules import Rules
from on_node.pods import agent, manifests
from on_node.pods.allocation import Allocation, Share, Unknown, gpus, read
from on_node.pods.manifests import Wanted
from on_node.pods.site import Site

SITE = Site(
    server="https://k:6443", ca="/ca", rules=Rules(("hub:5407",), ("/mnt/nas", "/data")),
    prefix="user-", nodes={"cn02": "k8s-cn02"}, grace=25, start=300, priorities={"high": "urgent"},
    quota={"pods": "9"}, gpu="nvidia.com/gpu", results="/mnt/nas/results",
)  # fmt: skip
GIVEN = Allocation(
    job=42, name="train", user="anna", uid=5001, gid=5100, account="physics", qos="high",
    partition="gpu", restarts=1, array=(40, 2),
    shares=(Share("cn01", 4, 8192, (0, 3)), Share("cn02", 2, 4096)),
)  # fmt: skip
WANTED = Wanted("hub:5407/tools/alpine:3", ("/bin/bash", "-e"), "text", None, None)
TEXT = "#!/usr/local/bin/slurmstack-pod /bin/sh\n#K8S_IMAGE=hub:5407/a:1\n"


def pods() -> list[dict[str, Any]]:
    return manifests.pods(SITE, GIVEN, WANTED, [5100, 7000])


def test_a_pod_for_each_node_as_large_as_its_share() -> None:
    first, second = pods()
    assert [it["metadata"]["name"] for it in (first, second)] == ["slurm-job-42", "slurm-job-42-1"]
    assert [it["spec"]["nodeName"] for it in (first, second)] == ["cn01", "k8s-cn02"]
    limits = [it["spec"]["containers"][0]["resources"]["limits"] for it in (first, second)]
    assert limits == [
        {"cpu": "4", "memory": "8192Mi", "nvidia.com/gpu": "2"},
        {"cpu": "2", "memory": "4096Mi"},
    ]
    told = {it["name"]: it["value"] for it in first["spec"]["containers"][0]["env"]}
    assert (told["NVIDIA_VISIBLE_DEVICES"], told["SLURM_JOB_GPUS"]) == ("0,3", "0,3")
    told = {it["name"]: it["value"] for it in second["spec"]["containers"][0]["env"]}
    assert told["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "SLURM_JOB_GPUS" not in told
    assert first["spec"]["priorityClassName"] == "urgent"
    assert first["spec"]["containers"][0]["command"] == ["/bin/bash", "-e", "/run/slurmstack/job"]
    assert first["metadata"]["labels"]["array-task-id"] == "2"


def test_a_pod_is_its_user_s_and_restricted() -> None:
    for pod in pods():
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["securityContext"] == {
            "runAsUser": 5001, "runAsGroup": 5100, "runAsNonRoot": True,
            "supplementalGroups": [5100, 7000],
        }  # fmt: skip
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert spec["automountServiceAccountToken"] is False
        kinds = {next(key for key in it if key != "name") for it in spec["volumes"]}
        assert kinds == {"secret", "persistentVolumeClaim"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_name_of_a_user_s_gets_out_of_its_place(name: str, account: str) -> None:
    hostile = Allocation(**{**GIVEN.__dict__, "name": name, "account": account, "user": name})
    (first, _) = manifests.pods(SITE, hostile, WANTED, [])
    (plain, _) = pods()
    for value in first["metadata"]["labels"].values():
        assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value)
    for pod in (first, plain):
        del pod["metadata"]["labels"], pod["metadata"]["annotations"]
        for it in pod["spec"]["containers"][0].pop("env"):
            # $(NAME) would be another variable's value.
            assert "$(" not in it["value"].replace("$$", "")
    first["spec"]["securityContext"] = plain["spec"]["securityContext"]
    assert json.loads(json.dumps(first)) == plain


def test_no_two_folders_share_a_claim() -> None:
    names = [manifests.claim_name(it) for it in ("/mnt/nas", "/mnt-nas", "/MNT/nas", "/a" * 90)]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])", it) for it in names)


def test_what_a_job_may_do_is_named_one_by_one() -> None:
    made = dict(manifests.for_job(GIVEN, WANTED, "uid-1"))
    rules = made["/apis/rbac.authorization.k8s.io/v1|roles"]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "delete"}
    assert all(rule["resourceNames"] == ["slurm-job-42", "slurm-job-42-1"] for rule in rules)
    for body in made.values():
        assert [it["uid"] for it in body["metadata"]["ownerReferences"]] == ["uid-1"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#!/bin/bash\n#K8S_IMAGE=hub:5407/a:1\n", "line 1: expected #!/usr/local/bin/"),
        ("#!/usr/local/bin/slurmstack-pod\n#K8S_IMAGE=hub:5407/a:1\n", "line 1: expected"),
        (TEXT.replace("hub", "evil"), "line 2: K8S_IMAGE: registry evil:5407 is not allowed"),
        (TEXT.replace("hub:5407/a:1", "hub:5407/a"), "names no tag or digest"),
        (TEXT + "#K8S_IMAGE=hub:5407/a:2\n", "line 3: K8S_IMAGE is in line 2 already"),
        (TEXT + "#K8S_SCRIPT=/mnt/nas/../../etc/x\n", "line 3: K8S_SCRIPT: expected a whole path"),
        (TEXT.replace("#K8S", "#"), "K8S_IMAGE is missing"),
        (TEXT + "#K8S_WORKDIR=$(reboot)\n", "is nothing for a header"),
        ("x" * (MAX_SIZE + 1), "is larger than"),
        (TEXT.replace("/bin/sh", '/bin/sh "'), "line 1: the interpreter in the pod: No closing"),
    ],
)
def test_what_is_no_pod(text: str, told: str) -> None:
    with pytest.raises(agent.Never, match=re.escape(told)):
        agent.wanted(text, SITE)


JOB = {
    "job_id": 4, "job_state": ["RUNNING"], "gres_detail": ["", "gpu:h100:2(IDX:0-1)"],
    "restart_cnt": 0, "batch_host": "cn02", "user_name": "anna", "user_id": 5001, "group_id": 5001,
    "account": "physics", "qos": "normal", "partition": "main", "name": "x UserId=root(0) Mem=9",
    "array_job_id": {"set": True, "infinite": False, "number": 0},
    "array_task_id": {"set": False, "infinite": False, "number": 0},
    "job_resources": {"nodes": {"allocation": [
        {"name": "cn01", "cpus": {"count": 2}, "memory": {"allocated": 100}},
        {"name": "cn02", "cpus": {"count": 1}, "memory": {"allocated": 50}},
    ]}},
}  # fmt: skip


def test_what_slurm_gave_is_read_of_its_json() -> None:
    told = read({"jobs": [{**JOB, "job_id": 3}, JOB]}, 4)
    assert told.shares == (Share("cn02", 1, 50, (0, 1)), Share("cn01", 2, 100))
    assert (told.uid, told.array, told.name) == (5001, None, "x UserId=root(0) Mem=9")
    # Of a whole node without GPUs (--exclusive) beside one with some.
    whole = {**JOB, "gres_detail": [None, "gpu:h100:2(IDX:0-1)"]}
    assert read({"jobs": [whole]}, 4).shares == told.shares


@pytest.mark.parametrize(
    "jobs", [[], [{**JOB, "job_state": ["PENDING", "REQUEUED"]}], [{**JOB, "job_resources": None}]]
)
def test_a_job_that_does_not_run_gets_nothing(jobs: list[dict[str, Any]]) -> None:
    with pytest.raises(Unknown, match="job 4"):
        read({"jobs": jobs}, 4)


def test_gpus_of_a_node() -> None:
    assert gpus("gpu:h100:3(IDX:0,2-3),shard:4(IDX:7)") == (0, 2, 3)
    assert gpus("gpu:2(IDX:1,4)") == (1, 4)
    assert gpus("shard:gpu:2(IDX:1)") == gpus("nic:1") == gpus("") == ()


_HEADERS = st.sampled_from(["K8S_IMAGE=", "K8S_WORKDIR=", "K8S_SCRIPT=", "SBATCH --", "K8S_", ""])


@given(
    st.text(max_size=40) | st.text(st.sampled_from("/ab -#$'\"\\"), max_size=12),
    st.lists(st.tuples(_HEADERS, st.text(max_size=60)), max_size=5),
    st.booleans(),
)
def test_any_file_is_a_pod_or_refused_in_words(
    interpreter: str, headers: list[tuple[str, str]], image: bool
) -> None:
    """The agent reads it as root, whatever a user's process sends."""
    lines = [f"#!/usr/local/bin/slurmstack-pod {interpreter}"]
    lines += ["#K8S_IMAGE=hub:5407/a:1"] * image + [f"#{word}{text}" for word, text in headers]
    try:
        made = manifests.pods(SITE, GIVEN, agent.wanted("\n".join(lines), SITE), [5100])
    except agent.Never:
        return
    for pod in made:
        (container,) = pod["spec"]["containers"]
        assert container["image"].startswith("hub:5407/")
        assert container["command"][-1] == "/run/slurmstack/job"
        assert len(container["command"]) > 1
