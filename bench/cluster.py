"""The settings that are measured: production's own, with every component on but the drivers and
kernels of nodes, for any number of nodes on one simulated address each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.simulated import address

PRODUCTION = Path(__file__).parent.parent / "Pulumi.prod.yaml"
_SHA = "0" * 64
#: What production's settings may leave out; nothing is fetched from these by simulated nodes.
_OTHERS: dict[str, Any] = {
    "packages": {
        "slurm": "source",
        "version": "25.05.1-1",
        "archive": {"url": "http://192.0.2.1/slurm-25-05-1-1.tar.gz", "sha256": _SHA},
    },
    "enrootPyxis": {
        "enroot": {
            "packages": [{"url": "http://192.0.2.1/enroot_3.5.0-1_amd64.deb", "sha256": _SHA}]
        },
        "pyxis": {
            "version": "0.20.0",
            "archive": {"url": "http://192.0.2.1/pyxis-0.20.0.tar.gz", "sha256": _SHA},
        },
    },
    "apptainer": {
        "packages": [{"url": "http://192.0.2.1/apptainer_1.4.2_amd64.deb", "sha256": _SHA}]
    },
    "accounting": {"accounts": {"science": {}}, "users": {"alice": {"Accounts": {"science": {}}}}},
    "jwt": {},
    "rest": {},
}


def settings(nodes: int, port: int, host_key: str, message_timeout: int) -> dict[str, Any]:
    """``config`` of a stack with a controller, a login node and this many compute nodes.

    Args:
        nodes: how many compute nodes.
        port: where each simulated address listens.
        host_key: the key that all of them show.
        message_timeout: slurm.conf's MessageTimeout in seconds: the one line that changes.
    """
    content = yaml.safe_load(PRODUCTION.read_text())["config"]
    config = {key.removeprefix("slurmstack:"): value for key, value in content.items()}
    config = {**_OTHERS, **config}
    # Drivers and kernels: no figure has been taken with them, nor has what is compared with them.
    for name in ("ssh", "partitions", "topology", "nvidia", "boot"):
        config.pop(name, None)
    computes = f"cn[001-{nodes:03}]"
    names = ["ctl", "login", *(f"cn{number:03}" for number in range(1, nodes + 1))]
    config |= {
        "cluster": {"name": "bench"},
        "hosts": {
            name: {"address": address(number), "port": port, "hostKey": host_key}
            for number, name in enumerate(names)
        },
        "roles": {"controller": "ctl", "login": "login"},
        "nodes": [{**config["nodes"][0], "hosts": computes}],
        "partitions": {"main": {"Nodes": "ALL", "Default": True}},
        "topology": {"plugin": "tree", "switches": {"leaf": {"Nodes": computes}}},
        "slurm": {**config["slurm"], "MessageTimeout": message_timeout},
    }
    return {f"slurmstack:{key}": value for key, value in config.items()}
