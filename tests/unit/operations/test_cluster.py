"""What every verb asks first: the stack's hosts and its controller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from operations import cluster as clusters
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError, Reply
from remote.host import Host
from tests.unit.operations.pulumi_command import KEY, Pulumi, pulumi
from tests.unit.operations.slurmctld import NODES

__all__ = ["pulumi"]


class Hosts:
    """What hosts reply, and what they were asked within how many seconds."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply | ContactError] = {}
        self.asked: list[tuple[list[Host], str, float]] = []

    async def run(
        self, hosts: Sequence[Host], script: str, seconds: float
    ) -> dict[str, Reply | ContactError]:
        self.asked.append(([*hosts], script, seconds))
        return {host.name: self.replies.get(host.name, Reply("", "", 0)) for host in hosts}


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setattr(clusters, "run_on_hosts", made.run)
    return made


@pytest.fixture
def here(pulumi: Pulumi) -> Cluster:
    return Cluster.of(None, pulumi.project)


def test_it_is_the_selected_stack_s(here: Cluster, pulumi: Pulumi) -> None:
    assert (here.stack, here.project, here.controller) == ("x", pulumi.project, "ctl")
    assert here.place == pulumi.project / ".slurmstack" / "x"
    assert Cluster.of("y", pulumi.project).place == pulumi.project / ".slurmstack" / "y"


def test_its_hosts_are_those_with_a_role_and_their_pinned_keys(here: Cluster) -> None:
    assert [*here.hosts] == ["ctl", "cn01", "cn02", "cn03", "cn04", "gpu1", "gpu2", "gpu3"]
    assert {host.host_key for host in here.hosts.values()} == {KEY}
    assert here.hosts["gpu1"].address == "10.0.0.21"


def test_its_file_has_the_project_s_prefix(here: Cluster, pulumi: Pulumi) -> None:
    (pulumi.project / "Pulumi.x.yaml").write_text("config:\n  slurmstack:cluster: {name: x}\n")
    file = here.file()
    assert file.over({})["slurmstack:cluster"] == '{"name": "x"}'


def test_the_controller_alone_is_asked(here: Cluster, hosts: Hosts) -> None:
    hosts.replies["ctl"] = Reply("PONG\n", "a warning\n", 0)
    assert here.ask("scontrol ping", "ping") == "PONG\n"
    here.ask("squeue", "squeue", 5)
    told = [([host.name for host in asked], *rest) for asked, *rest in hosts.asked]
    assert told == [(["ctl"], "scontrol ping", 30.0), (["ctl"], "squeue", 5)]


@pytest.mark.parametrize(
    ("reply", "last"),
    [
        (Reply("out\n", "a warning\nerror: load\nUnable to contact\n", 1), "Unable to contact"),
        (Reply("first\nlast\n", "", 3), "last"),
        (Reply("", " \n", 255), "exit 255"),
        (Reply("", "", -15), "exit -15"),
    ],
)
def test_what_the_controller_said_last_is_why(
    here: Cluster, hosts: Hosts, reply: Reply, last: str
) -> None:
    hosts.replies["ctl"] = reply
    with pytest.raises(Refused) as error:
        here.ask("scontrol ping", "scontrol ping")
    assert str(error.value) == f"ctl: scontrol ping: {last}"


def test_a_controller_that_cannot_be_asked_is_the_error_itself(here: Cluster, hosts: Hosts) -> None:
    gone = ContactError(here.hosts["ctl"], "connect", "no answer", "see that it runs")
    hosts.replies["ctl"] = gone
    with pytest.raises(ContactError, match="ctl: connect: no answer; see that it runs"):
        here.ask("true", "true")


def test_several_hosts_are_asked_at_once_and_one_that_is_gone_hides_none(
    here: Cluster, hosts: Hosts
) -> None:
    gone = ContactError(here.hosts["cn02"], "connect", "no answer", "see")
    hosts.replies = {"cn01": Reply("a", "", 0), "cn02": gone}
    assert here.run(["cn01", "cn02"], "hostname", 7) == hosts.replies
    ((asked, script, seconds),) = hosts.asked
    assert asked == [here.hosts["cn01"], here.hosts["cn02"]]
    assert (script, seconds) == ("hostname", 7)


def test_nodes_that_slurmctld_does_not_know_are_left_out(here: Cluster, hosts: Hosts) -> None:
    hosts.replies["ctl"] = Reply(NODES, "", 0)
    states = here.states(["cn02", "gpu1", "cn04"])
    assert [*states] == ["cn02", "cn04"]
    assert states["cn02"].flags == {"MIXED", "DRAIN"}
    assert hosts.asked[0][1] == "timeout 20 scontrol show node"


def test_a_node_in_several_partitions_is_a_line_of_sinfo(here: Cluster, hosts: Hosts) -> None:
    hosts.replies["ctl"] = Reply("    NODELIST\n        cn01\n\n", "", 0)
    assert here.sinfo(["cn01", "cn02"]) == "    NODELIST\n        cn01"
    script: Any = hosts.asked[0][1]
    assert " sinfo -N -n cn[01-02] " in script
    assert script.endswith("| awk '!seen[$1]++'")
