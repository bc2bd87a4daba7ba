"""What every role puts on its node, against ``bundles.txt``: all but the text of files and scripts.

Whoever changes a bundle changes that file too, and whoever reviews it sees what nodes will have.
``python -m tests.unit.components.test_bundles`` writes it anew; read the difference before you
commit it.
"""

from __future__ import annotations

import asyncio
import copy
import difflib
import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import components
from tests.unit.components.test_cluster import bare, commands, deployed, everything, plain
from tests.unit.settings.test_rest import GOOD

PAGE = Path(__file__).with_name("bundles.txt")
SHARES = {
    "home": {"server": "in", "path": "/srv/home", "mount": "/home", "mode": "0711"},
    "scratch": {"server": "10.9.9.9", "path": "/scratch", "clients": "cn01"},
}

#: A lock file stands beside the test.
SOFTWARE = {
    "mpi4py/4.0": {
        "description": "MPI for Python", "packages": ["openmpi-bin"], "programs": ["mpirun"],
        "environment": {"lock": "tests/unit/components/lock.txt", "index": "/mnt/wheels"},
    }
}  # fmt: skip
BOOT = {
    "kernelParameters": ["nosmt"], "iommu": "passthrough", "sysctl": {"net.core.somaxconn": 8192},
    "hugePages": {"count": 64}, "cpuGovernor": "performance", "acs": "off", "modules": ["ib_ipoib"],
}  # fmt: skip
FABRIC = {
    "version": "24.10-2.1.8",
    "packages": {"mlnx-ofed-kernel-dkms": "24.10.OFED.24.10.2.1.8.1-1", "doca-ofed": "2.9.2-1"},
}
PEOPLE = {
    "local": {
        "groups": {"optics": {"gid": 6100}},
        "users": {
            "anna": {
                "uid": 6001,
                "groups": ["optics"],
                "sshKeys": [
                    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0d"
                ],
            },
            "ben": {"uid": 6002, "group": "optics"},
        },
    },
    "home": {"share": "home", "mkhomedir": True},
    "sssd": {
        "provider": "ldap",
        "domain": "example.org",
        "servers": ["ldaps://ldap1.example.org"],
        "ca": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "searchBase": "dc=example,dc=org",
        "bindDn": "cn=reader,dc=example,dc=org",
        "sshKeys": True,
    },
    "jobAccess": {"groups": ["ops"]},
}
NVIDIA = {
    "hosts": "cn01",
    "driver": {"version": "570.172.08-0ubuntu1"},
    "fabricManager": {"version": "570.172.08-1"},
    "dcgm": {"version": "1:4.2.3-1"},
    "gdrcopy": {"version": "2.5-1"},
    "containerToolkit": {"version": "1.17.8-1"},
    "peerMemory": True,
}
PODS = {
    "server": "https://10.9.9.9:6443",
    "ca": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "results": "/mnt/nas/results",
}


CUT = {"profile": "3g.40gb", "Count": 2, "standIn": True}


def settings() -> dict[str, Any]:
    """Every component, each with what it has of options that change what lands on nodes."""
    gpus = [{"Name": "gpu", "Type": "h100", "Count": 2, "standIn": True}]
    return {
        **copy.deepcopy(everything()),
        "nodes": [
            {"hosts": "cn01", "mig": {"2": {"3g.40gb": 2}}, "Gres": [*gpus, CUT]},
            {"hosts": "cn02", "Gres": []},
        ],
        "storage": SHARES,
        "directory": PEOPLE,
        "directoryBindPassword": "of-the-reader",
        "healthCheck": {"package": "lbnl-nhc"},
        "limits": {"memlock": "infinity"},
        "modules": {"tree": {"openmpi/5.0": {"description": "Open MPI", "default": True}}},
        "software": SOFTWARE,
        "jobEnvironment": {"NCCL_DEBUG": "WARN"},
        "jobContainer": {"BasePath": "/var/lib/job-tmp"},
        "mpi": {"default": "pmix"},
        "cgroup": {},
        "acceptance": {"gate": ["new", "rollout"], "packages": ["hpcc"]},
        "kubernetesBridge": {"registries": [{"name": "hub:5000"}], "pods": PODS},
        "kubernetesToken": "a-token-of-kubernetes",
        "nvidia": NVIDIA,
        "boot": BOOT,
        "fabric": FABRIC,
    }


def heads(text: str) -> str:
    """A bundle without the blocks below files and scripts; of a unit's, what restarts it."""
    kept: list[str] = []
    for line in text.splitlines()[1:-1]:
        if line and not line.startswith(" "):
            kept.append(line)
        elif kept[-1].startswith(("unit ", "  restart-key ")) and line.startswith("  restart-key "):
            kept.append(line.partition("=")[0])
    return "\n".join(kept) + "\n"


def bundles(changes: dict[str, Any]) -> list[str]:
    made, _ = deployed(**changes)
    return sorted(
        plain(inputs.get("stdin", ""))
        for name, inputs in commands(made).items()
        if plain(inputs.get("stdin", "")).startswith("slurmstack-bundle ")
    )


