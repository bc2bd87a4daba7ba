"""An `up` killed at random moments: nothing lost, nothing unreadable, the next one completes.

ENGINE_KILLS says how often (5 without it; 200 take about a quarter of an hour), ENGINE_SEED which
moments: a failure names its own.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.backend import Backend, StackRef
from tests.engine.front.scenarios import REPOSITORY, Sandbox

KILLS = int(os.environ.get("ENGINE_KILLS", "5"))
SEED = int(os.environ.get("ENGINE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
REF = StackRef("small", "dev")

# Chains of five commands; half of them are updated in each generation, half of them are made anew
# and the old ones deleted. A command says that it ran, the program that it was told of its end.
PROGRAM = """\
import os
import pulumi
from pulumi_command import local

generation = pulumi.Config().require("generation")
log = os.environ["LOG"]

def told(name):
    with open(log, "a") as file:
        file.write(f"told {name} {generation}\\n")

for chain in range(10):
    before = []
    for link in range(5):
        name = f"c{chain}-{link}" + (f"-{generation}" if chain % 2 else "")
        made = local.Command(name, create=f"echo ran {name} {generation} >> {log}", delete="true",
                             opts=pulumi.ResourceOptions(depends_on=before))
        made.stdout.apply(lambda _, name=name: told(name))
        before = [made]
"""
# The key of the secrets takes half a second of a processor each time, which is not the matter here.
LAUNCHER = f"""\
#!{sys.executable}
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import engine.secrets
engine.secrets.ROUNDS = 1
from engine.cli import main
sys.exit(main(sys.argv[1:]))
"""


def name_of(resource: dict[str, Any]) -> str:
    return str(resource["urn"]).rsplit("::", 1)[1]


def commands(deployment: dict[str, Any], generation: int) -> set[str]:
    """Those that the state has as this generation wants them."""
    return {
        name_of(r)
        for r in deployment.get("resources") or []
        if str(r.get("inputs", {}).get("create", "")).split()[3:4] == [str(generation)]
    }


def said(log: Path, word: str, generation: int) -> set[str]:
    lines = (line.split() for line in log.read_text().splitlines())
    return {name for what, name, when in lines if (what, when) == (word, str(generation))}


@pytest.mark.timeout(600 + 60 * KILLS)
def test_killed_at_random_moments(ours: Sandbox) -> None:
    ours.pulumi.write_text(LAUNCHER)
    log = ours.root / "log"
    log.touch()
    ours.env["LOG"] = str(log)
    (ours.project / "__main__.py").write_text(PROGRAM)
    backend = Backend(ours.env["PULUMI_BACKEND_URL"])
    chance = random.Random(SEED)
    assert ours.run("stack", "init", "dev").code == 0

    settings = ours.project / "Pulumi.dev.yaml"
    salt = settings.read_text()

    def set_to(generation: int) -> None:
        settings.write_text(f"{salt}config:\n  small:generation: '{generation}'\n")

    set_to(0)
    began = time.monotonic()
    assert ours.run("up", "-yf").code == 0
    whole = time.monotonic() - began
    pending: Counter[str] = Counter()
    kills = generation = 0
    while kills < KILLS:
        generation += 1
        set_to(generation)
        moment = chance.uniform(0, whole)
        where = f"seed {SEED}, kill {kills}, after {moment:.3f} of {whole:.1f} s"
        with subprocess.Popen(
            [ours.pulumi, "up", "-yf"], cwd=ours.project, env=ours.env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as running:  # fmt: skip
            try:
                running.wait(moment)
            except subprocess.TimeoutExpired:
                kills += 1
            running.kill()
        found = backend.load(REF).deployment or {}
        json.loads((ours.state / "stacks/small/dev.json").read_bytes())
        done = commands(found, generation)
        under_way = {
            name_of(o["resource"]): o["type"]
            for o in found.get("pending_operations") or []
            if o["type"] != "creating" or name_of(o["resource"]).endswith(f"-{generation}")
        }
        assert said(log, "told", generation) <= done, where
        assert said(log, "ran", generation) <= done | under_way.keys(), where
        for name, operation in under_way.items():
            made_anew = name.count("-") == 2
            now = name.endswith(f"-{generation}") and made_anew
            expected = "creating" if now else "deleting" if made_anew else "updating"
            assert operation == expected, f"{where}: {name}"
        pending.update(under_way.values())

        print(f"{where}: {len(done)} done, {len(under_way)} pending", flush=True)
        backend.cancel(REF)
        again = ours.run("up", "-yf")
        assert again.code == 0, f"{where}:\n{again.out}{again.err}"
        found = backend.load(REF).deployment or {}
        assert len(commands(found, generation)) == 50, where
        assert len([r for r in found["resources"] if "local" in r["type"]]) == 50, where
        if generation % 10 == 0:  # interrupted creates stay in the state until then
            assert ours.run("refresh", "-yf", "--clear-pending-creates").code == 0
            assert "pending_operations" not in (backend.load(REF).deployment or {})
    if KILLS >= 50:
        assert {"creating", "updating", "deleting"} == pending.keys(), "not all was interrupted"
    print(f"{kills} kills in {generation} runs of {whole:.1f} s; interrupted: {dict(pending)}")
