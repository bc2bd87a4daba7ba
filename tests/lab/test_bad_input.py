"""Settings that cannot be, on the lab: refused with both sides named, and nothing is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from settings.artifact import OPEN
from tests.lab import artifacts
from tests.lab.conftest import RunningLab
from tests.lab.test_cluster import Edit, edit, logins

__all__ = ["edit"]

pytestmark = pytest.mark.lab

KEY = {"kty": "RSA", "alg": "RS256", "kid": "one", "e": "AQAB", "n": "w" * 342 + "w"}
GPUS = {"Name": "gpu", "Type": "h100", "File": "/dev/nvidia[0-1]"}
MISTAKES: dict[str, tuple[str, Any, str, str]] = {
    "a partition without nodes": (
        "partitions",
        {"main": {"Nodes": ""}},
        "slurmstack:partitions.main.Nodes",
        "found ''",
    ),
    "two classes claim one node": (
        "nodes",
        [{"hosts": "cn[01-02]"}, {"hosts": "cn02"}],
        "slurmstack:nodes[1].hosts",
        "expected each node in one class; found cn02, already in [0]",
    ),
    "a key that is there twice": (
        "jwt",
        {"trustedJwks": {"idp": json.dumps({"keys": [KEY, KEY]})}},
        "slurmstack:jwt.trustedJwks.idp.keys[1].kid",
        "found 'one', already at",
    ),
    "a key of another kind": (
        "jwt",
        {"trustedJwks": {"idp": {"keys": [{**KEY, "kty": "EC"}]}}},
        "slurmstack:jwt.trustedJwks.idp.keys[0]",
        "kty RSA, the one kind that slurmctld",
    ),
    "GPUs that the nodes do not have": (
        "nodes",
        [{"hosts": "cn[01-02]", "Gres": [GPUS]}],
        "slurmstack:nodes[0].Gres[0]",
        "expected gpu:h100:2 with /dev/nvidia0, /dev/nvidia1 as declared; found on cn01: no GPU",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_anything_is_sent(
    lab: RunningLab, edit: Edit, mistake: str
) -> None:
    key, value, path, says = MISTAKES[mistake]
    before = logins(lab, "cn01")
    edit(f"slurmstack:{key}", value)
    done = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert path in said
    assert says in said
    assert "Traceback" not in said
    assert logins(lab, "cn01") == before + 1  # ours, to ask just this


def test_an_open_sum_stops_before_anything_is_unpacked(
    lab: RunningLab, edit: Edit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As Pulumi.prod.yaml has it until the site puts in the sums of Enroot's files."""
    kit = artifacts.find(tmp_path_factory.mktemp("artifacts"))
    artifacts.bring(lab, *kit.files)
    settings = kit.settings()
    file = settings["enroot"]["packages"][0]
    settings["enroot"]["packages"][0] = {**file, "sha256": OPEN}
    edit("slurmstack:enrootPyxis", settings)
    assert f"{file['url']}: its sha256 is not in the settings yet" in lab.pulumi("preview").stdout
    done = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"{file['url']}: expected sha256 {OPEN}, found {file['sha256']}" in said
    assert "nothing was unpacked" in said
    assert lab.ssh("ctl", "ls /var/lib/slurmstack-packages/artifacts").stdout == ""
    assert lab.ssh("ctl", "dpkg-query -W enroot", check=False).returncode != 0
    # Pulumi's state has never held the role that was begun; it is told, and taken back by a word.
    (left,) = drift(lab, ends=2)
    assert (left["kind"], left["name"], left["role"]) == ("role", "package-host", None)
    lab.ssh("ctl", left["command"])
    assert drift(lab, ends=0) == []
    assert lab.ssh("ctl", "ls -d /var/lib/slurmstack/package-host", check=False).stdout == ""
    assert sorted(lab.ssh("ctl", "srun -N2 hostname").stdout.split()) == ["cn01", "cn02"]


def drift(lab: RunningLab, ends: int) -> list[dict[str, Any]]:
    """What is other on the controller than the state says."""
    words = ("slurmstack", "drift", "ctl", "--json", "--stack", lab.name)
    done = lab.run(*words, check=False)
    assert done.returncode == ends, done.stdout + done.stderr
    differs: list[dict[str, Any]] = json.loads(done.stdout)["differs"]
    return differs
