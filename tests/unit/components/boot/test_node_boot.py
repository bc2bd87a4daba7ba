"""What a node gets of its boot, and what the scripts do on machines that stand-ins make.

tests/lab/test_boot.py has real systemd and Slurm."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from components.boot import node_boot
from components.boot.node_boot import (
    BOOTED_ROLE,
    ENDED,
    OURS,
    REFUSED,
    WAITS,
    WANTED,
    boot_bundle,
    booted_bundle,
)
from remote.bundle import Bundle, Command, File, Guard, Withdrawal
from remote.contact import ContactError, Reply
from remote.host import Host
from settings import parse
from tests.unit.components.gpu.test_nvidia import Machine
from tests.unit.components.test_cluster import Node as Nodes
from tests.unit.components.test_cluster import bare, commands, deploy

BOOT: dict[str, Any] = {"kernelParameters": ["iommu=pt"]}
PERSONS = "of a person [anna@2026-11-26T21:37:16]"


def bundle(**boot: Any) -> Bundle:
    return boot_bundle("cn01", parse({**bare(), "boot": boot or BOOT}), {})


def part(made: Bundle, name: str) -> Command:
    return next(it for it in made.parts if isinstance(it, Command) and it.name == name)


def withdrawal(made: Bundle) -> Withdrawal:
    return next(it for it in made.parts if isinstance(it, Withdrawal))


def grub(**boot: Any) -> str:
    content = next(it.content for it in bundle(**boot).parts if isinstance(it, File))
    assert isinstance(content, str)
    return content


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A node that runs without our words; slurmctld has it as `state` and `reason` say."""
    it = Machine(tmp_path)
    it.write("proc/cmdline", "root=UUID=1 ro quiet\n")
    it.write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n")
    it.write("proc/sys/kernel/random/boot_id", "the-first\n")
    it.command("scontrol", SCONTROL)
    it.command("update-grub", UPDATE_GRUB)
    it.command("systemd-run", 'echo "systemd-run $*" >>"$ROOT/log"')
    it.command("systemctl", ":")
    it.command("runuser", "exit 1")
    it.write("state", "IDLE+DRAIN\n")
    it.write("reason", f"{OURS} [root@now]\n")
    return it


SCONTROL = """
case $* in
  show*) printf ' State=%s\\n   Partitions=main \\n' "$(cat "$ROOT/state")"
    echo "   Reason=$(cat "$ROOT/reason")" ;;
  *) echo "scontrol $*" >>"$ROOT/log" ;;
esac
"""
UPDATE_GRUB = """
echo update-grub >>"$ROOT/log"
. "$ROOT/etc/default/grub.d/90-slurmstack.cfg"
mkdir -p "$ROOT/boot/grub"
printf '\\tlinux\\t/vmlinuz ro%s\\n' "$GRUB_CMDLINE_LINUX" >"$ROOT/boot/grub/grub.cfg"
"""


def facts(machine: Machine) -> str:
    path = machine.folder / "facts"
    return path.read_text() if path.exists() else ""


def boot_with(machine: Machine, words: str) -> None:
    machine.write("proc/cmdline", f"root=UUID=1 ro quiet {words}\n")


def reboots(machine: Machine) -> bool:
    return any(line.startswith("systemd-run") for line in machine.log)


def test_each_kind_of_cpu_has_words_of_its_own() -> None:
    assert grub(iommu="on").count("intel_iommu=on") == 1
    assert "iommu=pt" not in grub(iommu="on")
    passthrough = grub(iommu="passthrough", kernelParameters=["quiet", "nosmt"])
    assert '$GRUB_CMDLINE_LINUX quiet nosmt iommu=pt"' in passthrough
    intel = passthrough.partition("GenuineIntel")[2]
    assert "intel_iommu=on" in intel
    off = grub(iommu="off")
    assert "intel_iommu=off" in off.partition("GenuineIntel")[2].partition("\nfi")[0]
    assert "amd_iommu=off" in off.partition("AuthenticAMD")[2].partition("\nfi")[0]


def test_huge_pages_of_one_gibibyte_are_parameters_and_small_ones_are_not() -> None:
    assert "hugepagesz=1G hugepages=16" in grub(hugePages={"size": "1G", "count": 16})
    small = parse({**bare(), "boot": {"hugePages": {"count": 16}}})
    assert small.boot is not None
    assert (small.boot.parameters, small.boot.values) == (None, {"vm.nr_hugepages": "16"})


def test_it_is_drained_for_what_the_kernel_is_to_have() -> None:
    out = withdrawal(bundle())
    assert (out.on, out.unit) == ((WANTED,), "slurmd.service")
    reboot = part(bundle(), "reboot")
    assert (reboot.reboots, reboot.on) == (True, (WANTED,))
    never = bundle(**BOOT, reboot="never")
    assert not [it for it in never.parts if isinstance(it, Withdrawal)]
    assert not [it for it in never.parts if isinstance(it, Command) and it.reboots]


