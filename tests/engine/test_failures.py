"""Failures in the middle, interruptions, bad programs, and what is refused by name."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.api import Cancel
from engine.errors import EngineError
from engine.journal import recover
from tests.engine.conftest import Reversible, SshServer, Stack, local, remote


async def test_a_failure_lets_running_steps_end_and_starts_no_more(
    stack: Stack, server: SshServer
) -> None:
    server.before = lambda command: (
        asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_until_two(server), server.loop))
        if "fail" in command
        else None
    )
    stack.config["resources"] = [
        remote("slow", "sleep 0.7; echo slow"),
        remote("bad", "echo fail; exit 1"),
        remote("after", "echo after", depends_on=["slow"]),
        remote("old-style", "echo dependent", depends_on=["bad"]),
    ]
    done = await stack.up()
    assert done.result.result == "failed"
    assert sorted(stack.resources("Command")) == ["slow"]
    assert "pending_operations" not in (stack.document or {})
    assert done.failures[-1] == "update failed\n"
    assert [c for c in server.commands if "after" in c or "dependent" in c] == []
    server.before = None
    stack.config["resources"][1] = remote("bad", "echo good")
    again = await stack.up()
    assert sorted(again.steps) == [("create", "after"), ("create", "bad"), ("create", "old-style")]


async def _until_two(server: SshServer) -> None:
    async with asyncio.timeout(10):
        while server.running < 2:
            await asyncio.sleep(0.01)


async def test_a_failed_update_keeps_the_old_state(stack: Stack) -> None:
    stack.config["resources"] = [local("a")]
    stack.config["exports"] = {"out": "${a.stdout}"}
    await stack.up()
    before = stack.resources()
    stack.config["resources"] = [local("a", "exit 4")]
    done = await stack.up()
    failed = [e["resOpFailedEvent"] for e in done.events if "resOpFailedEvent" in e]
    assert failed[0]["status"] == 2
    assert stack.resources()["a"] == before["a"]
    assert stack.resources()["graph-test"]["outputs"] == {"out": "a"}
    assert done.events[-2]["summaryEvent"]["maybeCorrupt"] is True


async def test_continue_on_error_goes_round_what_failed(stack: Stack) -> None:
    stack.config["resources"] = [
        local("bad", "exit 1"),
        local("dependent", depends_on=["bad"]),
        local("other"),
    ]
    done = await stack.up(continue_on_error=True)
    assert done.result.result == "failed"
    assert sorted(stack.resources("Command")) == ["other"]


async def test_a_failed_delete_keeps_what_it_depends_on(stack: Stack) -> None:
    stack.config["resources"] = [
        local("base", delete="true"),
        local("bad", delete="exit 5", depends_on=["base"]),
        local("other", delete="true"),
    ]
    await stack.up()
    done = await stack.destroy(continue_on_error=True)
    assert done.result.result == "failed"
    assert sorted(stack.resources("Command")) == ["bad", "base"]


async def test_cancel_once_finishes_what_runs(stack: Stack, server: SshServer) -> None:
    stack.cancel = Cancel()
    loop = asyncio.get_running_loop()
    server.before = lambda _: loop.call_soon_threadsafe(stack.cancel.set) and None  # type: ignore[union-attr]
    stack.config["resources"] = [
        remote("first", "sleep 0.5; echo first"),
        remote("second", depends_on=["first"]),
    ]
    done = await stack.up()
    assert done.result.result == "canceled"
    assert sorted(stack.resources("Command")) == ["first"]
    assert stack.resources()["first"]["outputs"]["stdout"] == "first"
    assert done.failures == ["update canceled\n"]


async def test_cancel_twice_stops_and_leaves_the_step_pending(
    stack: Stack, server: SshServer
) -> None:
    cancel = stack.cancel = Cancel()
    loop = asyncio.get_running_loop()

    def twice(_: str) -> None:
        loop.call_soon_threadsafe(cancel.set)
        loop.call_soon_threadsafe(cancel.set)

    server.before = twice
    stack.config["resources"] = [remote("slow", "sleep 60")]
    done = await asyncio.wait_for(stack.up(), 30)
    assert done.result.result == "canceled"
    pending = (stack.document or {})["pending_operations"]
    assert [(o["type"], o["resource"]["urn"].rsplit("::", 1)[1]) for o in pending] == [
        ("creating", "slow")
    ]
    server.before = None
    stack.cancel = None
    stack.config["resources"] = [remote("slow")]
    again = await stack.up()
    assert again.result.result == "succeeded"
    warnings = [e["diagnosticEvent"] for e in again.events if "diagnosticEvent" in e]
    assert any("interrupted while creating" in w["message"] for w in warnings)


KILLED = """
import asyncio, sys
sys.path.insert(0, {root!r})
from tests.engine.conftest import Stack
from pathlib import Path
import json
stack = Stack("graph", Path({folder!r}), json.loads({config!r}))
asyncio.run(stack.up(parallel=4))
"""


async def test_killed_in_the_middle_loses_no_finished_step(
    stack: Stack, server: SshServer, tmp_path: Path
) -> None:
    """What a command's end was told to (the next command) is in the journal."""
    stack.config["resources"] = [
        remote(f"r{i}", f"echo {i}", depends_on=[f"r{i - 1}"] if i else []) for i in range(6)
    ]
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(command: str) -> Any:
        if command == "echo 3":
            loop.call_soon_threadsafe(reached.set)
            return asyncio.sleep(60)
        return None

    server.before = hold
    root = str(Path(__file__).parents[2])
    code = KILLED.format(root=root, folder=str(tmp_path), config=json.dumps(stack.config))
    victim = subprocess.Popen([sys.executable, "-c", code])
    try:
        await asyncio.wait_for(reached.wait(), 30)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
    server.before = None
    assert recover(stack.journal_file, "another checkpoint", {}) is None
    found = recover(stack.journal_file, "base", {"version": 3})
    assert found
    names = [r["urn"].rsplit("::", 1)[1] for r in found["resources"]]
    assert names == ["graph-test", "default_1_2_1", "r0", "r1", "r2"]
    assert [o["resource"]["urn"].rsplit("::", 1)[1] for o in found["pending_operations"]] == ["r3"]
    torn = stack.journal_file.read_bytes()
    stack.journal_file.write_bytes(torn[: len(torn) - 40])
    assert recover(stack.journal_file, "base", {"version": 3})
    stack.document = found
    stack.config["resources"] = stack.config["resources"][:5]
    done = await stack.up()
    assert sorted(done.steps) == [("create", "r3"), ("create", "r4")]


