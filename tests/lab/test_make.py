"""The make targets that README and docs show, as a user types them, on the whole product."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.conftest import CHECKOUT, own_name, why_not
from tests.lab.snapshot import leftovers, snapshot

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


def make(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("MAKE") and key not in {"LAB", "NODES", "LAB_STARTED"}
    }
    done = subprocess.run(
        ["make", *words],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )
    if check and done.returncode != 0:
        pytest.fail(f"make {' '.join(words)}:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done


def tracked() -> str:
    """What is changed in tracked files."""
    words = ["git", "diff", "--no-ext-diff", "--stat"]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.fixture(scope="module")
def first() -> Iterator[tuple[str, str]]:
    """A lab made by `make lab`: its name and what was printed; gone without a trace after."""
    name = own_name("k")
    before, changed = snapshot(CHECKOUT, name), tracked()
    try:
        yield name, make("lab", f"LAB={name}").stdout
        assert tracked() == changed
    finally:
        make("lab-down", f"LAB={name}")
    assert leftovers(before, snapshot(CHECKOUT, name)) == {}


def test_make_lab_ends_with_a_users_job_on_two_nodes_and_what_is_next(
    first: tuple[str, str],
) -> None:
    name, printed = first
    lines = printed.splitlines()
    assert {"cn01", "cn02"} <= set(lines)  # of srun -N2 hostname
    assert re.search(r"^main\*\s+up\s+\S+\s+2\s+idle\s+cn\[01-02\]", printed, re.MULTILINE)
    for node in ("ctl", "login01", "cn01", "cn02"):
        assert re.search(rf"{node} 10\.73\.\d+\.\d+ is up, systemd says running", printed), printed
    assert "alice on login01: srun -N2 hostname" in printed
    last = "\n".join(lines[-29:])
    assert re.search(r"^ *ctl: started .*slurmctld", last, re.MULTILINE), last
    assert f"next: slurmstack inventory --stack {name}" in last
    assert f'next: eval "$(make -s env LAB={name})"' in last
    # Every step says how long it took so far.
    assert len(re.findall(r"^\[ *\d+\.\ds\] ", printed, re.MULTILINE)) > 8


def test_make_lab_again_changes_nothing_and_says_so(first: tuple[str, str]) -> None:
    name, _printed = first
    again = make("lab", f"LAB={name}").stdout
    assert "machines run already" in again
    assert "nothing was to be done: all is as it was" in again
    assert len(again.splitlines()) < 40
    assert "its machines, network and keys are unchanged" in again
    assert re.search(r"^\s+\d+ unchanged", again, re.MULTILINE)
    assert not re.search(r"^\s+[+~-] \d+ (created|updated|deleted)", again, re.MULTILINE)


def test_a_shell_with_the_labs_environment_works_on_its_stack(first: tuple[str, str]) -> None:
    name, _printed = first
    script = f"""
        set -eu
        eval "$(make -s env LAB={name})"
        cd /  # the environment needs no folder
        command -v pulumi
        cd {CHECKOUT}
        pulumi stack ls
        pulumi stack output cluster --stack {name}
        pulumi preview --stack {name} --non-interactive
        ssh-add -l
    """
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CHECKOUT}/.venv/bin/pulumi" in done.stdout
    assert "unchanged" in done.stdout
    assert f"slurmstack lab {name}" in done.stdout


def test_the_environment_holds_no_secret(first: tuple[str, str]) -> None:
    name, _printed = first
    printed = make("-s", "env", f"LAB={name}").stdout
    folder = CHECKOUT / ".lab" / name
    for secret in ("passphrase", "key"):
        text = (folder / secret).read_text().strip()
        assert not any(line in printed for line in text.splitlines() if len(line) > 8)
        assert (folder / secret).stat().st_mode & 0o077 == 0


def test_the_environment_of_a_lab_that_is_not_up_is_refused() -> None:
    done = make("-s", "env", f"LAB={own_name('n')}", check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "there is no lab named" in done.stderr


def test_help_explains_every_target() -> None:
    text = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE))
    shown = set(re.findall(r"^  ([a-z-]+) +\S", make("help").stdout, re.MULTILINE))
    assert shown == targets
    assert {"lab", "lab-down", "env", "test", "lint", "bench"} <= shown
