"""One operation at a time, and what a killed one leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from operations import operation as operations
from operations.operation import Running, Waits, operation, unfinished
from operations.pulumi_lock import locks, refuse_if_locked
from operations.refused import Refused

PROJECT = Path(__file__).parents[3]
HOLDS = """
import sys
from pathlib import Path
from operations.operation import operation
with operation(Path(sys.argv[1]), "node exclude cn02", "FINISH", "UNDO") as running:
    running.did("drained cn02")
    print("ready", flush=True)
    sys.stdin.read()
"""


def held(place: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(place)],
        cwd=PROJECT,
        env={**os.environ, "SUDO_USER": "anna"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_second_hears_of_the_first_and_a_killed_one_is_gone_on_with(tmp_path: Path) -> None:
    first = held(tmp_path)
    with pytest.raises(Refused) as refused, operation(tmp_path, "node add cn09", ""):
        pass
    who = f"node exclude cn02 (by anna@{socket.gethostname()}, pid {first.pid}, since 20"
    assert who in str(refused.value)
    assert "is being done" in str(refused.value)
    assert operations.running(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()

    assert not operations.running(tmp_path)
    with pytest.raises(Refused) as refused, operation(tmp_path, "node add cn09", ""):
        pass
    assert f"unfinished: {who}" in str(refused.value)
    assert "so far: drained cn02; finish it with `FINISH`, or take it back with `UNDO`" in str(
        refused.value
    )
    with operation(tmp_path, "node exclude cn02", "FINISH") as again:
        assert again.stands == ["drained cn02"]
        again.did("stopped slurmd")
    assert unfinished(tmp_path) is None
    (line,) = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["deeds"] == ["drained cn02", "stopped slurmd"]


def test_what_takes_it_back_may_begin(tmp_path: Path) -> None:
    first = held(tmp_path)
    first.kill()
    first.wait()
    ends = ["node exclude cn02"]
    with operation(tmp_path, "node return cn02", "", ends=ends):
        pass
    assert unfinished(tmp_path) is None


def test_a_failure_leaves_what_stands_and_a_refusal_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused), operation(tmp_path, "a", ""):
        raise Refused("no")
    assert unfinished(tmp_path) is None

    def interrupted() -> None:
        with operation(tmp_path, "a", "") as running:
            running.did("one")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    left = unfinished(tmp_path)
    assert left is not None
    assert left.stands == ["one"]
    with pytest.raises(Waits), operation(tmp_path, "a", "") as running:
        raise Waits("jobs run", running.stands)
    assert unfinished(tmp_path) is None


def results(place: Path) -> list[str]:
    lines = (place / "history.jsonl").read_text().splitlines()
    return [json.loads(line)["result"] for line in lines]


def test_how_it_ended_is_in_the_history(tmp_path: Path) -> None:
    place = tmp_path / "not/made/yet"
    with operation(place, "a", "FINISH") as running:
        begun = unfinished(place)
        # Before its first step others see whose it is.
        assert begun is not None
        assert (begun.what, begun.stands, begun.resumed) == ("a", [], False)
        running.did("one")
        running.did("one")

    def ends(error: BaseException, *steps: str) -> None:
        with operation(place, "b", "FINISH") as running:
            assert running.resumed == (left is not None)
            for step in steps:
                running.did(step)
            raise error

    left = None
    with pytest.raises(Refused):
        ends(Refused("cn02 is not deployed"))
    with pytest.raises(Refused):
        ends(Refused("cn02 does not answer"), "two")
    left = unfinished(place)
    assert left is not None
    assert left.left.endswith("so far: two; finish it with `FINISH`")
    with pytest.raises(KeyboardInterrupt):
        ends(KeyboardInterrupt())
    # The one of which nothing stands is not worth a line.
    assert results(place) == ["done", "stopped: cn02 does not answer", "stopped: KeyboardInterrupt"]
    assert json.loads((place / "history.jsonl").read_text().splitlines()[0])["deeds"] == ["one"]


def test_what_cannot_be_kept_is_not_begun(tmp_path: Path) -> None:
    """A place of the wrong kind stands for a full disk."""
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="nothing was changed"), operation(tmp_path / "file", "a", ""):
        pytest.fail("it began")
    place = tmp_path / "stack"
    (place / "operation.json").mkdir(parents=True)
    with pytest.raises(Refused, match="what stands cannot be kept"), operation(place, "a", ""):
        pytest.fail("it began")
    assert not (place / "operation.new").exists()
    (place / "operation.json").rmdir()
    (place / "history.jsonl").mkdir()
    with pytest.raises(Refused, match="it is not in the history"), operation(place, "a", "") as it:
        it.did("one")
    assert unfinished(place) is not None
    # What stopped it is told first.
    both = "cn01 does not answer; .*it is not in the history"
    with pytest.raises(Refused, match=both), operation(place, "a", "") as it:
        ends(it)


def ends(running: Running) -> None:
    """An operation that is stopped by a node."""
    running.did("one")
    raise Refused("cn01 does not answer")


def lock(tmp_path: Path, **more: object) -> None:
    (tmp_path / "Pulumi.yaml").write_text(
        f"name: slurmstack\nruntime: python\nbackend:\n  url: file://{tmp_path}/state\n"
    )
    folder = tmp_path / "state/.pulumi/locks/organization/slurmstack/prod"
    folder.mkdir(parents=True, exist_ok=True)
    said = {
        "pid": 1,
        "username": "anna",
        "hostname": socket.gethostname(),
        "timestamp": "T",
        **more,
    }
    (folder / "1.json").write_text(json.dumps(said))


def test_pulumis_lock_is_told_by_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    lock(tmp_path)
    with pytest.raises(Refused, match=r"locked by anna@\S+ \(pid 1\) since T: wait for its end"):
        refuse_if_locked("prod", tmp_path)
    refuse_if_locked("other", tmp_path)


def test_a_stale_lock_is_told_with_the_command_that_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    gone = subprocess.Popen(["true"])
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    lock(tmp_path, pid=gone.pid)
    with pytest.raises(Refused, match="gone: clear it with `pulumi cancel --stack prod`"):
        refuse_if_locked("prod", tmp_path)  # nobody has waited for it yet
    gone.wait()
    with pytest.raises(Refused, match="gone: clear it with `pulumi cancel --stack prod`"):
        refuse_if_locked("prod", tmp_path)


def test_a_process_that_started_after_the_lock_is_not_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admin host was rebooted: another process has the number."""
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    now = datetime.now(UTC)
    lock(tmp_path, pid=os.getpid(), timestamp=now.isoformat())
    (held_by,) = locks("prod", tmp_path)
    assert not held_by.stale
    lock(tmp_path, pid=os.getpid(), timestamp=(now - timedelta(days=1)).isoformat())
    (held_by,) = locks("prod", tmp_path)
    assert held_by.stale


def test_a_process_of_any_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    program = tmp_path / "a) Z 1"
    program.write_text("#!/bin/sh\necho ready\nread -r end\n")
    program.chmod(0o755)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        lock(tmp_path, pid=process.pid, timestamp=datetime.now(UTC).isoformat())
        (held_by,) = locks("prod", tmp_path)
        assert not held_by.stale


def test_a_lock_that_cannot_be_read_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi refuses for it as well: its file is there."""
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    lock(tmp_path)
    (tmp_path / "state/.pulumi/locks/organization/slurmstack/prod/1.json").write_text("{")
    with pytest.raises(Refused, match="locked by somebody@a host not known"):
        refuse_if_locked("prod", tmp_path)


def test_the_backend_is_the_one_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(tmp_path)
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/other")
    assert locks("prod", tmp_path) == []
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/state")
    assert len(locks("prod", tmp_path)) == 1
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    assert locks("prod", tmp_path) == []


def test_of_another_host_nobody_here_can_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    lock(tmp_path, hostname="admin02", pid=2**22)
    (held_by,) = locks("prod", tmp_path)
    assert not held_by.stale
    assert "anna@admin02" in held_by.told("prod")
