"""What pods use: of answers as metrics-server gives them to a job's summary and to accounting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from on_node import slurm_state
from on_node.pods import account, users
from on_node.pods.api import Away, Refused
from on_node.pods.step import Step
from on_node.pods.usage import Used, quantity
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