def test_nodes_of_the_list_get_it_and_no_others() -> None:
    def roles(boot: dict[str, Any]) -> set[str]:
        made: Nodes = deploy(boot=boot)[0]
        return {name for name in commands(made) if name.endswith(("-boot", f"-{BOOTED_ROLE}"))}

    both = {f"{node}-{role}" for node in ("cn01", "cn02") for role in ("boot", BOOTED_ROLE)}
    assert roles(BOOT) == both
    assert roles({**BOOT, "hosts": "cn02"}) == {"cn02-boot", "cn02-booted"}
    assert roles({**BOOT, "reboot": "never"}) == {"cn01-boot", "cn02-boot"}
    assert roles({"sysctl": {"net.core.somaxconn": 4096}}) == set()


def test_a_node_without_update_grub_is_refused(machine: Machine) -> None:
    guard = next(it for it in bundle().parts if isinstance(it, Guard))
    assert machine.run(guard.script) == (0, "")
    (machine.bin / "update-grub").unlink()
    status, said = machine.run(f"PATH={machine.bin}; {guard.script}")
    assert (status, "no update-grub here" in said) == (1, True)


def test_grub_has_every_word_in_the_end(machine: Machine) -> None:
    machine.write("etc/default/grub.d/90-slurmstack.cfg", grub())
    loader = part(bundle(), "boot-loader").script
    assert machine.run(loader) == (0, "")
    assert (machine.folder / "var/lib/slurmstack-boot/given").read_text() == "iommu=pt\n"
    machine.write("etc/default/grub.d/90-slurmstack.cfg", "GRUB_CMDLINE_LINUX=' iommu=pts'\n")
    status, said = machine.run(loader)
    assert (status, "has no iommu=pt after update-grub" in said) == (1, True)


def drains(machine: Machine, deed: str = "out") -> int:
    return machine.run(f"SLURMSTACK_SERVICE={deed}\n{withdrawal(bundle()).script}")[0]


def test_a_node_that_runs_with_it_is_not_drained(machine: Machine) -> None:
    machine.write("state", "IDLE\n")
    machine.write("reason", "\n")
    assert drains(machine) == 0
    assert f"scontrol update NodeName=cn01 State=DRAIN Reason={OURS}" in machine.log
    boot_with(machine, "iommu=pt")
    assert drains(machine) == 4
    # A word is a word as a whole.
    boot_with(machine, "iommu=pts xiommu=pt")
    assert drains(machine) == 0


def test_a_node_goes_back_only_when_it_was_booted(machine: Machine) -> None:
    assert drains(machine, "back") == 4


def test_a_closed_and_empty_node_is_rebooted(machine: Machine) -> None:
    reboot = part(bundle(), "reboot").script
    assert machine.run(reboot) == (0, "")
    assert reboots(machine)
    assert f"{ENDED} the-first" in facts(machine)
    assert not (machine.folder / "var/lib/slurmstack-boot/found").exists()


def test_words_of_a_person_are_kept_over_the_boot(machine: Machine) -> None:
    machine.write("reason", f"{PERSONS}\n")
    assert machine.run(part(bundle(), "reboot").script) == (0, "")
    assert reboots(machine)
    assert (machine.folder / "var/lib/slurmstack-boot/found").read_text() == f"{PERSONS}\n"


@pytest.mark.parametrize(
    ("state", "jobs"),
    [("IDLE", ""), ("MIXED", "7 (root)"), ("MIXED+DRAIN", "7 (root)"), ("IDLE+DRAIN", "7 (root)")],
)
def test_no_node_in_use_is_rebooted(machine: Machine, state: str, jobs: str) -> None:
    machine.write("state", state)
    machine.write("jobs", jobs)
    status, said = machine.run(part(bundle(), "reboot").script)
    assert (status, "is in use" in said, reboots(machine)) == (1, True, False)


@pytest.mark.parametrize("state", ["DOWN", "DOWN+DRAIN", "FAIL"])
def test_a_node_that_somebody_has_down_is_left(machine: Machine, state: str) -> None:
    machine.write("state", state)
    machine.write("reason", f"{PERSONS}\n")
    assert machine.run(part(bundle(), "reboot").script) == (0, "")
    assert not reboots(machine)
    assert f"{WAITS} iommu=pt (the node is {state}: of a person" in facts(machine)
    assert booted(machine) == (0, "")
    assert machine.log == []


