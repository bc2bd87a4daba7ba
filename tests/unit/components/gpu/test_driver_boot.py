"""A module of the GPU driver that cannot leave the kernel: who has the node booted, who proves it.

tests/lab/test_boot.py has real dpkg, systemd and Slurm, and reboots by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.boot import node_boot
from components.boot.node_boot import WANTED, boot_bundle, booted_bundle, wanted
from components.compute.compute_node import compute_bundle
from components.compute.service import BOOTING
from components.gpu.nvidia import OURS, nvidia_bundle
from remote.bundle import Bundle, Command, File, Withdrawal
from settings import Settings, parse
from tests.unit.components.boot.test_node_boot import SCONTROL
from tests.unit.components.gpu.test_nvidia import QUERY, REAL, STACK, Machine, script
from tests.unit.components.test_cluster import HARDWARE, bare, commands, deploy

NEW, OLD = "570.172.08", "570.158.01"
FABRIC: dict[str, Any] = {"version": "24.10-2.1.8", "packages": {"doca-ofed": "2.9.2-1"}}


def settings(**changes: Any) -> Settings:
    return parse({**bare(), "nodes": REAL, "nvidia": STACK, "boot": {}, **changes})


def hardware(made: Settings) -> Any:
    return dict.fromkeys(made.compute, HARDWARE)


def bundle(**changes: Any) -> Bundle:
    made = settings(**changes)
    return nvidia_bundle("cn01", made, hardware(made))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A drained node, whose kernel has the driver before the one that is installed."""
    it = Machine(tmp_path)
    it.command("modinfo", 'for name; do :; done; cat "$ROOT/built-$name" 2>/dev/null')
    it.command("scontrol", SCONTROL)
    it.write("built-nvidia", f"{NEW}\n")
    it.write("proc/cmdline", "ro quiet\n")
    it.loaded(OLD)
    it.write("slurmd", "")
    it.write("state", "IDLE+DRAIN\n")
    it.write("reason", f"{OURS} [root@now]\n")
    return it


def hold(machine: Machine) -> None:
    (machine.folder / "proc/7/fd/3").symlink_to(machine.folder / "dev/nvidia0")


def load(machine: Machine, **changes: Any) -> tuple[int, str]:
    return machine.run(script(bundle(**changes), "driver-loaded"))


def test_one_that_is_held_stays_until_the_boot(machine: Machine) -> None:
    hold(machine)
    status, said = load(machine)
    assert status == 4
    assert f"driver {OLD} cannot leave the kernel: held by python (7)" in said
    # Nothing was unloaded, and what was stopped the boot starts.
    assert machine.log == ["stop nvidia-persistenced.service"]


def test_one_that_leaves_is_exchanged_without_a_boot(machine: Machine) -> None:
    assert load(machine) == (0, "")
    assert (machine.folder / "sys/module/nvidia/version").read_text() == f"{NEW}\n"


@pytest.mark.parametrize("boot", [{"reboot": "never"}, {"hosts": "cn02"}, None])
def test_where_nobody_may_reboot_it_it_is_an_error(machine: Machine, boot: Any) -> None:
    hold(machine)
    status, said = load(machine, **({} if boot is None else {"boot": boot}), **_without(boot))
    assert status == 1
    assert "cn01 stays out of use. Reboot it (systemctl reboot there)" in said


def _without(boot: Any) -> dict[str, Any]:
    return {"boot": None} if boot is None else {}


def test_a_new_node_has_no_slurmd_that_could_reboot_it(machine: Machine) -> None:
    (machine.folder / "slurmd").unlink()
    hold(machine)
    status, said = load(machine)
    assert (status, "Reboot it (systemctl reboot there)" in said) == (1, True)


def test_a_node_in_use_is_neither_touched_nor_booted(machine: Machine) -> None:
    hold(machine)
    machine.write("jobs", "7 (root)")
    status, said = load(machine)
    assert (status, "is in use (IDLE+DRAIN 7 (root))" in said, machine.log) == (1, True, [])


def test_one_boot_for_all_that_waits_for_it(machine: Machine) -> None:
    """Nor is nvidia-peermem loaded beside network drivers that it was not built for."""
    machine.write("built-mlx5_core", "24.10-2.1.8\n")
    machine.write("sys/module/mlx5_core/version", "24.04-0.6.6\n")
    nvidia = {**STACK, "peerMemory": True}
    status, said = load(machine, fabric=FABRIC, nvidia=nvidia)
    assert (status, machine.log) == (4, [])
    assert f"which it is to be for mlx5_core-24.10-2.1.8 nvidia-{NEW}" in said
    # Of a first driver, all else is loaded.
    (machine.folder / "sys/module/nvidia/version").unlink()
    (machine.folder / "sys/module/nvidia").rmdir()
    machine.command("modprobe", MODPROBE)
    status, said = load(machine, fabric=FABRIC, nvidia=nvidia)
    assert (status, "Invalid argument" in said) == (0, True)
    assert load(machine, fabric=FABRIC, nvidia=nvidia, boot={"reboot": "never"})[0] == 1


MODPROBE = """
case $1 in
  nvidia) mkdir -p "$ROOT/sys/module/nvidia"; cp "$ROOT/built-nvidia" "$ROOT/sys/module/nvidia/version" ;;
  nvidia-peermem) echo "modprobe: ERROR: could not insert 'nvidia_peermem': Invalid argument"; exit 1 ;;
esac
"""  # noqa: E501


def back(machine: Machine, **changes: Any) -> int:
    out = next(part for part in bundle(**changes).parts if isinstance(part, Withdrawal))
    machine.command("srun", "true")
    return machine.run(f"SLURMSTACK_SERVICE=back\n{out.script}")[0]


