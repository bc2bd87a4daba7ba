"""Each file in `cases/` is a story: what a machine holds, bundles, and what must come of them.

After every successful `apply` the same bundle is applied again, and that run must answer
`changed: false`, call nothing that changes anything, and touch no file.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.unit.remote.machine import Machine, Run

pytestmark = pytest.mark.slow

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
HEAD = "slurmstack-bundle 1\nnode cn01\nrole {role}\n"


def whole(text: str, role: str) -> str:
    """Cases leave out the first lines and the last, unless they are about them."""
    return text if text.startswith("slurmstack") else f"{HEAD.format(role=role)}{text}end\n"


def look(machine: Machine, expected: dict[str, str | None]) -> None:
    for path, content in expected.items():
        target = machine.path(path)
        if content is None:
            assert not target.exists(), f"{path} is still there"
            assert not target.is_symlink(), f"{path} is still there"
        elif content.startswith("-> "):
            assert str(target.readlink()) == content.removeprefix("-> "), path
        elif content.startswith("mode "):
            assert f"{target.stat().st_mode & 0o7777:04o}" == content.removeprefix("mode "), path
        else:
            assert target.read_bytes().decode() == content, path


def judge(run: Run, machine: Machine, expected: dict[str, Any]) -> None:
    calls = machine.take_calls()
    if "error" in expected:
        assert run.error == expected["error"]
    else:
        answer = run.answer.model_dump(mode="json")
        answer["files"] = {
            path: file["changed"] for path, file in answer["files"].items() if file["changed"]
        }
        for key in ("changed", "actions", "facts", "packages", "units", "commands"):
            if key in expected:
                assert answer[key] == expected[key], (key, run.stderr)
    if "calls" in expected:
        assert calls == expected["calls"], run.stderr
    for text in expected.get("stderr", ()):
        assert text in run.stderr
    for text in expected.get("not in stderr", ()):
        assert text not in run.stderr
    look(machine, expected.get("files", {}))
    assert machine.leftovers() == []


def play(machine: Machine, case: dict[str, Any]) -> None:
    machine.system(case.get("system", {}))
    for path, content in case.get("before", {}).items():
        if path.endswith("/"):
            machine.path(path).mkdir(parents=True)
        else:
            machine.write(path, content)
    bundle = ""
    for step in case["steps"]:
        role = step.get("role", "demo")
        if "change" in step:
            for path, content in step["change"].get("files", {}).items():
                machine.write(path, content)
            machine.system({**machine.state, **step["change"].get("system", {})})
            for path in step["change"].get("delete", ()):
                machine.path(path).unlink()
        elif "apply" in step:
            bundle = whole(step["apply"], role) if step["apply"] != "same" else bundle
            judge(machine.apply(bundle), machine, step["expect"])
            if "error" not in step["expect"]:
                before = machine.tree()
                quiet = {"changed": False, "actions": [], "calls": [], "commands": []}
                judge(machine.apply(bundle), machine, quiet)
                assert machine.tree() == before
        else:
            bundle = whole(step["remove"], role) if step["remove"] != "same" else bundle
            judge(machine.remove(bundle), machine, step["expect"])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, machine: Machine) -> None:
    case = YAML(typ="safe").load(path)
    if case.get("needs") == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    play(machine, case)


def test_there_are_cases() -> None:
    assert len(CASES) > 20
