"""A tree from ibnetdiscover's text."""

from __future__ import annotations

import pytest

from discovery.fabric import FabricError, tree
from settings.topology import Topology, problems


def discovered(cables: dict[str, list[str]], hosts: dict[str, list[str]]) -> str:
    """As ibnetdiscover(8) prints it: switches, then adapters, each with its links."""
    lines = ["#", "# Topology file: generated on Sun Nov 22 02:00:00 2026", "#"]
    for switch, ups in cables.items():
        lines += ["", "vendid=0x2c9", f'Switch\t65 "S-{switch}"\t\t# "{switch}" enhanced port 0']
        lines += [
            f'[{port}]\t"S-{up}"[1]\t\t# "{up}" lid 2 4xNDR' for port, up in enumerate(ups, 1)
        ]
    for host, leaves in hosts.items():
        for rail, leaf in enumerate(leaves):
            lines += ["", "caguid=0x1", f'Ca\t1 "H-{host}-{rail}"\t\t# "{host} mlx5_{rail}"']
            lines += [f'[1](a088c2{rail:02x}) \t"S-{leaf}"[{rail + 1}]\t\t# lid 9 "{leaf}" 4xNDR']
    return "\n".join(lines) + "\n"


def test_rails_of_two_units_below_one_spine() -> None:
    cables = {"l1": ["s1"], "l2": ["s1"], "l3": ["s1"], "l4": ["s1"], "s1": []}
    hosts = {f"cn{n:02}": ["l1", "l2"] if n < 3 else ["l3", "l4"] for n in range(1, 5)}
    found = tree(discovered(cables, hosts), hosts)
    assert found == {
        "leaf1": {"Nodes": "cn[01-02]"},
        "leaf2": {"Nodes": "cn[03-04]"},
        "spine1": {"Switches": "leaf1,leaf2"} if "leaf1,leaf2" in str(found) else
        {"Switches": "leaf[1-2]"},
    }  # fmt: skip
    topology = Topology.model_validate({"plugin": "tree", "switches": found})
    assert not list(problems(topology, list(hosts), "topology"))


def test_three_levels() -> None:
    cables = {"a": ["s1"], "b": ["s1"], "c": ["s2"], "d": ["s2"], "s1": ["top"], "s2": ["top"],
              "top": []}  # fmt: skip
    hosts = {"cn01": ["a"], "cn02": ["b"], "cn03": ["c"], "cn04": ["d"]}
    found = tree(discovered(cables, hosts), hosts)
    assert found["spine1-1"] == {"Switches": "leaf[1-2]"}
    assert found["spine1-2"] == {"Switches": "leaf[3-4]"}
    assert found["spine2"]["Switches"] in ("spine1-[1-2]", "spine1-1,spine1-2")
    topology = Topology.model_validate({"plugin": "tree", "switches": found})
    assert not list(problems(topology, list(hosts), "topology"))


def test_one_switch_is_a_tree() -> None:
    assert tree(discovered({"a": []}, {"cn01": ["a"]}), ["cn01"]) == {"leaf1": {"Nodes": "cn01"}}


def test_other_hosts_are_left_out() -> None:
    text = discovered({"a": []}, {"cn01": ["a"], "nas": ["a"]})
    assert tree(text, ["cn01"]) == {"leaf1": {"Nodes": "cn01"}}


def test_a_node_without_a_link() -> None:
    with pytest.raises(FabricError, match="no link of cn02"):
        tree(discovered({"a": []}, {"cn01": ["a"], "cn02": []}), ["cn01", "cn02"])


def test_a_fabric_in_pieces() -> None:
    with pytest.raises(FabricError, match="in 2 pieces"):
        tree(discovered({"a": [], "b": []}, {"cn01": ["a"], "cn02": ["b"]}), ["cn01", "cn02"])
