"""A new munge key: staged everywhere before anybody switches, and understood between all roles."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from tests.lab.conftest import RunningLab, await_that
from tests.lab.test_cluster import edit, outputs, state_of, submit

__all__ = ["edit"]

pytestmark = pytest.mark.lab

HOSTS = ("ctl", "login01", "cn01", "cn02")
STAGED, KEY = "/etc/munge/munge.key.staged", "/etc/munge/munge.key"


def set_key(lab: RunningLab, content: bytes) -> str:
    """Another key in the settings; its SHA-256."""
    text = base64.b64encode(content).decode()
    lab.pulumi("config", "set", "--secret", "slurmstack:mungeKey", text)
    return hashlib.sha256(content).hexdigest()


def keys(lab: RunningLab) -> set[str]:
    """The SHA-256 of what munged serves with, on all hosts."""
    return {lab.ssh(host, f"sha256sum {KEY}").stdout.split()[0] for host in HOSTS}


def when(lab: RunningLab, host: str, command: str) -> float:
    """A moment that a command prints, in seconds since the epoch; the lab has one clock."""
    return float(lab.ssh(host, command).stdout)


@pytest.fixture(autouse=True)
def own_settings(restored: RunningLab) -> RunningLab:
    """What the tests change in the settings is taken back and deployed."""
    return restored


def test_every_host_has_staged_a_key_before_the_first_switches(lab: RunningLab) -> None:
    running = submit(lab, "sleep 600", "-N2 --exclusive")
    await_that(lambda: state_of(lab, running) == "RUNNING")
    waiting = submit(lab, "hostname", "-N2 --exclusive")
    daemons = ("ctl", "slurmctld"), ("cn01", "slurmd"), ("cn02", "slurmd"), ("login01", "sackd")
    show = "systemctl show -P InvocationID"
    before = [lab.ssh(host, f"{show} {unit}").stdout for host, unit in daemons]
    sha256 = set_key(lab, bytes(range(255, -1, -1)) * 2)
    lab.up()
    assert keys(lab) == {sha256}
    staged = [when(lab, host, f"stat -c %.6Z {STAGED}") for host in HOSTS]
    started = 'date +%s.%6N -d "$(systemctl show -P ActiveEnterTimestamp --timestamp=us munge)"'
    switched = [when(lab, host, started) for host in HOSTS]
    assert max(staged) < min(switched)
    assert [lab.ssh(host, f"{show} {unit}").stdout for host, unit in daemons] == before
    assert state_of(lab, running) == "RUNNING"
    lab.ssh("ctl", f"scancel {running}")
    await_that(lambda: state_of(lab, waiting) == "COMPLETED")


def test_nobody_switches_when_one_cannot_stage(lab: RunningLab) -> None:
    before = keys(lab)
    # munged takes no key from there: its own file is in the way of the staged one.
    lab.ssh("cn02", f"rm {STAGED} && mkdir {STAGED}")
    sha256 = set_key(lab, b"another key of the cluster, of 52 bytes, not random")
    try:
        said = lab.up(check=False)
        assert f"cn02: file {STAGED}:" in said
        assert keys(lab) == before
        assert sorted(lab.ssh("ctl", "srun -N2 --mem=50 hostname").stdout.split()) == [
            "cn01",
            "cn02",
        ]
    finally:
        lab.ssh("cn02", f"rmdir {STAGED}")
    lab.up()
    assert keys(lab) == {sha256}
    assert {node["keys"]["munge"] for node in outputs(lab)["inventory"].values()} == {sha256}


def test_a_key_that_munged_does_not_take_is_staged_nowhere(lab: RunningLab) -> None:
    """The reader of a key is munged, on the host where it is to be read."""
    before = keys(lab)
    lab.ssh("cn01", "mv /usr/sbin/munged /usr/sbin/munged.away")
    try:
        lab.ssh("cn01", "printf '#!/bin/sh\\necho no key for me >&2\\nexit 1\\n' >/usr/sbin/munged")
        lab.ssh("cn01", "chmod 755 /usr/sbin/munged")
        set_key(lab, b"a third key of the cluster, which munged does not like")
        said = lab.up(check=False)
        assert "cn01: validate munge-key-is-taken: refused: munged does not take the key" in said
        assert keys(lab) == before
    finally:
        lab.ssh("cn01", "mv /usr/sbin/munged.away /usr/sbin/munged")


ASK = """
import asyncio, json, pathlib, sys
from components.keys.munge_switch import misunderstandings
from discovery.host_keys import hosts
from operations.stack import settings
read, folder, _ = settings(sys.argv[1], pathlib.Path())
reached = hosts(read, folder)
roles = {"controller": "ctl", "login": "login01", "compute": "cn01"}
wrong = asyncio.run(misunderstandings({role: [reached[name]] for role, name in roles.items()}))
print(json.dumps(wrong))
"""


def test_every_pair_of_roles_is_asked(lab: RunningLab) -> None:
    def ask() -> list[str]:
        found: list[str] = json.loads(lab.run("python", "-c", ASK, lab.name).stdout)
        return found

    assert ask() == []
    lab.ssh("login01", f"cp -p {KEY} /etc/munge/kept && head -c 64 /dev/urandom >{KEY}")
    try:
        lab.ssh("login01", "systemctl restart munge")
        wrong = ask()
    finally:
        lab.ssh("login01", f"mv /etc/munge/kept {KEY}; systemctl restart munge")
    pairs = {found[1] for text in wrong if (found := re.search(r": (\S+ \S+ does not .*?);", text))}
    assert pairs == {
        "login login01 does not understand controller ctl",
        "login login01 does not understand compute cn01",
        "controller ctl does not understand login login01",
        "compute cn01 does not understand login login01",
    }
    assert all("Invalid credential" in text for text in wrong)
    assert ask() == []