async def test_a_journal_that_cannot_be_written_stops_the_operation(stack: Stack) -> None:
    stack.config["resources"] = [local("a"), local("b", depends_on=["a"])]
    stack.folder = Path("/nonexistent")
    with pytest.raises(FileNotFoundError):
        await stack.up()


async def test_a_command_out_of_time_ends_with_all_that_it_started(
    stack: Stack, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    deaf = f"trap '' TERM; sleep 600 & echo $! > {note}; sleep 600"
    stack.config["resources"] = [local("a", deaf, custom_timeouts={"create": "1s"})]
    done = await stack.up()
    assert "not done within its customTimeouts.create of 1 s" in done.failures[0]
    left = Path(f"/proc/{note.read_text().strip()}/stat")
    assert not left.exists() or left.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def bad(tmp_path: Path) -> Stack:
    return Stack("misbehaving", tmp_path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "ValueError: this went wrong"),
        ("run-error", "a message for the user"),
        ("exit", "an unhandled error occurred: program exited with non-zero exit code: 7"),
        ("die", "an unhandled error occurred: program exited with non-zero exit code: 9"),
        ("twice", "Duplicate resource URN"),
    ],
)
async def test_a_program_that_fails(bad: Stack, how: str, message: str) -> None:
    bad.config = {"how": "nothing"}
    await bad.up()
    bad.config = {"how": how}
    done = await bad.up()
    assert done.result.result == "failed"
    assert message in done.failures[0]
    assert "update failed" not in done.text
    assert "before" in bad.resources()  # a program that fails deletes nothing
    said = [e["diagnosticEvent"] for e in done.events if "diagnosticEvent" in e]
    assert {d["severity"] for d in said if "said on std" in d["message"]} == {"info", "info#err"}


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("invoke", "the function command:local:run"),
        ("transform", "a stack transform"),
        ("get", "reading command:local:Command other"),
        ("asset", "the asset in command:local:Command asset"),
        ("import", "the option import_ of command:local:Command imported"),
    ],
)
async def test_what_this_engine_lacks_is_refused_by_name(bad: Stack, how: str, what: str) -> None:
    bad.config = {"how": how}
    done = await bad.up()
    assert what in done.result.unsupported
    assert done.result.result == "failed"


async def test_an_unknown_type_is_refused_by_name(stack: Stack) -> None:
    stack.config["resources"] = [{"name": "p", "kind": "pet"}]
    done = await stack.up()
    assert "random:index/randomPet:RandomPet" in done.result.unsupported


async def test_a_program_that_hangs_is_ended_by_cancel(bad: Stack) -> None:
    cancel = bad.cancel = Cancel()
    bad.on_event = lambda e: cancel.set() if "said on stdout" in str(e) else None
    bad.config = {"how": "hang"}
    done = await bad.up()
    assert done.result.result == "canceled"
    assert not [p for p in _children() if "language_exec" in p]


def _children() -> list[str]:
    found = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True
    )
    return found.stdout.splitlines()


async def test_a_missing_program_or_interpreter_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no Python program"):
        await Stack("missing", tmp_path).up()


async def test_secrets_are_in_no_event_and_no_checkpoint(stack: Stack) -> None:
    stack.secrets = frozenset({"token", "resources"})
    stack.config |= {
        "token": "s3cret-token",
        "resources": [
            local("a", "cat", stdin="${secret:s3cret-in}", logging="none",
                  additional_secret_outputs=["stdout"]),
            local("b", "echo $A", environment={"A": "${a.stdin}"}, logging="none",
                  additional_secret_outputs=["stdout"]),
            {"name": "p", "kind": "password", "args": {"length": 20}},
        ],
        "exports": {"b": "${b.stdout}", "p": "${p.result}"},
    }  # fmt: skip
    done = await stack.up()
    assert done.result.result == "succeeded"
    found = stack.resources()
    opened = [
        Reversible().decrypt(found[name]["outputs"][key]["ciphertext"]).strip('"')
        for name, key in (("p", "result"), ("b", "stdout"))
    ]
    assert len(opened[0]) == 20
    assert opened[1] == "s3cret-in"
    for secret in [*opened, "s3cret"]:
        assert secret not in done.text
        assert secret not in json.dumps(found)  # whose ciphertext is spelt backwards


async def test_another_version_of_a_provider_is_refused(stack: Stack) -> None:
    stack.config["resources"] = [local("a", version="1.2.1"), local("b", version="1.2.0")]
    done = await stack.up()
    assert "version 1.2.0 of the provider command (1.2.1 is built in)" in done.result.unsupported
    assert "b" not in stack.resources()
