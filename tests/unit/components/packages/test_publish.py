"""publish.sh in a folder of its own; tools that sign and index are stood for."""

import os
import subprocess
import time
from pathlib import Path

from templates.rendering import render

_TOOLS = {
    "gpg": 'for word; do [ "$before" != --output ] || cp Release "$word"; before=$word; done',
    "gpgconf": ":",
    "apt-ftparchive": "cat ./*.deb",
    "apt-get": ":",
}


def test_the_index_before_stays_for_an_hour(tmp_path: Path) -> None:
    """Nodes that are just installing still take their packages from there; how old it is does not
    matter, but since when it is no longer the present one."""
    base, tools = tmp_path / "base", tmp_path / "bin"
    tools.mkdir()
    for name, text in _TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    for build in ("one", "two", "three"):
        (base / "builds" / build).mkdir(parents=True)
        (base / "builds" / build / "a_1_all.deb").write_text(build)
    (base / "www").mkdir()
    (base / "key.asc").write_text("key")
    script = render("packages/publish.sh").replace("/var/lib/slurmstack-packages", str(base))

    def publish(build: str) -> Path:
        subprocess.run(
            ["sh", "-s", build],
            input=script,
            env={"PATH": f"{tools}:/usr/bin:/bin", "SLURMSTACK_FACTS": "/dev/null"},
            text=True,
            check=True,
        )
        return (base / "www/current").resolve()

    first = publish("one")
    assert (first / "InRelease").read_text() == "one"
    two_hours_ago = time.time() - 7200
    os.utime(first, (two_hours_ago, two_hours_ago))
    second = publish("two")
    assert second != first
    assert (first / "a_1_all.deb").exists(), "deleted while nodes read it"
    assert publish("two") == second
    assert first.exists()
    os.utime(first, (two_hours_ago, two_hours_ago))
    third = publish("three")
    assert not first.exists()
    assert second.exists()
    assert (third / "InRelease").read_text() == "three"
