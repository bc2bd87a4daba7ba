"""State that a change would leave behind; on folders and sockets of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from on_node import state_guard
from templates.rendering import render


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A controller whose state lies in OLD."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "job_state").write_text("jobs")
    (tmp_path / "old" / "clustername").write_text("lab|123\n")
    conf = tmp_path / "slurm.conf"
    conf.write_text(slurm_conf(tmp_path, "old"))
    monkeypatch.setattr(state_guard, "SLURM_CONF", str(conf))
    monkeypatch.setattr(state_guard, "_is_active", lambda unit: False)
    return tmp_path


def slurm_conf(folder: Path, state: str, name: str = "lab") -> str:
    return f"ClusterName={name}\nStateSaveLocation={folder}/{state}\nSlurmctldPort=1\n"


def against(host: Path, text: str) -> list[str]:
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    bundle = f"slurmstack-bundle 1\nfile {state_guard.SLURM_CONF} root:root 0644\n{lines}end\n"
    return [*state_guard.slurmctld(bundle)]


def test_state_that_stays(host: Path) -> None:
    assert against(host, slurm_conf(host, "old")) == []
    (host / "link").symlink_to(host / "old")
    assert against(host, slurm_conf(host, "link")) == []


def test_state_that_moves(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = against(host, slurm_conf(host, "new"))
    assert f"from {host}/old to {host}/new, where slurmctld would find no jobs" in said
    assert f"cp -a {host}/old/. {host}/new/" in said
    (host / "new").mkdir()
    (host / "new" / "job_state").write_text("jobs")
    os.utime(host / "new" / "job_state", (1, 1))
    assert "an older state" in against(host, slurm_conf(host, "new"))[0]
    at = (host / "old" / "job_state").stat().st_mtime
    os.utime(host / "new" / "job_state", (at, at))
    assert against(host, slurm_conf(host, "new")) == []
    # A daemon that runs writes on into the old place.
    monkeypatch.setattr(state_guard, "_is_active", lambda unit: True)
    assert against(host, slurm_conf(host, "new"))


def test_no_state_yet(host: Path) -> None:
    (host / "old" / "job_state").unlink()
    assert against(host, slurm_conf(host, "new")) == []


def test_another_cluster(host: Path) -> None:
    (said,) = against(host, slurm_conf(host, "old", "other"))
    assert "from lab to other" in said
    (host / "old" / "clustername").unlink()
    assert against(host, slurm_conf(host, "old", "other")) == []


def test_a_controller_elsewhere(tmp_path: Path) -> None:
    conf = tmp_path / "of-this-host.conf"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        script = render(
            "guards/controller-stays.sh",
            hosts=["127.0.0.2", "127.0.0.1"],
            port=listening.getsockname()[1],
            slurm_conf=conf,
            state="/var/spool/slurmctld",
        )
        refused = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "moves here from 127.0.0.1, where slurmctld still holds" in refused.stderr
        # This host is the controller already.
        conf.touch()
        subprocess.run(["sh", "-c", script], check=True)
    conf.unlink()
    subprocess.run(["sh", "-c", script], check=True)


def test_files_that_would_stay_behind(host: Path) -> None:
    old, new = str(host / "old"), str(host / "new")
    (said,) = state_guard.left_behind(old, new, "ArchiveDir")
    assert f"ArchiveDir moves from {old} to {new}, and 2 files would stay behind" in said
    assert [*state_guard.left_behind(old, old, "ArchiveDir")] == []
    (host / "new").mkdir()
    for name in ("job_state", "clustername", "more"):
        (host / "new" / name).touch()
    assert [*state_guard.left_behind(old, new, "ArchiveDir")] == []
    assert [*state_guard.left_behind(None, new, "ArchiveDir")] == []
    assert [*state_guard.left_behind(str(host / "none"), new, "ArchiveDir")] == []


def test_a_database_that_moves(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = host / "mariadb.cnf"
    conf.write_text(f"[mysqld]\ndatadir = {host}/old\n")
    monkeypatch.setattr(state_guard, "MARIADB_CONF", str(conf))
    text = f"  [mysqld]\n  datadir = {host}/new\n"
    bundle = f"slurmstack-bundle 1\nfile {conf} root:root 0644\n{text}end\n"
    assert [*state_guard.database(bundle)] == []
    (host / "old" / "slurm_acct_db").mkdir()
    (said,) = state_guard.database(bundle)
    assert f"datadir of MariaDB moves from {host}/old to {host}/new" in said
    (host / "new" / "slurm_acct_db").mkdir(parents=True)
    assert [*state_guard.database(bundle)] == []
