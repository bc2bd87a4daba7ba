"""Each verb's exit code and text against what the real Pulumi printed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.cli import ALIASES, COMMANDS, GLOBAL, LACKING, flags
from tests.engine.front.scenarios import RECORDED, SCENARIOS, Sandbox, embedded_pulumi, play


def recorded(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RECORDED / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_as_recorded(name: str, tmp_path: Path) -> None:
    for expected, found in zip(
        recorded(name), play(name, embedded_pulumi(tmp_path), tmp_path), strict=True
    ):
        assert found == expected


@pytest.mark.parametrize("name", SCENARIOS)
def test_recorded_is_what_pulumi_does(name: str, real: Path, tmp_path: Path) -> None:
    for expected, found in zip(recorded(name), play(name, real, tmp_path), strict=True):
        assert found == expected


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["watch"], "`pulumi watch`"),
        (["import"], "`pulumi import`"),
        (["stack", "tag", "ls"], "`pulumi stack tag`"),
        (["config", "env", "ls"], "`pulumi config env`"),
        (["login"], "`pulumi login`"),
        (["up", "--yes", "--run-program"], "--run-program"),
        (["up", "--yes", "--client=127.0.0.1:1"], "--client"),
        (["up", "--yes", "--policy-pack", "x"], "--policy-pack"),
        (["up", "--yes", "--plan", "x"], "--plan"),
        (["--stack", "dev", "state", "taint"], "`pulumi state`"),
        (["preview", "--save-plan", "x"], "--save-plan"),
        (["destroy", "--yes", "--exclude-protected"], "--exclude-protected"),
        (["destroy", "-x"], "-x"),
        (["up", "some-template"], "some-template"),
        (["stack", "history"], "`pulumi stack history` without --json"),
        (["stack", "select", "--create", "x"], "--create"),
        (["stack", "--show-ids"], "--show-ids"),
        (["preview", "--show-sames"], "--show-sames"),
        (["preview", "--color", "always"], "--color"),
        (["stack", "history", "events"], "`pulumi stack history events`"),
        (["config", "refresh"], "`pulumi config refresh` without --force"),
        (["up", "--yes", "--json"], "--json"),
        (["stack", "init", "s", "--secrets-provider", "awskms://x"], "awskms"),
    ],
)
def test_what_it_lacks_is_refused_by_name(argv: list[str], named: str, ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    outcome = ours.run(*argv)
    assert outcome.code == 2
    assert named in outcome.err
    assert "not supported by the slurmstack embedded engine" in outcome.err
    assert not list(ours.state.glob("history/*/*/*"))


def test_a_flag_in_pulumis_environment_is_not_passed_over(ours: Sandbox) -> None:
    """Pulumi reads each flag from a variable, too. Rules that nobody looked at are not kept."""
    ours.run("stack", "init", "dev")
    for words in (["preview"], ["up", "--yes"]):
        outcome = ours.run(*words, PULUMI_OPTION_POLICY_PACK="policy")
        assert outcome.code == 2
        assert "PULUMI_OPTION_POLICY_PACK is not supported by the slurmstack" in outcome.err
    assert not list(ours.state.glob("history/*/*/*"))
    # As with Pulumi, it says nothing to verbs that do not have the flag.
    assert ours.run("stack", "ls", PULUMI_OPTION_POLICY_PACK="policy").code == 0


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_flag_of_pulumi_is_had_or_refused_by_name(verb: str, real: Path) -> None:
    """What neither has is an unknown flag: so the list of what is lacking has to be whole."""
    help_text = subprocess.run(
        [str(real), *verb.split(), "--help"], capture_output=True, text=True, check=True
    ).stdout
    listed = re.findall(r"^ +(?:(-\w), )?(--[\w-]+)", help_text, re.MULTILINE)
    known = flags(f"{GLOBAL} {COMMANDS[verb][1]}")
    assert {name for pair in listed for name in pair if name} - known.keys() == set()
    verbs = re.findall(r"^  ([a-z][\w-]+) {2,}\S", help_text.partition("\nFlags:")[0], re.MULTILINE)
    spelt = {ALIASES.get(f"{verb} {v}".strip(), f"{verb} {v}".strip()) for v in verbs}
    lacking = {f"{verb} {v}".strip() for v in LACKING.get(verb, "").split()}
    assert spelt - COMMANDS.keys() - lacking == set()


@pytest.mark.parametrize(
    ("addition", "named"),
    [("plugins: {providers: [{name: x, path: y}]}", "'plugins'"), ("config: {a: 1}", "'config'")],
)
def test_project_file_with_more(addition: str, named: str, ours: Sandbox) -> None:
    path = ours.project / "Pulumi.yaml"
    path.write_text(path.read_text() + addition + "\n")
    outcome = ours.run("stack", "ls")
    assert (outcome.code, named in outcome.err) == (2, True)


def test_other_runtime_and_other_backend(ours: Sandbox) -> None:
    assert "s3://" in ours.run("stack", "ls", PULUMI_BACKEND_URL="s3://bucket").err
    (ours.project / "Pulumi.yaml").write_text("name: small\nruntime: nodejs\n")
    outcome = ours.run("stack", "ls")
    assert (outcome.code, "nodejs" in outcome.err) == (2, True)


def test_about_says_which_engine_runs(ours: Sandbox) -> None:
    assert "slurmstack embedded engine" in ours.run("about").out.splitlines()[0]


def test_stack_from_environment_and_directory_from_flag(ours: Sandbox, tmp_path: Path) -> None:
    ours.run("stack", "init", "one")
    ours.run("stack", "init", "two")
    assert ours.run("stack", "--show-name").out == "two\n"
    assert ours.run("stack", "--show-name", PULUMI_STACK="one").out == "one\n"
    elsewhere = ours.run("-C", str(tmp_path), "stack", "--show-name")
    assert (elsewhere.code, "no Pulumi.yaml" in elsewhere.err) == (1, True)
    assert ours.run("stack", "--show-name", "--cwd", str(ours.project)).out == "two\n"


def test_environment_variables_that_stand_for_flags(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    outcome = ours.run("refresh", PULUMI_RUN_PROGRAM="true", PULUMI_SKIP_CONFIRMATIONS="1")
    assert (outcome.code, "--run-program" in outcome.err) == (2, True)
    (ours.project / "__main__.py").write_text(
        "from pulumi_command import local\n"
        "local.Command('fails', create='exit 1')\n"
        "local.Command('works', create='true')\n"
    )
    environment = {"PULUMI_CONTINUE_ON_ERROR": "true", "PULUMI_PARALLEL": "1"}
    outcome = ours.run("up", "--skip-preview", **environment)
    assert outcome.code == 1
    assert "command:local:Command works created" in outcome.out
