"""What all tests share."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

CHECKOUT = Path(__file__).resolve().parents[1]

# A check of a submission repeats; the search for new examples is for those who can look at them.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("default", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays: a look for garbage among thousands of tests finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure() -> None:
    """Told to end, pytest still takes its labs down, as it does after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """A process of pytest-xdist that is ended takes no lab down: whoever started it does."""
    if hasattr(config, "workerinput"):
        return
    # Of this process: 314 is not 3146, whose tests may run beside these.
    ours = re.compile(rf"test-{os.getpid()}(\D.*)?")
    for folder in (CHECKOUT / ".lab").glob("test-*"):
        if not ours.fullmatch(folder.name):
            continue
        words = [sys.executable, "-m", "lab", "--lab", folder.name, "down"]
        subprocess.run(words, cwd=CHECKOUT, check=False)
