"""What slurmstack:diagnosis puts on hosts, and the epilog's text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from components.configuration.slurm_conf import slurm_conf
from components.diagnosis.job_diagnosis import diagnosis_bundle, with_jobs
from on_node.diagnosis import links
from remote.bundle import File
from settings import parse
from settings.model import Hardware
from settings.problems import SettingsError
from tests.unit.components.test_cluster import bare

LIBRARY = "/usr/local/lib/slurmstack"


def files(**diagnosis: object) -> dict[str, File]:
    settings = parse({**bare(), "diagnosis": diagnosis})
    return {it.path: it for it in diagnosis_bundle("cn01", settings).parts if isinstance(it, File)}


def test_the_program_is_the_one_of_the_verb(tmp_path: Path) -> None:
    """What lies on a node runs there as it is: the command knows its words, and imports no more."""
    for path, file in files().items():
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(file.content).replace(LIBRARY, f"{tmp_path}{LIBRARY}"))
    command = tmp_path / "opt/slurm/bin/diagnose_training_failure.py"
    done = subprocess.run(
        ["python3", "-I", str(command), "x; rm"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "x; rm: not a job's number" in done.stderr
    assert not list(tmp_path.rglob("__pycache__"))


def test_settings_reach_the_epilog_and_the_users() -> None:
    found = files(keepDays=3, commandFolder="/usr/local/bin")
    told = json.loads(str(found["/etc/slurmstack/diagnosis.json"].content))
    assert told["keepDays"] == 3
    assert told["slurmdLog"] == "/var/log/slurm/slurmd.log"
    assert found["/usr/local/bin/diagnose_training_failure.py"].mode == "0755"
    with pytest.raises(SettingsError, match=r"slurmstack:diagnosis\.keepDays"):
        parse({**bare(), "diagnosis": {"keepDays": 0}})


def epilogs(**settings: object) -> list[str]:
    parsed = parse({**bare(), **settings})
    hardware = dict.fromkeys(
        parsed.compute, Hardware(CPUs=2, SocketsPerBoard=1, CoresPerSocket=2, ThreadsPerCore=1,
                                 RealMemory=1000),
    )  # fmt: skip
    text = slurm_conf(parsed, hardware)
    return [line for line in text.splitlines() if line.startswith("Epilog=")]


def test_the_sites_own_epilog_runs_after_ours() -> None:
    ours = "Epilog=/etc/slurmstack/scripts/Epilog-diagnosis"
    assert epilogs() == []
    assert epilogs(diagnosis={}) == [ours]
    site = {"Epilog": "/opt/site/epilog"}
    assert epilogs(diagnosis={}, slurm=site) == [ours, "Epilog=/opt/site/epilog"]


def test_the_epilog_ends_well_whatever_is_wrong(tmp_path: Path) -> None:
    _, program = with_jobs(parse({**bare(), "diagnosis": {}}))
    script = program.text.replace(LIBRARY, f"{tmp_path}{LIBRARY}")
    run = ["sh", "-c", f'logger() {{ echo "$*"; }}; {script}']
    assert subprocess.run(run, capture_output=True, check=False).returncode == 0
    broken = tmp_path / f"{LIBRARY[1:]}/on_node/diagnosis/epilog.py"
    broken.parent.mkdir(parents=True)
    broken.write_text("raise OSError('no space')\n")
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "not all was kept: OSError: no space" in done.stdout


def test_what_the_prolog_counts_is_what_the_epilog_compares(tmp_path: Path) -> None:
    """On a machine's folders as the kernel has them; no counter at all is no failure either."""
    program, _ = with_jobs(parse({**bare(), "diagnosis": {}}))
    assert program.file == "Prolog-diagnosis"
    script = program.text.replace(links.FOLDER, f"{tmp_path}/kept").replace(
        "/sys/", f"{tmp_path}/sys/"
    )
    run = ["sh", "-c", script]
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "8"}
    assert subprocess.run(run, env=environment, check=False).returncode == 0
    assert links.met(8, f"{tmp_path}/kept") == links.Met()
    port = tmp_path / "sys/class/infiniband/mlx5_0/ports/1/counters"
    card = tmp_path / "sys/class/net/eth0/device/net/eth0"
    files = {
        port / "link_downed": 1, port / "symbol_error": 5, port / "port_rcv_data": 1000,
        port / "port_xmit_data": 7, card / "carrier_down_count": 2,
        card / "statistics/rx_bytes": 50, card / "statistics/tx_errors": 3,
    }  # fmt: skip
    for path, number in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")
    assert subprocess.run(run, env=environment, check=False).returncode == 0
    more = {
        port / "link_downed": 2, port / "symbol_error": 4, port / "port_rcv_data": 100,
        card / "statistics/rx_bytes": 30,
    }  # fmt: skip
    for path, count in more.items():
        path.write_text(f"{files[path] + count}\n")
    # Its driver was loaded again meanwhile: it counts anew.
    (card / "carrier_down_count").write_text("1\n")
    found = links.met(8, f"{tmp_path}/kept")
    assert found.lines == ["IbLinkDowned=mlx5_0/1+2", "LinkErrors=mlx5_0/1 symbol_error+4"]
    assert (found.received, found.sent) == (430, 0)
    assert not (tmp_path / "kept/8").exists()


def test_the_prolog_ends_well_where_it_cannot_keep_anything(tmp_path: Path) -> None:
    program, _ = with_jobs(parse({**bare(), "diagnosis": {}}))
    (tmp_path / "file").touch()
    script = program.text.replace(links.FOLDER, f"{tmp_path}/file/kept")
    done = subprocess.run(["sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, check=False)
    assert done.returncode == 0
