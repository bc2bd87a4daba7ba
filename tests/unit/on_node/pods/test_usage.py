"""What pods use: of answers as metrics-server gives them to a job's summary and to accounting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from on_node import slurm_state
from on_node.pods import account, users
from on_node.pods.api import Away, Refused
from on_node.pods.step import Step
from on_node.pods.usage import Used, UsedGpus, ask_gpus, quantity
from tests.unit.on_node.pods.test_manifests import SITE


def metrics(at: str, cpu: str, memory: str, name: str = "p", box: str = "job") -> dict[str, Any]:
    containers = [{"name": "sidecar", "usage": {"cpu": "9", "memory": "9Gi"}}]
    containers += [{"name": box, "usage": {"cpu": cpu, "memory": memory}}]
    return {"metadata": {"name": name}, "timestamp": at, "containers": containers}


def test_each_look_counts_once() -> None:
    used = Used()
    for at, cpu, memory in (
        ("1", "500m", "10Mi"),
        ("1", "500m", "10Mi"),
        ("2", "1500000000n", "8Mi"),
    ):
        used.take(metrics(at, cpu, memory))
    used.take(metrics("3", "7", "7Gi", box="other"))
    assert str(used) == "1.00 CPUs on average and 1.50 at most, 10 MiB at most (2 looks)"


#: nvidia-smi of driver 580.159.04 on an H100 whose memory was filled by a program, and afterwards.
BUSY, IDLE = "100, 8719\n", "0, 8719\n"


def test_what_gpus_do_is_told_by_their_driver() -> None:
    used = UsedGpus()
    for told in (BUSY, BUSY, BUSY, IDLE):
        used.take("0", told)
    # Nothing is said of an instance of MIG, nor by a driver that is not there.
    for told in ("[N/A], [N/A]\n", "", "No devices were found\n"):
        used.take("0", told)
    assert str(used) == "GPUs 75 % busy on average, 8719 MiB of one at most"


@pytest.mark.parametrize(
    ("numbers", "told", "busy"),
    [
        # Confined to its devices, a job sees these alone, numbered anew.
        ("4,7", "30, 1\n50, 1\n", 40),
        ("1,3", "0, 1\n30, 1\n0, 1\n50, 1\n", 40),
        ("0,9", "30, 1\n50, 1\n70, 1\n", 30),
    ],
)
def test_the_gpus_of_others_do_not_count(numbers: str, told: str, busy: int) -> None:
    used = UsedGpus()
    used.take(numbers, told)
    assert used.busy_sum / used.samples == busy


def test_nvidia_smi_is_asked_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask_gpus() == ""
    program = tmp_path / "nvidia-smi"
    words = "--query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits"
    program.write_text(f'#!/bin/sh\ntest "$*" = "{words}" || exit 9\necho "100, 8719"\n')
    program.chmod(0o755)
    assert ask_gpus() == BUSY
    program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert ask_gpus() == ""


@pytest.mark.parametrize(
    ("text", "value"), [("2", 2), ("1500u", 0.0015), ("3Ki", 3072), ("1k", 1e3)]
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "3Qi", "-1", "nan", "1 Ki"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)


class Api:
    """Answers by path; an error is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.applied: list[str] = []

    def get(self, path: str, **query: str) -> dict[str, Any]:
        for words, answer in self.answers.items():
            if words in path:
                if isinstance(answer, Exception):
                    raise answer
                return {"items": answer}
        raise AssertionError(path)

    def apply(self, path: str, body: Any) -> dict[str, Any]:
        self.applied.append(path)
        return {}


def pod(job: str, name: str, node: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "user-1", "name": name, "labels": {"job-id": job},
                         "annotations": {"slurmstack/node": node}}}  # fmt: skip


def test_a_job_is_accounted_once_its_pods_have_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    there = {"7": "", "8": "the site's\n", "9": "pods: of the first run\n"}

    def command(*words: str, seconds: int = 20) -> str:
        asked.append(words)
        return there[words[5]] if words[0] == "sacct" else ""

    monkeypatch.setattr(slurm_state, "command", command)
    api = Api(metrics=[metrics("1", "1", "5Mi"), metrics("1", "2", "6Mi", "q"),
                       metrics("1", "1", "1Mi", "stranger")])  # fmt: skip
    known = account.load(tmp_path / "none")
    account.look(api, [pod("7", "p", "cn01"), pod("7", "q", "cn02")], known)  # type: ignore[arg-type]
    account.save(known, tmp_path / "used.json")
    known = account.load(tmp_path / "used.json")
    account.write(known, ["7"])
    assert asked == []
    known |= {"8": dict(known["7"]), "9": {"cn01": Used()}}
    account.write(known, [])
    assert known == {}
    (text,) = [words[-1] for words in asked if words[0] == "sacctmgr" and "jobid=7" in words]
    assert text == (
        "admincomment=pods: cn01: 1.00 CPUs on average and 1.00 at most, 5 MiB at most (1 looks); "
        "cn02: 2.00 CPUs on average and 2.00 at most, 6 MiB at most (1 looks)"
    )
    written = [words[5] for words in asked if words[0] == "sacctmgr"]
    assert written == ["jobid=7", "jobid=9"]


def test_what_accounting_does_not_take_stays_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*words: str, seconds: int = 20) -> str:
        raise RuntimeError("slurmdbd is away")

    monkeypatch.setattr(slurm_state, "command", command)
    known = {"7": {"cn01": Used(1, 1, 1, 1, "1")}}
    with pytest.raises(RuntimeError):
        account.write(known, [])
    assert "7" in known


def test_where_nobody_measures_there_is_nothing() -> None:
    known: account.Known = {}
    account.look(Api(metrics=Refused(404, "not found")), [pod("7", "p", "cn01")], known)  # type: ignore[arg-type]
    assert known == {}


def test_what_a_summary_says() -> None:
    step = Step(SITE, nodes=["cn01", "cn02"])
    assert step._used() == "not measured: it was too short"
    step.unmeasured = "https://k:6443 answers 404: not found"
    assert step._used() == "not measured: https://k:6443 answers 404: not found"
    step.used[1] = Used(2, 1, 0.75, 1 << 20, "1")
    told = "cn02: 0.50 CPUs on average and 0.75 at most, 1 MiB at most (2 looks)"
    assert step._used() == told


def test_the_bridge_looks_into_namespaces_of_users_alone() -> None:
    names = [{"metadata": {"name": name}} for name in ("user-1", "other-2", "user-3")]
    assert users.namespaces(Api(namespaces=names), SITE) == ["user-1", "user-3"]  # type: ignore[arg-type]
    # One that was made before the bridge's right was one in each namespace gets it now.
    api = Api(pods=Refused(403, "forbidden"))
    with pytest.raises(Away, match="user-1: forbidden"):
        list(users.pods(api, "user-1"))  # type: ignore[arg-type]
    assert api.applied == [
        "/apis/rbac.authorization.k8s.io/v1/namespaces/user-1/rolebindings/slurmstack-bridge"
    ]
