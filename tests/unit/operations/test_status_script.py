"""What `slurmstack status` has the controller run: rendered for every kind of settings."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from operations.cluster import Cluster
from operations.status import script
from settings import parse
from tests.unit.settings.test_settings import lab


@pytest.mark.parametrize("left_out", [(), ("rest",), ("rest", "jwt"), ("accounting",)])
def test_it_is_a_script_whatever_is_deployed(left_out: tuple[str, ...]) -> None:
    raw: dict[str, Any] = {key: it for key, it in lab().items() if key not in left_out}
    text = script(Cluster(parse(raw, stack="lab"), Path(), "lab"))
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("/etc/slurm/tls/ca.crt" in text) is ("rest" not in left_out)
    assert ("/var/backups/slurmdbd" in text) is ("accounting" not in left_out)
