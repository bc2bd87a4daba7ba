"""``make bench``: the figures as tables. Ratios within a run count; seconds are the machine's."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import yaml
from rich.console import Console
from rich.table import Table

from bench.measure import Measured, measure
from bench.simulated import address

PROJECT = Path(__file__).parent.parent
PULUMI = PROJECT / ".venv" / "bin" / "pulumi"
Step = tuple[str, Measured]


def _simulated_settings(nodes: int, port: int, host_key: str, timeout: int) -> dict[str, Any]:
    names = {"ctl": {"address": address(0), "port": port, "hostKey": host_key}} | {
        f"cn{number:03}": {"address": address(number), "port": port, "hostKey": host_key}
        for number in range(1, nodes + 1)
    }
    hardware = {
        "CPUs": 224,
        "SocketsPerBoard": 2,
        "CoresPerSocket": 56,
        "ThreadsPerCore": 2,
        "RealMemory": 2_000_000,
    }
    return {
        "slurmstack:cluster": {"name": "bench"},
        "slurmstack:hosts": names,
        "slurmstack:roles": {"controller": "ctl"},
        "slurmstack:nodes": [{"hosts": f"cn[001-{nodes:03}]", "hardware": hardware}],
        "slurmstack:partitions": {"main": {"Nodes": "ALL", "Default": True}},
        "slurmstack:slurm": {"MessageTimeout": timeout},
    }


@contextmanager
def _server(nodes: int, folder: Path) -> Iterator[tuple[int, str]]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = folder / "host_key"
    key.write_private_key(str(path))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.simulated", str(port), str(path), str(nodes)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            if server.stdout.readline() != "listening\n":
                raise RuntimeError("the simulated nodes did not start")
            yield port, key.export_public_key("openssh").decode().strip()
        finally:
            server.terminate()


def simulated(nodes: int) -> list[Step]:
    """Deploy, look, change, and grow a stack whose nodes only answer."""
    stack = f"bench-{nodes}"
    settings = PROJECT / f"Pulumi.{stack}.yaml"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        environment = {
            **{key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"},
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "bench",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

        def pulumi(*arguments: str) -> Measured:
            words = [str(PULUMI), *arguments, "--stack", stack, "--non-interactive"]
            return measure(words, PROJECT, environment)

        try:
            with _server(nodes + 1, folder) as (port, host_key):

                def set_to(count: int, timeout: int) -> None:
                    kept = yaml.safe_load(settings.read_text()) if settings.exists() else {}
                    config = _simulated_settings(count, port, host_key, timeout)
                    settings.write_text(yaml.safe_dump({**(kept or {}), "config": config}))

                set_to(nodes, 30)
                measure([str(PULUMI), "stack", "init", stack], PROJECT, environment)
                return list(_steps(pulumi, set_to, nodes))
        finally:
            settings.unlink(missing_ok=True)


def _steps(
    pulumi: Callable[..., Measured], set_to: Callable[[int, int], None], nodes: int
) -> Iterator[Step]:
    up = ("up", "--yes", "--skip-preview", "--suppress-outputs")
    yield "first deployment", pulumi(*up)
    yield "no-op preview", pulumi("preview", "--expect-no-changes", "--suppress-outputs")
    yield "no-op up", pulumi(*up, "--expect-no-changes")
    set_to(nodes, 60)
    yield "one line changed", pulumi(*up)
    set_to(nodes + 1, 60)
    yield "one node added", pulumi(*up)


def on_the_lab() -> list[Step]:
    """The same on real nodes, in a lab of its own that is made and removed."""
    environment = {**os.environ, "LAB": "bench"}
    command = [sys.executable, "-m", "lab", "--lab", "bench"]
    settings = PROJECT / "Pulumi.bench.yaml"
    try:
        steps: list[Step] = [("make lab, image and packages in the cache", measure(
            [*command, "up"], PROJECT, environment))]  # fmt: skip
        from lab import lifecycle
        from lab.deploy import program_environment

        running = lifecycle.require("bench")
        variables = program_environment(running)

        def pulumi(*arguments: str) -> Measured:
            words = [str(PULUMI), *arguments, "--stack", "bench", "--non-interactive"]
            return measure(words, PROJECT, variables)

        def set_to(count: int, timeout: int) -> None:
            content = yaml.safe_load(settings.read_text())
            content["config"]["slurmstack:slurm"]["MessageTimeout"] = timeout
            if count > 2:
                measure([*command, "node-up", "cn03"], PROJECT, environment)
                content["config"]["slurmstack:hosts"]["cn03"] = running.address("cn03")
                content["config"]["slurmstack:nodes"][1]["hosts"] = "cn[02-03]"
                switches = content["config"]["slurmstack:topology"]["switches"]
                switches["leaf2"]["Nodes"] = "cn[02-03]"
            settings.write_text(yaml.safe_dump(content, sort_keys=False))

        return steps + list(_steps(pulumi, set_to, 2))[1:]
    finally:
        measure([*command, "down"], PROJECT, environment)


def _table(title: str, steps: list[Step]) -> Table:
    found = Table(title=title, title_justify="left")
    for column in ("what", "seconds", "of the first", "peak MiB"):
        found.add_column(column, justify="left" if column == "what" else "right")
    first = steps[0][1].seconds
    for what, result in steps:
        share = f"{result.seconds / first:.2f}"
        found.add_row(what, f"{result.seconds:.1f}", share, f"{result.peak_mib:.0f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--nodes", default="3,64,256", help="simulated nodes, with commas")
    parser.add_argument("--no-lab", action="store_true", help="leave the real nodes out")
    options = parser.parse_args()
    console = Console()
    about = subprocess.run([str(PULUMI), "version"], capture_output=True, text=True, check=True)
    engine = "embedded" if "engine" in PULUMI.read_bytes().decode(errors="ignore")[:400] else "cli"
    console.print(f"engine: {engine}, {about.stdout.strip()}; {os.cpu_count()} cores")
    growth = []
    for count in (int(text) for text in options.nodes.split(",")):
        steps = simulated(count)
        growth.append((count, steps))
        console.print(_table(f"{count} simulated nodes", steps))
    (few, first), (many, last) = growth[0], growth[-1]
    if many > few:
        ratio = last[0][1].seconds / first[0][1].seconds
        console.print(
            f"first deployment, {many} nodes to {few}: {ratio:.1f}× for {many / few:.1f}×"
        )
    if not options.no_lab:
        console.print(_table("4 real nodes", on_the_lab()))


if __name__ == "__main__":
    main()
