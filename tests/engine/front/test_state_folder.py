"""Checkpoints, locks and history on disk, and what happens when the disk says no."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from engine.backend import Backend, StackRef
from engine.errors import CommandError
from engine.journal import Entry, Journal
from engine.printing import iso_milliseconds, parse_time
from engine.secrets import PassphraseCrypter
from engine.state import Resource
from tests.engine.front.displays import with_plugin
from tests.engine.front.scenarios import Sandbox, real_pulumi

REF = StackRef("small", "dev")
STACK_URN = "urn:pulumi:dev::small::pulumi:pulumi:Stack::small-dev"


def lock_of(sandbox: Sandbox, **content: Any) -> Path:
    path = sandbox.state / "locks/organization/small/dev/0b0a.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {"pid": os.getpid(), "username": "somebody", "hostname": socket.gethostname(),
               "timestamp": "2026-01-02T03:04:05.678+01:00"}  # fmt: skip
    path.write_text(json.dumps(written | content))
    return path


def test_second_operation_is_refused(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    lock = lock_of(ours)
    before = (ours.state / "stacks/small/dev.json").read_bytes()
    for argv in (["up", "-yf"], ["destroy", "-yf"], ["refresh", "-yf"], ["stack", "rm", "--yes"]):
        outcome = ours.run(*argv)
        assert outcome.code == 1
        assert outcome.err == (
            "error: the stack is currently locked by 1 lock(s). Either wait for the other "
            "process(es) to end or delete the lock file with `pulumi cancel`.\n"
            f"  file://{lock}: created by somebody@{socket.gethostname()} (pid {os.getpid()}) "
            "at 2026-01-02T03:04:05+01:00\n"
        )
    assert ours.run("preview").code == 0, "a preview changes nothing and needs no lock"
    assert (ours.state / "stacks/small/dev.json").read_bytes() == before
    assert list(lock.parent.iterdir()) == [lock]


def test_pulumi_refuses_with_the_same_text(ours: Sandbox, real: Path) -> None:
    ours.run("stack", "init", "dev")
    lock_of(ours)
    own = ours.run("up", "-yf")
    ours.pulumi = real
    assert ours.run("up", "-yf").err.replace("?no_tmp_dir=true", "") == own.err


def test_stale_lock_is_explained_and_cancel_removes_it(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    gone = subprocess.Popen(["true"])
    gone.wait()
    lock = lock_of(ours, pid=gone.pid)
    assert "that process is gone" in ours.run("up", "-yf").err
    assert ours.run("cancel").code == 0
    assert not lock.exists()
    assert ours.run("up", "-yf").code == 0


def test_pulumi_is_refused_while_ours_runs(ours: Sandbox) -> None:
    (ours.project / "__main__.py").write_text("import time\ntime.sleep(600)\n")
    ours.run("stack", "init", "dev")
    with subprocess.Popen(
        [ours.pulumi, "up", "-yf"], cwd=ours.project, env=ours.env, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as running:  # fmt: skip
        try:
            locks = ours.state / "locks/organization/small/dev"
            deadline = time.monotonic() + 240
            while not (locks.exists() and list(locks.glob("*.json"))):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for pulumi in filter(None, (ours.pulumi, real_pulumi())):
                outcome = Sandbox(ours.root, pulumi).run("up", "-yf")
                assert (outcome.code, f"(pid {running.pid})" in outcome.err) == (1, True)
        finally:
            os.killpg(running.pid, signal.SIGKILL)


def test_what_an_update_leaves(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    outcome = ours.run("up", "-yf", "--message", "why")
    assert outcome.code == 0, outcome.err
    files = sorted(str(p.relative_to(ours.state)) for p in ours.state.rglob("*") if p.is_file())
    kinds = [".".join(f.replace("dev-", "dev.").split(".")[2:]) for f in files if "history" in f]
    assert kinds == ["checkpoint.json", "history.json"]
    assert [f for f in files if not f.startswith(("history", "backups"))] == [
        "meta.yaml", "stacks/small/dev.json", "stacks/small/dev.json.bak",
    ]  # fmt: skip
    document = json.loads((ours.state / "stacks/small/dev.json").read_text())
    assert document["version"] == 3
    assert document["checkpoint"]["stack"] == "organization/small/dev"
    latest = document["checkpoint"]["latest"]
    assert latest["resources"][0]["urn"] == STACK_URN
    (history,) = json.loads(ours.run("stack", "history", "--json").out)
    assert (history["message"], history["result"], history["resourceChanges"]) == (
        "why", "succeeded", {"create": 3},
    )  # fmt: skip
    assert "s3cret" not in "".join(p.read_text() for p in ours.state.rglob("*") if p.is_file())
    assert all(p.stat().st_mode & 0o77 == 0 for p in ours.state.rglob("*.json"))


def test_pulumi_goes_on_from_our_state(ours: Sandbox, real: Path) -> None:
    ours.run("stack", "init", "dev")
    assert ours.run("up", "-yf").code == 0
    ours.pulumi = real
    for argv in (["preview", "--expect-no-changes"], ["up", "-yf", "--expect-no-changes"]):
        outcome = ours.run(*argv)
        assert outcome.code == 0, outcome.out + outcome.err
    assert "s3cret" in ours.run("stack", "output", "hidden", "--show-secrets").out
    assert len(json.loads(ours.run("stack", "history", "--json", "--show-secrets").out)) == 2


def test_export_and_import(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    assert ours.run("up", "-yf").code == 0
    exported = ours.run("stack", "export").out
    assert "s3cret" not in exported
    plain = ours.run("stack", "export", "--show-secrets").out
    assert '"plaintext": "\\"s3cret\\""' in plain
    for text in (exported, plain):
        assert ours.run("stack", "import", stdin=text).out == "Import complete.\n"
        again = json.loads(ours.run("stack", "export", "--show-secrets").out)
        assert again["deployment"]["resources"] == json.loads(plain)["deployment"]["resources"]
        assert "s3cret" not in (ours.state / "stacks/small/dev.json").read_text()
    assert ours.run("preview", "--expect-no-changes").code == 0
    other = exported.replace(":dev::", ":other::")
    outcome = ours.run("stack", "import", stdin=other)
    assert (outcome.code, "from a different stack (other != dev)" in outcome.err) == (1, True)
    for text, said in (("{", "could not deserialize"), ("[]", "could not deserialize"),
                       ('{"version": 4, "deployment": {}}', "version 4"),
                       ('{"deployment": {}}', "too old")):  # fmt: skip
        outcome = ours.run("stack", "import", stdin=text)
        assert outcome.code in (1, 2)
        assert said in outcome.err


def initialised(sandbox: Sandbox) -> Backend:
    sandbox.run("stack", "init", "dev")
    return Backend(sandbox.env["PULUMI_BACKEND_URL"])


class Plain:
    def encrypt(self, plaintext: str) -> str:
        return plaintext

    def decrypt(self, ciphertext: str) -> str:
        return ciphertext


def leave_journal(backend: Backend, base: str) -> Path:
    """What an engine killed in the middle of an `up` leaves: one step done, one under way."""
    path = backend.journal(REF)
    journal = Journal(path, Plain(), base)
    done = Resource(urn=STACK_URN, type="pulumi:pulumi:Stack", custom=False)
    under_way = Resource(urn=f"{STACK_URN[:-9]}x", type="a:b:C")
    journal.add(Entry(0, new=done, finished=True))
    journal.add(Entry(1, operation="creating", pending=under_way))
    asyncio.run(journal.sync())
    journal.close()
    return path


def test_interrupted_operation_is_taken_up(ours: Sandbox) -> None:
    backend = initialised(ours)
    journal = leave_journal(backend, backend.load(REF).digest)
    found = backend.load(REF)
    assert found.recovered
    assert found.deployment is not None
    assert [r["urn"] for r in found.deployment["resources"]] == [STACK_URN]
    assert [o["type"] for o in found.deployment["pending_operations"]] == ["creating"]
    assert json.loads(ours.run("stack", "export").out)["deployment"]["pending_operations"]
    assert journal.exists(), "reading does not take the journal away"
    outcome = ours.run("up", "-yf")
    assert outcome.code == 0
    assert "1 pending operation" in outcome.out
    assert not journal.exists()
    # Left alone by a refresh that is not told otherwise, and by one that is refused.
    for flags, code, left in (
        ((), 0, True),
        (("--skip-pending-creates",), 2, True),
        (("--clear-pending-creates",), 0, False),
    ):
        assert ours.run("refresh", "-yf", *flags).code == code
        assert ("pending_operations" in ours.run("stack", "export").out) == left


def test_journal_of_another_checkpoint_is_ignored(ours: Sandbox) -> None:
    backend = initialised(ours)
    leave_journal(backend, "0" * 64)
    assert not backend.load(REF).recovered


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a checkpoint"),
        ('{"version": 3, "checkpoint": {"stack": "organiz', "is not a checkpoint"),
        ('{"version": 3, "checkpoint": {"latest": []}}', "is not a checkpoint"),
        ('{"version": 9, "checkpoint": {"latest": {"resources": []}}}', "has version 9"),
        ('{"version": 3, "checkpoint": {"latest": {"resources": [{"id": "x"}]}}}', "checkpoint"),
    ],
)
def test_checkpoint_that_is_none(text: str, said: str, ours: Sandbox) -> None:
    initialised(ours)
    path = ours.state / "stacks/small/dev.json"
    path.write_text(text)
    for argv in (["up", "-yf"], ["preview"], ["destroy", "-yf"]):
        outcome = ours.run(*argv)
        assert outcome.code == 1
        assert said in outcome.err
        assert "Traceback" not in outcome.err
    assert path.read_text() == text, "nothing is written over it"


def test_saving_keeps_the_one_before_and_ends_the_journal(ours: Sandbox) -> None:
    backend = initialised(ours)
    journal = leave_journal(backend, backend.load(REF).digest)
    path = ours.state / "stacks/small/dev.json"
    before = path.read_bytes()
    (path.parent / "dev.json.attrs").write_text("Pulumi's note")
    digest = backend.save(REF, {"resources": []})
    assert digest == backend.load(REF).digest
    assert (path.parent / "dev.json.bak").read_bytes() == before
    assert not journal.exists()
    assert not (path.parent / "dev.json.attrs").exists()
    assert sorted(p.name for p in path.parent.iterdir()) == ["dev.json", "dev.json.bak"]


def test_full_disk(ours: Sandbox) -> None:
    """A file size limit stands for a full disk: writes fail the same way."""
    initialised(ours)
    path = ours.state / "stacks/small/dev.json"
    before = path.read_bytes()
    limited = ours.root / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -f 1\nexec "{ours.pulumi}" "$@"\n')
    limited.chmod(0o755)
    text = json.dumps({"version": 3, "deployment": {"resources": [
        {"urn": STACK_URN, "custom": False, "type": "pulumi:pulumi:Stack",
         "outputs": {"big": "x" * 5000}}]}})  # fmt: skip
    sandbox = Sandbox(ours.root, limited)
    outcome = sandbox.run("stack", "import", stdin=text)
    assert outcome.code == 1
    assert f"cannot write {path}" in outcome.err
    assert "file too large" in outcome.err
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))
    assert not list((ours.state / "locks").rglob("*.json"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root")
def test_read_only_state_folder(ours: Sandbox) -> None:
    initialised(ours)
    state = ours.root / "state"
    read_only = ours.root / "read-only"
    read_only.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind "{state}" "{state}" && '
        f'mount -o remount,ro,bind "{state}" && exec "$0" "$@"\' "{ours.pulumi}" "$@"\n'
    )
    read_only.chmod(0o755)
    sandbox = Sandbox(ours.root, read_only)
    if sandbox.run("version").code:
        pytest.skip("no mount namespaces here")
    outcome = sandbox.run("up", "-yf")
    assert outcome.code == 1
    assert "read-only file system" in outcome.err.lower()
    assert "Traceback" not in outcome.err
    assert sandbox.run("stack", "output").code == 0


def test_folder_that_is_not_there_or_of_another_layout(ours: Sandbox) -> None:
    outcome = ours.run("stack", "ls", PULUMI_BACKEND_URL="file:///nowhere/at/all")
    assert outcome.err == (
        'error: unable to open state directory "file:///nowhere/at/all": '
        "stat /nowhere/at/all: no such file or directory\n"
    )
    initialised(ours)
    (ours.state / "meta.yaml").write_text("version: 2\n")
    assert "not of version 1" in ours.run("stack", "ls").err


def test_compressed_checkpoint_is_refused_not_overlooked(ours: Sandbox) -> None:
    initialised(ours)
    path = ours.state / "stacks/small/dev.json"
    path.rename(f"{path}.gz")
    for argv in (["up", "-yf"], ["stack", "select", "dev"], ["stack", "init", "dev"]):
        outcome = ours.run(*argv)
        assert (outcome.code, "dev.json.gz is not supported" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05.678901234+01:00", "2026-01-02T03:04:05+01:00",
             "2026-01-02T02:04:05Z"],
)  # fmt: skip
def test_times_as_go_writes_them(text: str) -> None:
    assert iso_milliseconds(parse_time(text)).startswith("2026-01-02T02:04:05.")


@pytest.mark.parametrize("name", ["a/b", "x/y/z", "a/b/c/d", "", "bad name", "a:b"])
def test_bad_stack_names(name: str) -> None:
    with pytest.raises(CommandError):
        StackRef.parse(name, "small")


def test_checkpoint_of_version_4_is_refused_by_name(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    assert ours.run("up", "-yf").code == 0
    path = ours.state / "stacks/small/dev.json"
    document = json.loads(path.read_text())
    document["checkpoint"]["latest"]["resources"][0]["taint"] = True
    path.write_text(json.dumps(document | {"version": 4, "features": ["taint"]}))
    before = path.read_bytes()
    for argv in (["preview"], ["up", "-yf"], ["stack", "export"], ["stack"]):
        outcome = ours.run(*argv)
        assert (outcome.code, "checkpoint of version 4 (features: taint)" in outcome.err) == (
            2, True), outcome.err  # fmt: skip
    assert path.read_bytes() == before


NESTED = """\
import pulumi
from pulumi_command import local
secret = pulumi.Output.secret
inner = {"A": secret("hush-hush"), "B": "plain", "C": secret("[1, {}]")}
command = local.Command("c", create="echo TEXT", environment=secret(inner), triggers=[
    secret([secret(1), {"deep": secret(None), "list": [secret("<&>"), secret(2**63 + 2**30)]}])])
