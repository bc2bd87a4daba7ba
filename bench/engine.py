"""``python -m bench.engine``: what an engine costs, by the number of resources it looks after.

Simulated hosts with six remote commands each, one after the other on each host: created, looked at
again, and all changed. The embedded engine, and beside it the real one where a `pulumi` with
`pulumi-resource-command` is on PATH: as it comes, and with PULUMI_SKIP_CHECKPOINTS, where it
writes its state at the end only and not after each step, as a journal spares the embedded one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from bench.fleet import fleet
from bench.measure import measure
from bench.simulated import address

PROJECT = Path(__file__).parent.parent
COMMANDS = 6
PROGRAM = """\
import pulumi
from pulumi_command import remote

config = pulumi.Config()
for number, host in enumerate(config.require_object("hosts")):
    before = []
    for step in range({commands}):
        made = remote.Command(
            f"host{{number}}-{{step}}",
            create="true",
            stdin=f"node host{{number}}\\nrole step{{step}}\\n" + config.require("content"),
            connection={{"host": host, "port": config.require_int("port"), "user": "root",
                        "hostKey": config.require("hostKey")}},
            opts=pulumi.ResourceOptions(depends_on=before),
        )
        before = [made]
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of the clock and of the processors, MiB at the peak, MiB written to files."""

    seconds: float
    cpu: float
    peak: float
    written: float


@dataclass(frozen=True)
class Engine:
    name: str
    command: tuple[str, ...]
    environment: dict[str, str]


def engines() -> list[Engine]:
    """The embedded one, and the real one of PATH in both its ways."""
    own = Engine("embedded", (sys.executable, "-m", "engine"), {"PYTHONPATH": str(PROJECT)})
    real = shutil.which("pulumi")
    if not real or Path(real).stat().st_size < 1_000_000 or not shutil.which(
        "pulumi-resource-command"
    ):  # fmt: skip
        return [own]
    skip = {"PULUMI_SKIP_CHECKPOINTS": "true", "PULUMI_EXPERIMENTAL": "true"}
    return [own, Engine("real", (real,), {}), Engine("real, no checkpoints", (real,), skip)]


def costs(engine: Engine, count: int) -> dict[str, Cost]:
    """Create, look and change ``count`` hosts in a state folder of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (folder / "Pulumi.yaml").write_text(json.dumps({"name": "engine", "runtime": runtime}))
        (folder / "__main__.py").write_text(PROGRAM.format(commands=COMMANDS))
        environment = {
            **{key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"},
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "bench",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            **engine.environment,
        }
        settings = folder / "Pulumi.bench.yaml"

        def cost(*arguments: str) -> Cost:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            words = [*engine.command, "--non-interactive", *arguments]
            measured = measure(words, folder, environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            written = (after.ru_oublock - before.ru_oublock) * 512 / 2**20
            return Cost(measured.seconds, measured.cpu, measured.peak_mib, written)

        def change_to(content: str) -> None:
            kept = yaml.safe_load(settings.read_text())
            kept["config"] = {**reached, "engine:content": content}
            settings.write_text(yaml.safe_dump(kept))

        with fleet(count, folder) as hosts:
            reached = {
                "engine:port": hosts.port,
                "engine:hostKey": hosts.host_key,
                "engine:hosts": [address(number) for number in range(count)],
            }
            cost("stack", "init", "bench")
            change_to("first\n")
            up = ("up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", "bench")
            figures = {"create": cost(*up), "no-op": cost(*up, "--expect-no-changes")}
            change_to("second\n")
            return figures | {"change all": cost(*up)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--hosts", default="64,256,1024", help="how many, with commas")
    parser.add_argument("--real-up-to", type=int, default=256, help="hosts for the real engine")
    options = parser.parse_args()
    console = Console()
    counts = [int(text) for text in options.hosts.split(",")]
    for engine in engines():
        table = Table(title=f"{engine.name}, {os.cpu_count()} cores", title_justify="left")
        for column in ("commands", "what", "seconds", "CPU s", "peak MiB", "MiB written"):
            table.add_column(column, justify="left" if column == "what" else "right")
        seconds: dict[str, list[tuple[int, float]]] = {}
        for count in counts:
            if engine.name != "embedded" and count > options.real_up_to:
                continue
            for what, cost in costs(engine, count).items():
                seconds.setdefault(what, []).append((count, cost.seconds))
                figures = (cost.seconds, cost.cpu, cost.peak, cost.written)
                table.add_row(str(count * COMMANDS), what, *(f"{x:.1f}" for x in figures))
        console.print(table)
        for what, measured in seconds.items():
            (few, first), (many, last) = measured[0], measured[-1]
            if many > few:
                power = math.log(last / first) / math.log(many / few)
                console.print(f"{engine.name}, {what}: grows with n^{power:.2f}")


if __name__ == "__main__":
    main()