def page() -> str:
    made = bundles(settings())
    # NHC and our own checks take the place of each other.
    own = bundles({**bare(), "healthCheck": {"by": "slurmstack"}})
    made += [text for text in own if "\nrole health\n" in text]
    return "\n".join(heads(text) for text in made)


def roles() -> set[str]:
    """The roles that components name, but the applier's, which is no bundle."""
    found = set()
    for module in pkgutil.walk_packages(components.__path__, "components."):
        named = vars(importlib.import_module(module.name))
        found |= {
            value for name, value in named.items()
            if isinstance(value, str) and re.fullmatch(r"([A-Z]+_)?ROLE(_[A-Z]+)?", name)
        }  # fmt: skip
    return found - {"node"}


def test_every_role_is_written_down() -> None:
    assert set(re.findall(r"^role (.*)$", PAGE.read_text(), re.MULTILINE)) == roles()


def turned_round(value: Any) -> Any:
    """The same settings, each mapping written from its end."""
    if isinstance(value, dict):
        return {key: turned_round(inner) for key, inner in reversed(value.items())}
    return [turned_round(inner) for inner in value] if isinstance(value, list) else value


def test_nodes_get_what_is_written_down() -> None:
    sent, written = page(), PAGE.read_text()
    difference = difflib.unified_diff(
        written.splitlines(), sent.splitlines(), PAGE.name, "what nodes get", lineterm="", n=8
    )
    assert sent == written, "\n".join(
        ["if this is wanted: python -m tests.unit.components.test_bundles", *difference]
    )


#: Other settings of clusters that have it all: a host's part in it changes, or how a part is done.
OTHERS: dict[str, dict[str, Any]] = {
    "monitoring on another host": {"roles": {"controller": "ctl", "login": "in",
                                             "monitoring": "in"}},
    "a Prometheus of the site's own": {"monitoring": {"mode": "exportersOnly", "clientCa": GOOD}},
    "our own health checks": {"healthCheck": {"by": "slurmstack"}},
    "files without pods": {"kubernetesToken": None,
                           "kubernetesBridge": {"registries": [{"name": "hub:5000"}]}},
    "no monitoring": {"monitoring": None},
    "no health checks": {"healthCheck": None},
    "no bridge": {"kubernetesBridge": None, "kubernetesToken": None},
    "no containers": {"enrootPyxis": None},
}  # fmt: skip


def held(texts: list[str]) -> dict[tuple[str, str], str]:
    """Node and path → the role that has it."""
    found: dict[tuple[str, str], str] = {}
    for text in texts:
        of = dict(re.findall(r"^(node|role) (.*)$", text, re.MULTILINE))
        for path in re.findall(r"^(?:file|file-base64|link|absent) (\S+)", text, re.MULTILINE):
            found[of["node"], path] = of["role"]
    return found


@cache
def whole() -> dict[tuple[str, str], str]:
    return held(bundles(settings()))


@pytest.mark.slow
@pytest.mark.parametrize("what", OTHERS)
def test_no_path_goes_from_one_role_to_another(what: str) -> None:
    """The applier refuses what another role of its host holds, and that role lets go of it in the
    end of the run: the first `up` after such a change would fail, or each."""
    changed = {**settings(), **OTHERS[what]}
    given = {key: value for key, value in changed.items() if value is not None}
    now, then = whole(), held(bundles(given))
    assert {key: (now[key], then[key]) for key in now.keys() & then.keys()
            if now[key] != then[key]} == {}  # fmt: skip


def test_the_order_of_keys_changes_nothing_on_nodes() -> None:
    """A YAML mapping has no order: whoever sorts one by name restarts no daemon. Hosts, shares
    and `extra` come in the order of the settings."""
    changes = settings()
    changes["accounting"] = {
        "qos": {"low": {"Priority": 1}, "high": {"Priority": 2}},
        "accounts": {"b": {}, "a": {"Parent": "b", "GrpJobs": 1, "Description": "x"}},
        "users": {
            "dora": {
                "Accounts": {"b": {"Partitions": {"main": {"MaxJobs": 2}}}, "a": None},
                "DefaultAccount": "b",
            },
            "al": {"Accounts": ["a"], "DefaultAccount": "a"},
        },
    }
    changes["jobEnvironment"]["FI_PROVIDER"] = "verbs"
    changes["modules"]["tree"]["gcc/14"] = {"description": "GCC"}
    changes["partitions"] = {
        "main": {"Nodes": "ALL", "Default": True, "extra": {"PriorityTier": 2}},
        "debug": {"Nodes": "cn01", "MaxTime": 60},
    }
    turned = {
        key: value if key in ("hosts", "storage") else turned_round(value)
        for key, value in reversed(changes.items())
    }
    for before, after in zip(bundles(changes), bundles(turned), strict=True):
        assert before == after


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    PAGE.write_text(page())
