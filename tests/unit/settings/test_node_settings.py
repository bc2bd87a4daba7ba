"""Mistakes in the settings of nodes and of how jobs run on them, each with its path."""

from __future__ import annotations

from typing import Any

import pytest

from settings import parse
from tests.unit.settings.test_settings import PI, lab, mistakes

HOSTS = {"ctl": "10.73.0.10", "cn[01-02]": "10.73.0.[21-22]", "login": "10.73.0.12"}
H100 = {"Name": "gpu", "Type": "h100", "Count": 8, "AutoDetect": "nvml"}
TREE: dict[str, Any] = {
    "plugin": "tree",
    "switches": {"l1": {"Nodes": "cn01"}, "l2": {"Nodes": "cn02"}, "top": {"Switches": "l[1-2]"}},
}


def gres(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": [{"hosts": "cn[01-02]", "Gres": list(entries), **more}]}


def tree(**changes: Any) -> dict[str, Any]:
    return {"topology": {**TREE, "switches": {**TREE["switches"], **changes}}}


NODE = "slurmstack:nodes[0]"


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        (gres({"Name": "gpu", "Count": 8}), f"{NODE}.Gres[0]", "File, pci or AutoDetect"),
        (gres({"Name": "gpu", "AutoDetect": "nvml"}), f"{NODE}.Gres[0]", "Count"),
        (
            gres({"File": "/dev/nvidia[0-3]", "Count": 8}),
            f"{NODE}.Gres[0]",
            "a Count of 4, as many as File names (it is 8)",
        ),
        (gres({**H100, "standIn": True}), f"{NODE}.Gres[0]", "either standIn"),
        (gres({"pci": ["10de:ffff"]}), f"{NODE}.Gres[0]", "10de:ffff is not one known card"),
        (
            gres({"Count": 7, "profile": "1g.10gb", "File": "/dev/nvidia[0-6]"}),
            f"{NODE}.Gres[0]",
            "AutoDetect: nvml with a MIG profile",
        ),
        (
            gres({"File": "/dev/nvidia0", "MultipleFiles": "/dev/nvidia1"}),
            f"{NODE}.Gres[0]",
            "one of File and MultipleFiles",
        ),
        (gres({"pci": ["10de:2330"] * 2, "Count": 3}), f"{NODE}.Gres[0]", "a Count of 2"),
        (
            gres({"Count": 7, "profile": "1g.10gb", "Type": "a100", "AutoDetect": "nvml"}),
            f"{NODE}.Gres[0]",
            "no Type beside the MIG profile",
        ),
        (gres({"File": "/dev/nvidia[0-1]", "Links": "0,1"}), f"{NODE}.Gres[0]", "one File beside"),
        (gres(H100, {"Name": "shard"}), f"{NODE}.Gres[1]", "Count, the number of shard"),
        (gres({"Name": "shard", "Count": 8}), f"{NODE}.Gres[0]", "a gpu beside shard"),
        (gres(H100, H100), f"{NODE}.Gres[1]", "gpu:h100:8 again"),
        (gres({**H100, "Colour": "green"}), f"{NODE}.Gres[0].Colour", "unknown key"),
        (
            gres(H100, hardware={**PI, "gpus": {"files": [f"/dev/nvidia{i}" for i in range(4)]}}),
            f"{NODE}.Gres",
            "expected gpu:h100:8 as declared; found in hardware.gpus: 4 device files",
        ),
        ({"cgroup": {"CgroupAutomount": True}}, "slurmstack:cgroup", "systemd mounts cgroups"),
        (
            {"cgroup": {"CgroupReleaseAgentDir": "/x"}},
            "slurmstack:cgroup",
            "slurmd refuses to start",
        ),
        ({"cgroup": {"TaskAffinity": True}}, "slurmstack:cgroup", "TaskPlugin=task/affinity"),
        ({"cgroup": {"AllowedDevicesFile": "/x"}}, "slurmstack:cgroup", "follow from GRES"),
        (tree(l2={"Nodes": "cn01"}), "slurmstack:topology.switches.l2.Nodes", "already in l1"),
        (tree(l2={"Nodes": "cn09"}), "slurmstack:topology.switches.l2.Nodes", "found cn09"),
        (tree(top={"Switches": "l[1-3]"}), "slurmstack:topology.switches.top.Switches", "found l3"),
        (
            tree(top={"Switches": "l[1-2],x"}, x={"Switches": "top"}),
            "slurmstack:topology.switches.top",
            "a ring",
        ),
        (
            tree(x={"Switches": "l1"}, top={"Switches": "l[1-2],x"}),
            "slurmstack:topology.switches.x.Switches",
            "found l1, already below top",
        ),
        (tree(l2={"Nodes": "cn02", "Switches": "l1"}), "slurmstack:topology.switches.l2", "either"),
        (
            {"topology": {"plugin": "tree", "switches": {"l1": {"Nodes": "cn01"}}}},
            "slurmstack:topology.switches",
            "none for cn02",
        ),
        (
            {
                "topology": {
                    "plugin": "block",
                    "blocks": {"a": {"Nodes": "cn01"}, "b": {"Nodes": "cn02"}},
                    "BlockSizes": [1, 3],
                }
            },
            "slurmstack:topology.BlockSizes",
            "a power of two times 1",
        ),
        # topology.conf(5): the base block size, then powers of two times it.
        *(
            (
                {
                    "topology": {
                        "plugin": "block",
                        "blocks": {"a": {"Nodes": "cn[01-02]"}},
                        "BlockSizes": sizes,
                    }
                },
                "slurmstack:topology.BlockSizes",
                f"a power of two times {before} after it (topology.conf(5)); found {found}",
            )
            for sizes, before, found in (
                ([1, 1], 1, 1), ([2, 3], 2, 3), ([2, 5], 2, 5), ([2, 12], 2, 12), ([2, 4, 4], 4, 4),
            )
        ),
        (
            {
                "topology": {
                    "plugin": "block",
                    "blocks": {"a": {"Nodes": "cn01"}, "b": {"Nodes": "cn02"}},
                    "BlockSizes": [2],
                }
            },
            "slurmstack:topology.blocks.a.Nodes",
            "at least the 2 nodes of the base block size",
        ),
        (
            {"topology": {**TREE, "BlockSizes": [1]}},
            "slurmstack:topology",
            "neither blocks nor BlockSizes",
        ),
        ({"topology": {**TREE, "plugin": "block"}}, "slurmstack:topology", "no switches"),
        ({"mpi": {"ports": "6800-6817"}}, "slurmstack:mpi.ports", "without SlurmctldPort, 6817"),
        ({"mpi": {"ports": "12000"}}, "slurmstack:mpi.ports", "such as 12000-12999"),
        ({"mpi": {"ports": "80-90"}}, "slurmstack:mpi.ports", "from 1024 to 65535"),
        (
            {"mpi": {}, "slurm": {"SrunPortRange": "12500-13500"}},
            "slurmstack:mpi.ports",
            "a range without SrunPortRange, 12500-13500",
        ),
        (
            {"mpi": {}, "slurm": {"SrunPortRange": "13500"}},
            "slurmstack:slurm.SrunPortRange",
            "a range of ports",
        ),
        ({"jobContainer": {"BasePath": "/tmp"}}, "slurmstack:jobContainer", "none of Dirs"),
        (
            {"jobContainer": {"BasePath": "/var/spool/slurmd"}},
            "slurmstack:jobContainer.BasePath",
            "another folder than SlurmdSpoolDir",
        ),
        (
            {"jobEnvironment": {"A": 1}, "slurm": {"extra": {"TaskProlog": "/x"}}},
            "slurmstack:slurm.extra.TaskProlog",
            "it follows from slurmstack:jobEnvironment",
        ),
        ({"jobEnvironment": {"A B": "x"}}, "slurmstack:jobEnvironment.A B", "name of a variable"),
        ({"roles": {"controller": "ctl", "login": "cn01"}}, "slurmstack:roles.login", "no compute"),
        ({"roles": {"controller": "ctl", "login": "sm9"}}, "slurmstack:roles.login", "found sm9"),
        (
            {"roles": {"controller": "ctl", "login": "ctl"}},
            "slurmstack:roles.login",
            "other hosts than the controller",
        ),
        (
            {"nodes": [
                {"hosts": "cn01", "Gres": [H100]},
                {"hosts": "cn02", "Gres": [{"Count": 8, "standIn": True}]},
            ]},
            "slurmstack:nodes[1].Gres[0]",
            "or stand-ins for all",
        ),
        (
            {"storage": {"home": {"server": "nas", "path": "/a", "clients": "cn09"}}},
            "slurmstack:storage.home.clients",
            "found cn09",
        ),
        (
            {
                "hosts": {**HOSTS, "nas": {"address": "10.73.0.30", "lost": True}},
                "storage": {"home": {"server": "nas", "path": "/a"}},
            },
            "slurmstack:storage.home.server",
            "a host that is not lost",
        ),
        (
            {"storage": {"home": {"server": "cn01", "path": "/srv/home"}}},
            "slurmstack:storage.home.server",
            "a host that runs no jobs",
        ),
        (
            {
                "storage": {
                    "a": {"server": "nas", "path": "/a", "mount": "/home"},
                    "b": {"server": "nas", "path": "/b", "mount": "/home"},
                }
            },
            "slurmstack:storage.b.mount",
            "/home, already of a",
        ),
        (
            {"storage": {"fast": {
                "type": "lustre", "source": "mgs:/fast", "mount": "/fast",
                "packages": ["lustre-client-utils"],
                "packageFiles": [{"url": "https://site.example/lustre-client-modules_2_all.deb",
                                  "sha256": "1" * 64}],
            }}},
            "slurmstack:storage.fast.packageFiles[0]",
            "a package of slurmstack:storage.fast.packages (lustre-client-utils); found "
            "lustre-client-modules",
        ),
        ({"nodes": [], "partitions": {"main": {"Nodes": "ALL"}}},
         "slurmstack:partitions.main.Nodes", "found none"),
        (
            {
                "hosts": {**HOSTS, "cn03": {"address": "10.73.0.23", "lost": True}},
                "nodes": [{"hosts": "cn[01-03]"}],
                "partitions": {"old": {"Nodes": "cn03"}},
            },
            "slurmstack:partitions.old.Nodes",
            "a node that is not lost",
        ),
    ],
)  # fmt: skip
def test_one_mistake(changes: dict[str, Any], path: str, says: str) -> None:
    found = mistakes({"hosts": HOSTS, **changes})
    where = next((where for where in found if where.startswith(path)), "")
    assert says in found.get(where, ""), found


