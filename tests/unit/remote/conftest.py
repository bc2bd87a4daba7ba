import shutil
from pathlib import Path

import pytest

from tests.unit.remote.machine import Machine

# busybox is not among them: its shell puts applets of its own before coreutils and dpkg.
SHELLS = [
    pytest.param(("dash",), id="dash"),
    pytest.param(
        ("bash", "--posix"),
        id="bash",
        marks=pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed"),
    ),
]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root", tmp_path / "standin")
