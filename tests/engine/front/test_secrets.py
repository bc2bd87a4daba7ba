"""No secret of an operation stands readable in anything that leaves the engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.front.displays import with_plugin
from tests.engine.front.scenarios import Sandbox

TOKEN = 'hunter2"x'
INNER = "tr0ub4dor"
BODY = ("MIIEvQIBADANBgkqhkiG9w0BAQ", "AASCBKcwggSjAgEAAoIBAQ==")
KEY = "\n".join(["-----BEGIN KEY-----", *BODY, "-----END KEY-----", ""])
PROGRAM = """\
import json, sys
import pulumi
from pulumi_command import local

config = pulumi.Config()
token, key = config.get("token"), config.get("key")
inner = json.loads(config.get("tree"))["inner"]
for text in (token, inner, key):
    print(text)
    print(text, file=sys.stderr, end="")
    pulumi.log.info(f"info {text}")
    pulumi.log.warn(f"warning {text}")
pulumi.export("token", token)
pulumi.export("json", json.dumps({"deep": [token, inner]}))
quoted = "'" + token + "'"
local.Command("shown", create="cat; echo " + quoted, stdin=f"{key}and {token}")
local.Command("failing", create=f"echo {quoted}; echo {inner} >&2; exit 3")
if config.get_bool("raise"):
    raise Exception(f"it broke at {token}")
"""


@pytest.fixture
def stack(ours: Sandbox) -> Sandbox:
    assert ours.run("stack", "init", "dev").code == 0
    for argv in (["token", TOKEN], ["--path", "tree.inner", INNER], ["key", KEY]):
        assert ours.run("config", "set", "--secret", *argv[:-1], "--", argv[-1]).code == 0
    (ours.project / "__main__.py").write_text(PROGRAM)
    return ours


def readable(text: str) -> list[str]:
    """The secrets, as they are or as JSON has them, that the text shows."""
    wanted = [TOKEN, json.dumps(TOKEN)[1:-1], json.dumps(TOKEN).replace('"', '\\"'), INNER]
    return [secret for secret in [*wanted, *BODY] if secret in text]


@pytest.mark.parametrize("shape", [[], ["--diff", "--show-secrets"], ["--json"]])
def test_no_plain_secret_of_the_configuration(shape: list[str], stack: Sandbox) -> None:
    """`--show-secrets` shows values that are secret, not texts with a secret in them."""
    log = stack.root / "events"
    for verb, *argv in (["preview"], ["up", "-yf"], ["preview"], ["refresh", "-yf"],
                        ["destroy", "-yf"]):  # fmt: skip
        lasting = verb in ("preview", "up")
        if shape != ["--json"] or verb == "preview":
            argv += shape if lasting else shape[:1]
        argv += ["--event-log", str(log)]
        done = stack.run(verb, *argv, PULUMI_DEBUG_COMMANDS="true")
        said = done.out + done.err + log.read_text()
        assert readable(said) == [], verb
        if lasting:
            assert said.count("[secret]") > 10, said


def test_no_secret_in_what_ends_an_operation(stack: Sandbox) -> None:
    stack.run("config", "set", "raise", "true")
    for argv in (["preview"], ["preview", "--json"], ["preview", "--diff"]):
        done = stack.run(*argv)
        assert (readable(done.out + done.err), done.code) == ([], 1)
        assert "it broke at [secret]" in done.out + done.err
    (stack.project / "__main__.py").write_text(
        "import pulumi\npulumi.get_organization()\n"
        "pulumi.runtime.invoke('a:b:' + pulumi.Config().require('token'), {})\n"
    )
    done = stack.run("preview")
    assert (done.code, readable(done.out + done.err)) == (2, [])
    assert "the function a:b:[secret]" in done.err


def test_secrets_of_program_and_state_are_masked_too(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    (ours.project / "__main__.py").write_text(
        "import pulumi, pulumi_random, pathlib\nfrom pulumi_command import local\n"
        "made = pulumi_random.RandomPassword('made', length=24, special=False)\n"
        "local.Command('echo', create='cat >made; cat made >&2; exit 3', stdin=made.result)\n"
        "if (old := pathlib.Path('made')).exists():\n    print('old', old.read_text())\n"
    )
    first = ours.run("up", "-yf")
    password = (ours.project / "made").read_text()
    assert len(password) == 24
    second = ours.run("preview", "--json")
    for done in (first, second):
        assert password not in done.out + done.err
        assert "[secret]" in done.out + done.err


CHANGING = """\
import pulumi
from pulumi_command import local

hide = pulumi.Output.secret
environment = {"S": hide("v4lue-one"), "P": "plain", "L": "left"}
local.Command("text", create="true", update="true", stdin=hide("v4lue-one\\nsame\\n"),
              environment=environment)
local.Command("list", create="true", triggers=["first", hide("v4lue-one")])
pulumi.export("whole", hide("v4lue-one"))
pulumi.export("tree", {"deep": [hide("v4lue-one")], "beside": "one"})
"""
CHANGED = (
    CHANGING.replace("v4lue-one", "v4lue-two").replace("left", "right").replace('"one"', '"2"')
)


def test_a_changed_secret_in_diff(ours: Sandbox) -> None:
    changed_secret(ours)


def test_pulumi_shows_the_same_of_a_changed_secret(ours: Sandbox, real: Path) -> None:
    ours.pulumi = real
    changed_secret(with_plugin(ours))


def changed_secret(sandbox: Sandbox) -> None:
    """An input that has changed is shown as changed, an output is not; neither shows a value."""
    program = sandbox.project / "__main__.py"
    sandbox.run("stack", "init", "dev")
    program.write_text(CHANGING)
    assert sandbox.run("up", "-yf").code == 0
    program.write_text(CHANGED)
    for argv in (["preview", "--diff"], ["up", "-yf", "--diff"]):
        done = sandbox.run(*argv)
        assert (done.code, "v4lue" in done.out + done.err) == (0, False), done.out
        lines = [line.strip() for line in done.out.splitlines()]
        # The two commands stand in no order.
        changed = sorted(line for line in lines if "~ " in line and "Command" not in line)
        assert changed == sorted(
            [
                *("~ environment: {", '~ L: "left" => "right"', "~ S: [secret] => [secret]"),
                *("~ stdin      : [secret] => [secret]", "~ triggers: ["),
                *("~ [1]: [secret] => [secret]", "~ tree : {", '~ beside: "one" => "2"'),
                f"~ 1 {'to update' if argv[0] == 'preview' else 'updated'}",
            ]
        ), done.out


def test_pulumi_hides_the_same_in_what_it_says(stack: Sandbox, real: Path) -> None:
    """In the inputs that `preview --json` lists, it hides none: there ours is stricter."""
    stack.run("config", "rm", "key")  # of several lines: those Pulumi prints
    program = (stack.project / "__main__.py").read_text()
    (stack.project / "__main__.py").write_text(program.replace('config.get("key")', '"no"'))
    own = stack.run("preview", "--json")
    stack.pulumi = real
    theirs = with_plugin(stack).run("preview", "--json")
    said = [json.loads(done.out)["diagnostics"] for done in (own, theirs)]
    assert said[0] == said[1]
    assert json.dumps(said).count("[secret]") > 10
    assert readable(own.out) == []
