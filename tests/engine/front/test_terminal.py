"""On a terminal: the question before anything is changed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine.front.scenarios import Sandbox

_QUESTION = re.compile(r"\[yes/no\] |by typing `[^`]+`: ")


def converse(sandbox: Sandbox, argv: list[str], answers: list[str]) -> tuple[int, str]:
    """Run on a terminal of its own; answer each question when it is asked."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sandbox.pulumi, *argv], cwd=sandbox.project, stdin=slave, stdout=slave, stderr=slave,
        env=sandbox.env | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50"}, close_fds=True,
    )  # fmt: skip
    os.close(slave)
    text, answered = "", 0
    deadline = time.monotonic() + 480
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                text += data.decode(errors="replace")
                if len(_QUESTION.findall(plain(text))) > answered and answered < len(answers):
                    os.write(master, f"{answers[answered]}\n".encode())
                    answered += 1
            elif process.poll() is not None:
                break
    finally:
        if process.poll() is None:
            process.kill()
        code = process.wait()
        os.close(master)
    return code, plain(text)


def plain(text: str) -> str:
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text).replace("\r", "")


@pytest.fixture
def sandbox(ours: Sandbox) -> Sandbox:
    assert ours.run("stack", "init", "dev").code == 0
    return ours


def test_no_means_nothing_is_done(sandbox: Sandbox) -> None:
    code, text = converse(sandbox, ["up"], ["no"])
    assert code == 1
    assert "Do you want to perform this update?" in text
    assert "confirmation declined, not proceeding with the update" in text
    assert sandbox.run("stack", "history", "--json").out == "[]\n"
    assert not list((sandbox.state / "locks").rglob("*.json"))


def test_yes_does_it(sandbox: Sandbox) -> None:
    code, text = converse(sandbox, ["up"], ["yes"])
    assert code == 0
    assert "Updating (dev):" in text
    assert re.search(r"^ \+  small:index:Thing one create", text, re.MULTILINE)
    assert re.search(r"^ \+  small:index:Thing two create", text, re.MULTILINE)
    assert "s3cret" not in text


def test_non_interactive_flag_asks_nothing(sandbox: Sandbox) -> None:
    code, text = converse(sandbox, ["up", "--non-interactive"], [])
    assert code == 2
    assert "--yes or --skip-preview" in text


#: What is typed where the stack's name is asked for, and what comes of it: exit code, last line.
TYPED = {
    ("stack rm", "another"): (1, "confirmation declined"),
    ("stack rm", "dev"): (0, "Stack 'dev' has been removed!"),
    ("cancel", ""): (1, "confirmation declined"),
    ("cancel", "dev"): (0, "The currently running update for 'dev' has been canceled!"),
}


@pytest.mark.parametrize("case", TYPED, ids=" ".join)
def test_what_cannot_be_undone_asks_for_the_stack(sandbox: Sandbox, case: tuple[str, str]) -> None:
    command, answer = case
    code, text = converse(sandbox, command.split(), [answer])
    assert (code, text.splitlines()[-1]) == TYPED[case]
    listed = sandbox.run("stack", "ls").out
    assert ("dev" in listed) is (TYPED[case] != TYPED["stack rm", "dev"])


@pytest.mark.parametrize("case", TYPED, ids=" ".join)
def test_the_real_one_asks_alike(
    sandbox: Sandbox, real: Path, tmp_path: Path, case: tuple[str, str]
) -> None:
    (tmp_path / "real").mkdir()
    theirs = Sandbox(tmp_path / "real", real)
    assert theirs.run("stack", "init", "dev").code == 0
    command, answer = case
    found = converse(sandbox, command.split(), [answer])
    assert found == converse(theirs, command.split(), [answer])
