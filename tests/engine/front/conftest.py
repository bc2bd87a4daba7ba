from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.front.scenarios import Sandbox, embedded_pulumi, real_pulumi


@pytest.fixture
def ours(tmp_path: Path) -> Sandbox:
    """A project and a state folder of their own, with the embedded engine."""
    return Sandbox(tmp_path, embedded_pulumi(tmp_path))


@pytest.fixture
def real() -> Path:
    """The real command. Without it, what it once did is compared with instead (``recorded/``)."""
    found = real_pulumi()
    if found is None:
        pytest.skip("no real pulumi on PATH: recorded behaviour is compared with instead")
    return found
