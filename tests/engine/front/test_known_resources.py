"""A resource that a program takes up again by its URN (the function pulumi:pulumi:getResource)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.engine.front.displays import with_plugin
from tests.engine.front.scenarios import Sandbox

AGAIN = """\
import pulumi
from pulumi_command import local

a = local.Command("a", create="echo hi", stdin=pulumi.Output.secret("hush"))
again = a.urn.apply(lambda urn: local.Command("x", opts=pulumi.ResourceOptions(urn=urn)))
pulumi.export("stdout", again.apply(lambda found: found.stdout))
pulumi.export("stdin", again.apply(lambda found: found.stdin))
pulumi.export("urn", again.apply(lambda found: found.urn))
"""
NOBODY = """\
import pulumi
from pulumi_command import local

local.Command("x", opts=pulumi.ResourceOptions(urn="urn:pulumi:dev::small::a:b:C::nobody"))
"""
MISSING = (
    "Exception: invocation of pulumi:pulumi:getResource returned an error:"
    " unknown resource urn:pulumi:dev::small::a:b:C::nobody"
)


def check(sandbox: Sandbox) -> None:
    program = sandbox.project / "__main__.py"
    program.write_text(AGAIN)
    assert sandbox.run("stack", "init", "dev").code == 0
    assert "stdin : [secret]\n    stdout: [unknown]\n" in sandbox.run("preview").out
    assert sandbox.run("up", "-yf").code == 0
    assert json.loads(sandbox.run("stack", "output", "--json").out) == {
        "stdout": "hi",
        "stdin": "[secret]",
        "urn": "urn:pulumi:dev::small::command:local:Command::a",
    }
    program.write_text(NOBODY)
    failed = sandbox.run("preview")
    assert failed.code == 1
    assert MISSING in failed.out


def test_ours(ours: Sandbox) -> None:
    check(ours)


def test_the_real_one(real: Path, tmp_path: Path) -> None:
    check(with_plugin(Sandbox(tmp_path, real)))
