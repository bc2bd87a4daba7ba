"""What a look at a node makes of what its tools say; nvidia-smi's words were recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from on_node.diagnosis import gather
from on_node.diagnosis.judge import judge
from on_node.diagnosis.rule import Line
from tests.unit.on_node.diagnosis.cases import HERE, case

START, END = 1_795_657_110.0, 1_795_657_140.0


def faults(path: Path, at: float) -> list[str]:
    checks = {
        "gpus": {"verdict": "fault", "words": "GPU 1 has 2 uncorrected ECC errors"},
        "disk": {"verdict": "good", "words": ""},
        "munge": {"verdict": "unknown", "words": "no answer in time"},
    }
    path.write_text(json.dumps({"time": at, "checks": checks}))
    return list(gather.health(START, END, str(path)))


def test_what_the_health_checks_found_while_the_job_was_there(tmp_path: Path) -> None:
    last = tmp_path / "last.json"
    said = ["Health=gpus: GPU 1 has 2 uncorrected ECC errors"]
    assert faults(last, START + 10) == said
    # Of another time it says nothing of the job.
    assert faults(last, START - 3600) == faults(last, END + 3600) == []
    last.write_text("{")
    assert list(gather.health(START, END, str(last))) == []
    assert list(gather.health(START, END, str(tmp_path / "none"))) == []


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("gpus: GPU 1 has 2 uncorrected ECC errors since its driver was loaded", "gpu-ecc"),
        ("gpus: 7 GPUs answer, expected 8", "gpu-lost"),
        (
            "gpu-versions: the NVIDIA driver that is loaded is 1.2, its library 1.3",
            "driver-mismatch",
        ),
        (
            "fabric-manager: there are NVSwitches, and nv-fabricmanager does not run",
            "fabric-manager",
        ),
        ("nvlink: NVLinks: GPU 1 has 17, expected 18", "gpu-nvlink"),
        ("links: mlx5_0/1 went down 9 times within an hour", "ib-port-down"),
        ("mount /scratch: /scratch does not answer (for 61 s)", "file-system"),
        ("gpu-memory: GPU 0 holds 4715 MiB (python3, pid 7, of bob)", "gpu-busy"),
    ],
)
def test_a_fault_of_a_check_is_a_cause(said: str, cause: str) -> None:
    output = Line("output", "[rank0]: RuntimeError: unexpected", "cn01", 1)
    found = judge([output, Line("node", f"Health={said}", "cn01")]).cause
    assert found is not None
    assert found.rule.id == cause


def test_a_driver_that_differs_from_its_library_is_called_that() -> None:
    recorded = case("", (HERE / "recorded/mismatch-smi.txt").read_text())
    said = "\n".join(line.text for line in recorded.lines if line.source == "output")
    (line,) = gather.gpus(said)
    found = judge([Line("node", line, "cn01")]).cause
    assert found is not None
    assert found.rule.id == "driver-mismatch"


def test_errors_of_each_gpu() -> None:
    assert list(gather.gpus("0, 0\n1, 2\n2, [N/A]\n")) == ["EccUncorrected=2 gpu=1"]
    lost = "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n"
    (line,) = gather.gpus(lost)
    assert line.startswith("GpuMissing=")


def test_what_pyxis_says_in_slurmds_log_is_read(tmp_path: Path) -> None:
    """Of a step that never had an output of its own."""
    log = tmp_path / "slurmd.log"
    log.write_text(
        "[2026-11-26T02:11:40.123] [12.0] error: pyxis: failed to create container filesystem\n"
        "[2026-11-26T02:11:40.124] [13.0] error: pyxis: failed to import docker image\n"
    )
    lines = gather.daemon("slurmd", str(log), 12, START, END, "cn01")
    assert len(lines) == 1
    found = judge(lines).cause
    assert found is not None
    assert found.rule.id == "image-bad"
