import shutil
from pathlib import Path

import pytest

from tests.unit.remote.machine import Machine

SHELLS = [
    pytest.param(("dash",), id="dash"),
    pytest.param(
        ("busybox", "sh"),
        id="busybox",
        marks=pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed"),
    ),
]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root", tmp_path / "standin")
