"""GPU checks on what a real GPU's tools and kernel answered (recorded/README.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from discovery.facts import parse
from on_node.health import gpus, xids
from on_node.health.gpus import Wanted

HERE = Path(__file__).parent / "recorded"
WANTED = Wanted(1, "h200")


def told(name: str) -> str:
    return (HERE / name).read_text()


def test_a_sound_gpu_is_sound() -> None:
    assert gpus.judged(WANTED, told("gpus.csv"), told("rows.csv")).verdict == "good"
    wrong = gpus.judged(replace(WANTED, type="h100"), told("gpus.csv"), told("rows.csv"))
    assert wrong.words == "GPU 0 (00000000:00:06.0) is NVIDIA H200, expected h100"
    h100 = replace(WANTED, type="h100")
    assert gpus.judged(h100, told("gpus-h100.csv"), told("rows-h100.csv")).verdict == "good"
    two = gpus.judged(replace(WANTED, count=2), told("gpus.csv"), told("rows.csv"))
    assert two.words == "1 GPUs answer, expected 2"


def test_faults_in_the_same_tables() -> None:
    """The rows that were recorded, with one value as a sick GPU has it."""
    ecc = gpus.judged(WANTED, told("gpus.csv").replace(", 0, [N/A]", ", 2, [N/A]"), "")
    assert "has 2 uncorrected ECC errors" in ecc.words
    rows = told("rows.csv")
    assert "has rows to remap" in gpus.judged(WANTED, told("gpus.csv"), _yes(rows, 1)).words
    assert "could not remap" in gpus.judged(WANTED, told("gpus.csv"), _yes(rows, 2)).words


def _yes(rows: str, column: int) -> str:
    words = rows.strip().split(", ")
    words[column] = "Yes"
    return ", ".join(words)


SMI = "#!/bin/sh\ncat {file}\nexit {code}\n"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "nvidia-smi"


def says(smi: Path, text: str, code: int = 0) -> None:
    answer = smi.with_name("answer")
    answer.write_text(text)
    smi.write_text(SMI.format(file=answer, code=code))
    smi.chmod(0o755)


def test_another_drivers_field_is_no_fault_of_the_node(smi: Path) -> None:
    says(smi, told("no-such-field"), 2)
    assert gpus.gpus(WANTED).verdict == "unknown"
    assert gpus.clocks().verdict == "unknown"


def test_memory_that_is_held_is_told_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "1048").mkdir()
    gpu = "0, 00000000:00:06.0, 4715"
    held = gpus.held_judged(2048, gpu, told("apps-held-nounits.csv"), tmp_path)
    owner = (tmp_path / "1048").owner()
    assert held.words == (
        f"GPU 0 holds 4715 MiB (python3, pid 1048, of {owner}) without any job, "
        "expected 2048 at most"
    )
    # Right after the process was killed the driver has no name for it.
    ending = gpus.held_judged(2048, gpu, told("apps-after-epilog.csv"), tmp_path)
    assert "(of no process that is to be seen)" in ending.words
    assert gpus.held_judged(8192, gpu, "", tmp_path).verdict == "good"


def test_only_the_hardwares_own_slowing_down_is_a_fault(smi: Path) -> None:
    """Load at the power limit is none; the columns are those that the check asks for."""
    for name in ("clocks.csv", "clocks-load.csv", "clocks-h100.csv"):
        head, row = (line.split(", ") for line in told(name).splitlines())
        asked = [it.replace("throttle", "event") for it in gpus._SLOWED]
        values = [row[head.index(it)] for it in asked]
        says(smi, ", ".join(["0", *values]))
        assert gpus.clocks().verdict == "good"
    says(smi, "0, Active, Not Active\n")
    assert gpus.clocks().words == "GPU 0 is slowed down by its hardware: it is too hot"


def test_a_gpu_without_nvlinks(smi: Path) -> None:
    assert told("nvlink") == ""
    assert gpus.links_judged(WANTED, told("nvlink")).verdict == "good"
    found = gpus.links_judged(replace(WANTED, nvlinks=18), told("nvlink"))
    assert found.words == "NVLinks: 0 of 1 GPUs have any, expected 18 each"


def test_xids_of_programs_that_failed_are_no_fault() -> None:
    assert xids.xids(xids.XIDS, -1, str(HERE / "kmsg")).verdict == "good"
    found = xids.xids([13, 31, 43], -1, str(HERE / "kmsg")).words
    assert "XID 31 (see NVIDIA) of GPU 0000:00:06, 3 times" in found


def test_driver_and_library_where_the_linker_finds_it(tmp_path: Path) -> None:
    version = tmp_path / "proc/driver/nvidia/version"
    library = tmp_path / "usr/local/nvidia/lib64"
    for folder in (version.parent, library):
        folder.mkdir(parents=True)
    version.write_text(told("proc-driver-nvidia-version"))
    (library / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.159.04")
    assert gpus.versions(tmp_path, told("ldconfig")).verdict == "good"
    (library / "libnvidia-ml.so.1").unlink()
    (library / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.570.158.01")
    assert gpus.versions(tmp_path, told("ldconfig")).words == (
        "the NVIDIA driver that is loaded is 580.159.04, its library 570.158.01: reboot"
    )


def test_facts_of_a_node_with_a_gpu() -> None:
    found = parse(told("facts"))
    assert (found.CPUs, found.RealMemory) == (16, 128887)
    assert found.gpus.files == ("/dev/nvidia0",)
    assert found.gpus.models == ("NVIDIA H200",)
    assert found.gpus.pci == ("10de:2335",)
