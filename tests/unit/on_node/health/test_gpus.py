"""GPU checks, on answers written after NVIDIA's documents; recorded ones are in test_recorded.py.

nvidia-smi's tables are as `--help-query-gpu` and `--help-query-remapped-rows` describe them, the
kernel's lines as NVIDIA's "XID Errors" and the kernel's ABI/testing/dev-kmsg do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from on_node.health import gpus, xids
from on_node.health.gpus import Wanted

WANTED = Wanted(2, "h100")


def row(
    index: int, name: str = "NVIDIA H100 80GB HBM3", errors: str = "0", pages: str = "No"
) -> str:
    return f"{index}, {name}, 00000000:{index}B:00.0, 570.86.15, {errors}, {pages}, 4"


def rows(pending: str = "No", failure: str = "No") -> str:
    return f"00000000:0B:00.0, {pending}, {failure}\n00000000:1B:00.0, No, No\n"


@pytest.mark.parametrize(
    ("told", "remapped", "words"),
    [
        ([row(0), row(1)], rows(), ""),
        ([row(0), row(1, errors="[N/A]", pages="[N/A]")], "", ""),
        ([row(0)], rows(), "1 GPUs answer, expected 2"),
        ([row(0), row(1), row(2)], rows(), "3 GPUs answer, expected 2"),
        (
            [row(0), row(1, "NVIDIA A100-SXM4-80GB")],
            rows(),
            "GPU 1 (00000000:1B:00.0) is NVIDIA A100-SXM4-80GB, expected h100",
        ),
        (
            [row(0, errors="3"), row(1)],
            rows(),
            "GPU 0 (00000000:0B:00.0) has 3 uncorrected ECC errors since its driver was loaded",
        ),
        ([row(0, pages="Yes"), row(1)], "", "GPU 0 (00000000:0B:00.0) has pages to retire"),
        ([row(0), row(1)], rows(pending="Yes"), "GPU 00000000:0B:00.0 has rows to remap: reset it"),
        ([row(0), row(1)], rows(pending="1"), "GPU 00000000:0B:00.0 has rows to remap: reset it"),
        ([row(0), row(1)], rows("Yes", "Yes"), "GPU 00000000:0B:00.0 could not remap a row"),
    ],
)
def test_what_nvidia_smi_tells(told: list[str], remapped: str, words: str) -> None:
    found = gpus.judged(WANTED, "\n".join(told) + "\n", remapped)
    assert (found.verdict == "good") is (not words)
    assert found.words.startswith(words)


def test_more_gpus_are_right_where_some_are_cut_into_instances() -> None:
    both = f"{row(0)}\n{row(1)}\n"
    assert gpus.judged(Wanted(1, cut=1), both, "").verdict == "good"
    assert gpus.judged(Wanted(0, cut=1), both, "").verdict == "good"
    few = gpus.judged(Wanted(1, cut=2), both, "")
    assert few.words == "2 GPUs answer, expected 3 or more"


def test_a_driver_that_misses_a_gpu_that_is_cut(tmp_path: Path) -> None:
    (tmp_path / "proc/driver/nvidia/gpus/0000:3b:00.0").mkdir(parents=True)
    assert gpus.devices(Wanted(0, cut=1), tmp_path).verdict == "good"
    missed = gpus.devices(Wanted(0, cut=2), tmp_path)
    assert missed.words == "the NVIDIA driver has 1 GPUs, expected 2 or more"


SMI = """#!/bin/sh
case $* in
  *query-gpu*) {gpu} ;;
  *remapped*) printf '%s' "{rows}" ;;
esac
"""


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (f"echo '{row(0)}'; echo '{row(1)}'", ""),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch",
        ),
        (
            "echo 'Unable to determine the device handle for GPU0: 0000:3B:00.0: GPU is lost.';"
            " exit 15",
            "nvidia-smi: Unable to determine the device handle for GPU0: 0000:3B:00.0: GPU is lost",
        ),
    ],
)
def test_nvidia_smi_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str, words: str
) -> None:
    """By a stand-in for it on PATH."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(gpu=gpu, rows=rows()))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = gpus.gpus(WANTED)
    assert (found.verdict == "good") is (not words)
    assert found.words.startswith(words)