HANDED_OVER = f"scontrol update NodeName=cn01 Reason={BOOTING}"


def test_whoever_has_it_booted_gives_it_back(machine: Machine) -> None:
    assert back(machine) == 4
    assert machine.log == [HANDED_OVER]
    machine.write("reason", "of a person [anna@now]\n")
    assert back(machine) == 4
    assert machine.log == [HANDED_OVER]


def test_one_that_needs_no_boot_goes_back_at_once(machine: Machine) -> None:
    machine.loaded(NEW)
    assert back(machine) == 0
    assert (
        "scontrol update NodeName=cn01 State=UNDRAIN Reason=given back by slurmstack" in machine.log
    )
    assert HANDED_OVER not in machine.log


def test_a_boot_that_is_wanted_no_more_keeps_no_node_drained(machine: Machine) -> None:
    """The settings went back after a run that was killed before the boot."""
    machine.loaded(NEW)
    machine.write("reason", f"{BOOTING} [root@now]\n")
    assert back(machine) == 0
    assert (
        "scontrol update NodeName=cn01 State=UNDRAIN Reason=given back by slurmstack" in machine.log
    )
    # Of a node that is to be booted for something else it is that one's.
    machine.write("built-mlx5_core", "24.10-2.1.8\n")
    machine.write("sys/module/mlx5_core/version", "24.04-0.6.6\n")
    (machine.folder / "log").unlink()
    made = settings(fabric=FABRIC)
    machine.write(WANTED.removeprefix("/"), wanted("cn01", made, hardware(made)))
    assert back(machine, fabric=FABRIC) == 0
    assert not any("update" in line for line in machine.log)


def test_one_drain_where_parameters_of_the_kernel_change_with_it(machine: Machine) -> None:
    machine.loaded(NEW)
    boot = {"kernelParameters": ["iommu=pt"]}
    made = settings(boot=boot)
    assert back(machine, boot=boot) == 4
    assert machine.log == [HANDED_OVER]
    # A boot that is none of this run's is not waited for.
    machine.write(WANTED.removeprefix("/"), wanted("cn01", made, hardware(made)))
    assert back(machine, boot=boot) == 0


def test_what_it_is_booted_for_is_told_and_nodes_without_gpus_are_not() -> None:
    made = settings()
    text = next(
        part.content for part in boot_bundle("cn01", made, hardware(made)).parts
        if isinstance(part, File) and part.path == WANTED
    )  # fmt: skip
    assert f"module nvidia {NEW}\n" in str(text)
    roles = commands(deploy(nodes=REAL, nvidia=STACK, boot={})[0])
    assert {name for name in roles if "-boot" in name} == {"cn01-boot", "cn01-booted"}


def test_slurmd_is_between_the_driver_and_the_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_alone", "_back"):
        monkeypatch.setattr(node_boot, name, lambda *_: [])
    made, _ = deploy(nodes=REAL, nvidia=STACK, boot={})
    order = ["cn01-nvidia", "cn01-slurmd", "cn01-boot", "cn01-booted"]
    assert [name for name in made.made if name in order] == order


def booted(machine: Machine) -> tuple[int, str]:
    made = settings()
    machine.command("srun", 'echo srun >>"$ROOT/log"')
    # It would try for minutes.
    machine.command("sleep", "true")
    machine.command("date", 'echo >>"$ROOT/times"; echo "$(wc -l <"$ROOT/times")00"')
    command = next(
        part for part in booted_bundle("cn01", made, hardware(made)).parts
        if isinstance(part, Command)
    )  # fmt: skip
    return machine.run(command.script)


def test_after_the_boot_it_has_to_be_whole_as_without(machine: Machine) -> None:
    machine.write("reason", f"{BOOTING} : reboot issued [slurm@now]\n")
    status, said = booted(machine)
    assert (status, f"was not booted with nvidia-{NEW}" in said) == (1, True)
    machine.loaded(NEW)
    machine.write(QUERY, f"{NEW}, Enabled\n")
    status, said = booted(machine)
    assert (status, "nvidia-smi lists 1 GPUs, expected 2" in said) == (1, True)
    machine.write(QUERY, f"{NEW}, Enabled\n{NEW}, Enabled\n")
    machine.write("proc/driver/nvidia-nvswitch/devices/1", "")
    status, said = booted(machine)
    assert (status, "without slurmstack:nvidia.fabricManager" in said) == (1, True)
    (machine.folder / "proc/driver/nvidia-nvswitch/devices/1").unlink()
    machine.command("systemctl", "echo failed; exit 3")
    status, said = booted(machine)
    assert (status, "nvidia-persistenced.service is failed" in said) == (1, True)
    assert machine.log == []
    machine.command("systemctl", "true")
    assert booted(machine)[0] == 0
    assert machine.log[-1].startswith("scontrol delete reservation")
    assert {
        "scontrol update NodeName=cn01 State=UNDRAIN Reason=given back by slurmstack",
        "srun",
    } <= {*machine.log}


def test_until_then_slurmd_may_miss_its_gpus(machine: Machine) -> None:
    """A slurmd that is started meanwhile finds no NVML that works with the kernel's driver."""
    made = settings()
    check = script(compute_bundle("cn01", made, hardware(made)), "node-is-idle")
    machine.command("sinfo", 'cat "$ROOT/sinfo"')
    machine.command("scontrol", "echo 'HASH_VAL = Match'; echo ' Reason=x'")
    machine.write("sinfo", "inval\n")
    assert machine.run(check) == (0, "")
    machine.loaded(NEW)
    assert machine.run(check)[0] == 1