def test_a_node_may_offer_all_of_its_memory() -> None:
    node_class = {"hosts": "cn[01-02]", "hardware": PI}
    parse({**lab(), "nodes": [{**node_class, "RealMemory": 3797}]})
    (problem,) = mistakes({"nodes": [{**node_class, "RealMemory": 3798}]}).values()
    assert problem == "expected at most the 3797 MiB; found 3798 MiB"


def test_said_in_two_places() -> None:
    found = mistakes({"mpi": {}, "slurm": {"MpiDefault": "pmi2"}})
    assert found == {
        "slurmstack:slurm.MpiDefault": "expected it in slurmstack:mpi alone; found both"
    }


def test_a_lost_node_leaves_its_partition() -> None:
    from components.configuration.slurm_conf import slurm_conf
    from settings.model import Hardware

    changes = {
        "hosts": {"ctl": "10.73.0.10", "cn01": "10.73.0.21",
                  "cn02": {"address": "10.73.0.22", "lost": True}},
        "partitions": {"main": {"Nodes": "cn[01-02]"}},
    }  # fmt: skip
    settings = parse({**lab(), **changes})
    text = slurm_conf(settings, {"cn01": Hardware.model_validate(PI)})
    assert "PartitionName=main Nodes=cn01 " in text
    assert "cn02" not in text