pulumi.export("nested", secret({"k": secret([secret("hush-hush"), secret({"x": command.stdout})])}))
pulumi.export("plain", {"k": secret("hush-hush"), "n": [secret(secret(True))]})
"""


def test_secrets_within_secrets_go_from_one_engine_to_the_other(ours: Sandbox, real: Path) -> None:
    """What counts is the file, as each engine writes it and the other reads it."""
    with_plugin(Sandbox(ours.root, real))
    own, path = ours.pulumi, ours.state / "stacks/small/dev.json"
    forms = {}
    for first, second in ((real, own), (own, real)):
        shutil.rmtree(ours.state, ignore_errors=True)
        (ours.project / "Pulumi.dev.yaml").unlink(missing_ok=True)
        (ours.project / "__main__.py").write_text(NESTED)
        ours.pulumi = first
        assert ours.run("stack", "init", "dev").code == 0
        assert ours.run("up", "-yf").code == 0
        forms[first] = opened(path)
        ours.pulumi = second
        assert ours.run("preview", "--expect-no-changes").code == 0
        (ours.project / "__main__.py").write_text(NESTED.replace("TEXT", "TEXT 2"))
        assert ours.run("up", "-yf").code == 0
        ours.pulumi = first
        done = ours.run("preview", "--expect-no-changes")
        assert done.code == 0, done.out + done.err
        assert "hush" not in path.read_text()
    assert forms[real] == forms[own]


def opened(path: Path) -> list[str]:
    """The plain texts of a checkpoint's secrets, those within them as they stand there."""
    deployment = json.loads(path.read_text())["checkpoint"]["latest"]
    crypter = PassphraseCrypter(deployment["secrets_providers"]["state"]["salt"], "correct horse")
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict) and "ciphertext" in value:
            found.append(json.loads(crypter.decrypt(value["ciphertext"])))
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, dict | list):
                look(inner)

    look(deployment["resources"])
    return sorted(map(json.dumps, found))