def test_no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.gpus(WANTED).words == "nvidia-smi is not there"


LINK = "\t Link {}: {}\n"


def status(*gpus_links: list[str]) -> str:
    text = ""
    for number, links in enumerate(gpus_links):
        text += f"GPU {number}: NVIDIA H100 80GB HBM3 (UUID: GPU-{number})\n"
        text += "".join(LINK.format(link, speed) for link, speed in enumerate(links))
    return text


def test_an_nvlink_that_is_down() -> None:
    up, down = "26.562 GB/s", "<inactive>"
    assert gpus.links_judged(WANTED, status([up, up], [up, up])).verdict == "good"
    assert gpus.links_judged(WANTED, status([], [])).verdict == "good"
    found = gpus.links_judged(WANTED, status([up, up], [up, down]))
    assert found.words == "NVLinks: GPU 1 has 1, expected 2"
    # One in MIG mode talks to no other, whether its links are up or not.
    cut = status([up, up], [down, down])
    assert gpus.links_judged(Wanted(1, cut=1), cut, {"1"}).verdict == "good"
    assert gpus.links_judged(Wanted(1, cut=1, nvlinks=2), cut, {"1"}).verdict == "good"
    both = gpus.links_judged(Wanted(2, nvlinks=2), status([up, down], [up, down]))
    assert both.words == "NVLinks: GPU 0 has 1, GPU 1 has 1, expected 2"


KERNEL = (
    "6,900,1000,-;usb 1-1: new device\n"
    "4,901,2000,-;NVRM: Xid (PCI:0000:3b:00): 13, pid=77, name=python, Graphics Exception\n"
    "4,902,3000,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.\n"
    "4,903,3001,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.\n"
)


def test_xids_since_boot(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text(KERNEL)
    found = xids.xids(xids.XIDS, -1, str(log))
    # What a user's program has done to itself (13) is no fault of the GPU.
    assert found.words == "XID 79 (fallen off the bus) of GPU 0000:3b:00, 2 times"
    assert xids.xids(xids.XIDS, 3001, str(log)).verdict == "good"
    assert xids.xids([13], -1, str(log)).words.startswith("XID 13 (see NVIDIA) of GPU 0000:3b:00")
    assert xids.xids(xids.XIDS, -1, str(tmp_path / "none")).verdict == "unknown"


def test_driver_and_library_agree(tmp_path: Path) -> None:
    loaded = tmp_path / "proc/driver/nvidia/version"
    library = tmp_path / "usr/lib/x86_64-linux-gnu"
    for folder in (loaded.parent, library):
        folder.mkdir(parents=True)
    loaded.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
        "GCC version:  gcc version 12.2.0\n"
    )
    link = library / "libnvidia-ml.so.1"
    cache = "\tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n"
    link.touch()  # without a version in its name nothing is known
    assert gpus.versions(tmp_path, cache).verdict == "good"
    link.unlink()
    link.symlink_to("libnvidia-ml.so.575.51.03")
    assert gpus.versions(tmp_path, cache).words == (
        "the NVIDIA driver that is loaded is 570.86.15, its library 575.51.03: reboot"
    )
    link.unlink()
    link.symlink_to("libnvidia-ml.so.570.86.15")
    assert gpus.versions(tmp_path, cache).verdict == "good"


def test_the_fabric_manager_runs_where_there_are_switches(tmp_path: Path) -> None:
    assert gpus.fabric_manager([], tmp_path).verdict == "good"
    (tmp_path / "proc/driver/nvidia-nvswitch/devices/0000:05:00.0").mkdir(parents=True)
    assert "nv-fabricmanager does not run" in gpus.fabric_manager(["sshd"], tmp_path).words
    # The kernel keeps 15 letters of a name.
    assert gpus.fabric_manager(["nv-fabricmanager"[:15]], tmp_path).verdict == "good"


def test_devices_by_the_drivers_own_list(tmp_path: Path) -> None:
    for bus in ("0000:0b:00.0", "0000:1b:00.0"):
        assert gpus.devices(WANTED, tmp_path).verdict == "fault"
        (tmp_path / "proc/driver/nvidia/gpus" / bus).mkdir(parents=True)
    assert gpus.devices(WANTED, tmp_path).verdict == "good"