def test_never_says_what_waits(machine: Machine) -> None:
    made = part(bundle(**BOOT, reboot="never"), "reboot-waits")
    assert machine.run(made.script) == (0, "")
    assert f"{WAITS} iommu=pt" in facts(machine)
    assert made.probe is not None
    assert machine.run(made.probe) == (1, "the node is to be booted for iommu=pt\n")
    boot_with(machine, "iommu=pt")
    assert machine.run(made.probe) == (0, "")


def booted(machine: Machine, **boot: Any) -> tuple[int, str]:
    settings = parse({**bare(), "boot": boot or BOOT})
    made = booted_bundle("cn01", settings, {})
    machine.command("srun", 'echo "srun" >>"$ROOT/log"')
    return machine.run(part(made, "booted").script)


def test_what_was_booted_is_given_back(machine: Machine) -> None:
    status, said = booted(machine)
    assert (status, "was not booted with iommu=pt" in said) == (1, True)
    assert machine.log == []
    boot_with(machine, "iommu=pt")
    machine.write("reason", f"{OURS} : reboot issued [slurm@now]\n")
    status, said = booted(machine)
    assert status == 0, said
    assert (
        "scontrol update NodeName=cn01 State=UNDRAIN Reason=given back by slurmstack" in machine.log
    )


def test_after_resume_timeout_ours_goes_back_all_the_same(machine: Machine) -> None:
    boot_with(machine, "iommu=pt")
    machine.write("state", "DOWN+DRAIN\n")
    machine.write("reason", f"{OURS} : reboot issued : reboot timed out [slurm@now]\n")
    assert booted(machine)[0] == 0
    returned = "scontrol update NodeName=cn01 State=RESUME Reason=given back by slurmstack"
    assert returned in machine.log


@pytest.mark.parametrize("state", ["IDLE+DRAIN", "DOWN+DRAIN"])
def test_a_drain_of_a_person_stays_with_its_words(machine: Machine, state: str) -> None:
    boot_with(machine, "iommu=pt")
    machine.write("var/lib/slurmstack-boot/found", f"{PERSONS}\n")
    machine.write("state", state)
    machine.write("reason", "of a person : reboot issued [slurm@now]\n")
    assert booted(machine)[0] == 0
    opened = "scontrol update NodeName=cn01 State=RESUME"
    assert (opened in machine.log) == ("DOWN" in state)
    if opened in machine.log:
        assert machine.log[machine.log.index(opened) + 1 :][0].endswith(
            "State=DRAIN Reason=of a person"
        )
    assert "scontrol update NodeName=cn01 Reason=of a person" in machine.log
    assert "srun" not in machine.log
    # What somebody has said since is theirs.
    machine.write("var/lib/slurmstack-boot/found", f"{PERSONS}\n")
    machine.write("reason", "a disk [ben@now]\n")
    (machine.folder / "log").unlink()
    assert booted(machine)[0] == 0
    assert not any("update" in line for line in machine.log)


def test_a_reboot_that_slurmctld_refuses_is_told(machine: Machine) -> None:
    machine.write(REFUSED.lstrip("/"), "scontrol reboot cn01: Access denied\n")
    assert booted(machine) == (
        1,
        "slurmctld does not reboot it: scontrol reboot cn01: Access denied\n",
    )


def test_words_that_were_given_are_taken_back_by_a_boot(machine: Machine) -> None:
    without = {"kernelParameters": ["nosmt"]}
    boot_with(machine, "iommu=pt nosmt")
    # They are the image's own, or the site's.
    assert machine.run(f"{part(bundle(**without), 'reboot').script}") == (0, "")
    assert not reboots(machine)
    machine.write("var/lib/slurmstack-boot/given", "iommu=pt\nnosmt\n")
    assert machine.run(part(bundle(**without), "reboot").script) == (0, "")
    assert reboots(machine)
    boot_with(machine, "nosmt")
    assert booted(machine, **without)[0] == 0
    assert (machine.folder / "var/lib/slurmstack-boot/given").read_text() == "nosmt\n"


def test_the_program_waits_for_another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host("cn01", "10.0.0.1", "")
    away = ContactError(host, "connect", "no answer", "switch it on")
    answers: list[Reply | ContactError] = []

    async def ask(hosts: list[Host], *_: object, **__: object) -> dict[str, Reply | ContactError]:
        return {hosts[0].name: answers.pop(0)}

    monkeypatch.setattr(node_boot, "run_on_hosts", ask)
    monkeypatch.setattr(node_boot, "_PAUSE", 0)
    answers[:] = [Reply("first\n", "", 0), away, Reply("second\n", "", 0)]
    assert asyncio.run(node_boot.booted(host, "first", 60))
    assert answers == []
    answers[:] = [Reply("first\n", "", 0), Reply("first\nscontrol: denied\n", "", 0), away]
    assert not asyncio.run(node_boot.booted(host, "first", 60))
    assert answers == [away]
    assert not asyncio.run(node_boot.booted(host, "first", 0))
