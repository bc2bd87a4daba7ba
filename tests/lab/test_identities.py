"""Who a user is on each host, and a machine that was installed anew, on real nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@pytest.fixture
def cn03(lab: RunningLab) -> Iterator[RunningLab]:
    """The lab with a new machine that its settings name as a compute node; nothing is deployed."""
    before = lab.settings.read_text()
    lab.boot("cn03", fresh=True)

    def add(config: dict[str, dict[str, object]]) -> None:
        config["hosts"]["cn03"] = lab.address("cn03")
        config["nodes"][1]["hosts"] = "cn[02-03]"  # type: ignore[index]
        config["topology"]["switches"]["leaf2"]["Nodes"] = "cn[02-03]"  # type: ignore[index]

    lab.change(add)
    try:
        yield lab
    finally:
        lab.settings.write_text(before)
        lab.up()
        lab.kill("cn03")


def uids(lab: RunningLab, node: str, user: str) -> str:
    return lab.ssh(node, f"id -u {user}").stdout.strip()


def test_another_number_of_slurm_stops_a_host_before_it_is_changed(cn03: RunningLab) -> None:
    lab = cn03
    lab.ssh("cn03", "groupadd -g 450 slurm && useradd -u 450 -g 450 -M slurm")
    before = lab.ssh("cn03", "dpkg-query --show; ls /etc").stdout
    refused = lab.up(check=False)
    assert re.search(r"cn03: guard precheck: refused .*user slurm has the number 450", refused)
    assert "slurmstack:identities.slurm" in refused
    assert lab.ssh("cn03", "dpkg-query --show; ls /etc").stdout == before
    done = lab.run("slurmstack", "check", "--stack", lab.name, "--json", check=False)
    assert done.returncode == 1
    fails = json.loads(done.stdout)["cn03"]["fails"]
    assert [text.split(",")[0] for text in fails] == [
        "group slurm has the number 450", "user slurm has the number 450",
    ]  # fmt: skip

    # Corrected as it says. Munge's own number is nobody else's business: jobs run and end.
    lab.ssh("cn03", "userdel slurm; groupadd -g 777 munge; useradd -u 777 -g 777 -M munge")
    lab.up()
    assert uids(lab, "cn03", "slurm") == uids(lab, "ctl", "slurm")
    assert uids(lab, "cn03", "munge") != uids(lab, "ctl", "munge")
    job = lab.ssh("ctl", "sbatch --parsable -w cn03 --wrap 'sleep 300'").stdout.strip()
    await_that(lambda: "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout)
    lab.ssh("ctl", f"scancel {job}")
    await_that(lambda: lab.ssh("ctl", f"squeue -h -j {job} -o %T", check=False).stdout == "")


def test_a_machine_installed_anew_is_back_with_one_command(
    cn03: RunningLab, tmp_path: Path
) -> None:
    lab = cn03
    lab.up()
    first = json.loads(lab.run("slurmstack", "inventory", "--stack", lab.name, "--json").stdout)
    lab.kill("cn03")
    lab.boot("cn03", fresh=True)
    # The machine has another key now than the one that the settings pin.
    known = tmp_path / "known_hosts"
    lines = lab.lab.known_hosts.read_text().splitlines()
    known.write_text(
        "".join(
            f"{line.split()[0]} {OTHER_KEY}\n" if "cn03" in line else f"{line}\n" for line in lines
        )
    )
    lab.change(lambda it: it["ssh"].update(knownHosts=str(known)))
    job = lab.ssh("ctl", "sbatch --parsable -w cn01 --wrap 'sleep 120'").stdout.strip()
    words = ("slurmstack", "node", "replace", "cn03", "--stack", lab.name, "--yes")

    refused = lab.run(*words, check=False)
    assert refused.returncode != 0
    assert re.search(
        r"cn03 \(10\.\S+\) shows the host key SHA256:\S+; pinned is SHA256:", refused.stderr
    )
    assert OTHER_KEY in known.read_text()

    lab.run(*words, "--accept-new-host-key")
    assert OTHER_KEY not in known.read_text()
    assert lab.ssh("ctl", "srun -w cn03 hostname").stdout.strip() == "cn03"
    assert "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout
    lab.ssh("ctl", f"scancel {job}")
    assert "unchanged" in lab.pulumi("up", "--yes", "--expect-no-changes").stdout
    again = json.loads(lab.run("slurmstack", "inventory", "--stack", lab.name, "--json").stdout)
    assert again["cn03"]["applied"]["slurmd"] > first["cn03"]["applied"]["slurmd"]
    assert again["cn02"]["applied"] == first["cn02"]["applied"]
    # The applier bears the wish in its text; all else is as it was.
    applier = "/usr/local/lib/slurmstack/apply"
    assert again["cn03"]["files"].pop(applier) != first["cn03"]["files"].pop(applier)
    assert again["cn03"]["files"] == first["cn03"]["files"]


def test_a_declared_user_without_a_login_is_named(restored: RunningLab) -> None:
    restored.change(
        lambda it: it["accounting"]["users"].update(nobodyhere={"Accounts": {"physics": {}}})
    )
    assert "declared users without a login there: " in (printed := restored.up())
    assert "nobodyhere" in printed


def test_people_are_compared_before_anything_is_changed(restored: RunningLab) -> None:
    lab = restored
    lab.change(lambda it: it["slurm"].update(MessageTimeout=47))
    before = lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout
    for change, back, numbers in (
        ("usermod -u 5901", "usermod -u 5001", "5901 5001"),
        ("usermod -g 100", "usermod -g 5001", "5001 100"),
    ):
        lab.ssh("cn02", f"{change} alice")
        refused = lab.up(check=False)
        lab.ssh("cn02", f"{back} alice")
        assert (
            f"cn02: identities: user alice has the numbers {numbers} (uid, gid), "
            "and 5001 5001 on ctl" in refused
        )
        assert "nothing was changed" in refused
        assert lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout == before
    lab.ssh("cn02", "userdel alice")  # no login there is no difference
    try:
        lab.up()
    finally:
        lab.ssh("cn02", "useradd -u 5001 -U -s /bin/bash alice")
    assert lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout != before
