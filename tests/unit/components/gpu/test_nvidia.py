"""What a node with GPUs gets, and what the scripts say on machines that stand-ins make.

tests/lab/test_nvidia.py has real dpkg, systemd and Slurm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.gpu.nvidia import OURS, nvidia_bundle
from discovery import facts
from remote.bundle import Bundle, Check, Command, Guard, Package, Unit, Withdrawal
from settings import parse
from settings.gres import Gpus
from settings.model import Hardware
from tests.unit.components.test_cluster import HARDWARE, bare, commands, deploy_all, deployed, plain
from tests.unit.components.test_cluster import Node as Nodes

VERSION = "570.172.08-0ubuntu1"
STACK: dict[str, Any] = {"driver": {"version": VERSION}}
GPUS = [{"Name": "gpu", "Type": "h100", "Count": 2, "AutoDetect": "nvml"}]
REAL = [{"hosts": "cn01", "Gres": GPUS}, {"hosts": "cn02"}]


def bundle(node: str = "cn01", **stack: Any) -> Bundle:
    settings = parse({**bare(), "nodes": REAL, "nvidia": {**STACK, **stack}})
    return nvidia_bundle(node, settings, dict.fromkeys(settings.compute, HARDWARE))


def packages(made: Bundle) -> dict[str, str | None]:
    return {part.name: part.version for part in made.parts if isinstance(part, Package)}


def script(made: Bundle, name: str) -> str:
    for part in made.parts:
        if isinstance(part, Guard | Command | Check) and part.name == name:
            return part.script
    raise AssertionError(name)


def units(made: Bundle) -> list[str]:
    return [part.name for part in made.parts if isinstance(part, Unit)]


def test_ubuntus_names_and_nvidias() -> None:
    ubuntu = packages(bundle())
    assert ubuntu["nvidia-dkms-570-server-open"] == ubuntu["nvidia-utils-570-server"] == VERSION
    closed = packages(bundle(driver={"version": VERSION, "modules": "proprietary"}))
    assert "nvidia-dkms-570-server" in closed
    assert "nvidia-dkms-570-server-open" not in closed
    own = packages(bundle(driver={"version": "570.86.15-0ubuntu1", "names": "nvidia"}))
    assert own["nvidia-dkms-570-open"] == own["libnvidia-compute-570"] == "570.86.15-0ubuntu1"
    assert "nvidia-persistenced" not in own
    later = packages(bundle(driver={"version": "570.148.08-1ubuntu1", "names": "nvidia"}))
    assert later["nvidia-persistenced"] == "570.148.08-1ubuntu1"
    assert "nvidia-persistenced" not in ubuntu
    given = bundle(driver={"version": "590.1.1-1", "packages": ["nvidia-open"]})
    assert packages(given) == {"nvidia-open": "590.1.1-1"}


def test_the_fabric_manager_where_there_are_switches() -> None:
    manager = {"version": "570.172.08-1", "hosts": "cn01"}
    there, elsewhere = bundle(fabricManager=manager), bundle("cn02", fabricManager=manager)
    assert packages(there)["nvidia-fabricmanager-570"] == "570.172.08-1"
    assert "nvidia-fabricmanager.service" in units(there)
    assert "nvidia-fabricmanager-570" not in packages(elsewhere)
    assert units(elsewhere) == ["nvidia-persistenced.service"]


def test_a_job_does_not_meet_a_change_of_anything_but_dcgm() -> None:
    made = bundle(
        fabricManager={"version": "570.172.08-1"}, dcgm={"version": "1:4.2.3-1"},
        containerToolkit={"version": "1.17.8-1"}, gdrcopy={"version": "2.5-1"},
    )  # fmt: skip
    out = next(part for part in made.parts if isinstance(part, Withdrawal))
    dcgm = {"datacenter-gpu-manager-4-core", "datacenter-gpu-manager-4-cuda12"}
    assert out.unit == "slurmd.service"
    assert set(out.on) == {f"package:{name}" for name in packages(made).keys() - dcgm}
    assert OURS in out.script
    assert units(made) == [
        "nvidia-persistenced.service", "nvidia-fabricmanager.service", "nvidia-dcgm.service",
    ]  # fmt: skip


def roles(made: Nodes) -> set[str]:
    return {name for name in commands(made) if name.endswith("-nvidia")}


def test_nodes_with_gpus_get_it_and_no_others() -> None:
    assert roles(deployed(nodes=REAL, nvidia=STACK)[0]) == {"cn01-nvidia"}
    assert roles(deployed(nodes=REAL, nvidia={**STACK, "hosts": "cn02"})[0]) == {"cn02-nvidia"}
    stand_in = [{"hosts": "cn[01-02]", "Gres": [{"Name": "gpu", "Count": 2, "standIn": True}]}]
    assert roles(deployed(nodes=stand_in, nvidia=STACK)[0]) == set()
    assert roles(deployed(nodes=REAL)[0]) == set()


def test_one_that_is_lost_keeps_it_as_its_class() -> None:
    """Else the machine that is gone would be asked to take it back."""
    gone = {"address": "10.73.0.22", "lost": True}
    hosts = {"ctl": "10.73.0.10", "cn01": "10.73.0.21", "cn02": gone}
    settings = parse({**bare(), "hosts": hosts, "nodes": [{"hosts": "cn[01-02]"}], "nvidia": STACK})
    with_gpu = HARDWARE.model_copy(update={"gpus": Gpus(pci=("10de:2330",)).with_driver})
    assert roles(deploy_all(Nodes(), settings, {"cn01": with_gpu})[0]) == {
        "cn01-nvidia", "cn02-nvidia",
    }  # fmt: skip


def test_slurmd_comes_after_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = deployed(nodes=REAL, nvidia=STACK)
    names = [name for name in made.made if name in ("cn01-nvidia", "cn01-slurmd")]
    assert names == ["cn01-nvidia", "cn01-slurmd"]


def test_a_new_node_is_fit_before_its_driver_is_there(tmp_path: Path) -> None:
    """Its cards are on the bus; the devices come with the driver, and are looked at then."""
    memory = tmp_path / "facts.json"
    found = Hardware(**{**HARDWARE.model_dump(), "gpus": Gpus(pci=("10de:2330", "10de:2330"))})
    facts._remember(memory, {"cn01": found, "cn02": HARDWARE})
    settings = parse({**bare(), "nodes": REAL, "nvidia": STACK})
    known = facts.hardware(settings, {}, memory, "lab")
    assert known["cn01"].gpus.files == ("/dev/nvidia0", "/dev/nvidia1")
    made, _ = deployed(nodes=REAL, nvidia=STACK)
    guards = plain(commands(made)["cn01-system"]["stdin"])
    assert "GPUs declared" not in guards
    without, _ = deployed(nodes=REAL)
    assert "2 GPUs declared" in plain(commands(without)["cn01-system"]["stdin"])


class Machine:
    """A node with a kernel, modules and devices as files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for place in ("boot", "sys/module", "proc/7/fd", "dev"):
            (folder / place).mkdir(parents=True)
        (folder / "proc/7/comm").write_text("python\n")
        for kernel in ("6.1-a", "6.1-b"):
            (folder / f"lib/modules/{kernel}/build").mkdir(parents=True)
        self.command("uname", "echo 6.1-a")
        self.command("modinfo", 'cat "$ROOT/built"')
        self.command("systemctl", SYSTEMCTL)
        self.command("modprobe", MODPROBE)
        self.command("scontrol", 'printf " State=%s\\n Reason=\\n" "$(cat "$ROOT/state")"')
        self.command("squeue", 'cat "$ROOT/jobs" 2>/dev/null; true')
        self.command("dpkg-query", 'cat "$ROOT/installed" 2>/dev/null')
        self.command("mokutil", 'cat "$ROOT/mok"')
        self.command("nvidia-smi", 'cat "$ROOT/smi$1"')
        self.write("built", "570.172.08\n")

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def loaded(self, version: str) -> None:
        self.write("sys/module/nvidia/version", f"{version}\n")

    def run(self, text: str) -> tuple[int, str]:
        places = {
            "SLURMSTACK_ROOT": "", "ROOT": "", "SLURMSTACK_SYS": "/sys", "SLURMSTACK_PROC": "/proc",
            "SLURMSTACK_DEV": "/dev", "SLURMSTACK_FACTS": "/facts",
        }  # fmt: skip
        environment = {name: f"{self.folder}{place}" for name, place in places.items()}
        done = subprocess.run(
            ["sh"], input=text, capture_output=True, text=True, check=False,
            env={**environment, "PATH": f"{self.bin}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, done.stdout

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []


#: Every daemon runs, slurmd where a file says so.
SYSTEMCTL = """
case $* in
  *is-active*slurmd*) test -e "$ROOT/slurmd" ;;
  *is-active*) ;;
  *) echo "$*" >>"$ROOT/log" ;;
esac
"""
#: A module that is held does not leave.
MODPROBE = """
echo "modprobe $*" >>"$ROOT/log"
case $1 in
  -r) [ ! -e "$ROOT/stuck" ] || { echo 'modprobe: FATAL: Module nvidia is in use.'; exit 1; }
      rm -r "$ROOT/sys/module/$2" ;;
  nvidia) mkdir -p "$ROOT/sys/module/nvidia"; cp "$ROOT/built" "$ROOT/sys/module/nvidia/version" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def load(machine: Machine) -> tuple[int, str]:
    return machine.run(script(bundle(), "driver-loaded"))


def test_the_first_driver_is_loaded(machine: Machine) -> None:
    assert load(machine) == (0, "")
    assert machine.log == ["modprobe nvidia", "modprobe nvidia-uvm"]


def test_another_one_takes_its_place_where_no_job_is(machine: Machine) -> None:
    machine.loaded("570.158.01")
    (machine.folder / "sys/module/nvidia_uvm").mkdir()
    machine.write("slurmd", "")
    machine.write("state", "IDLE+DRAIN")
    assert load(machine) == (0, "")
    assert machine.log == [
        "stop nvidia-persistenced.service", "modprobe -r nvidia_uvm", "modprobe -r nvidia",
        "modprobe nvidia", "modprobe nvidia-uvm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "jobs"), [("IDLE", ""), ("MIXED", "7 (root)"), ("MIXED+DRAIN", "7 (root)")]
)
def test_no_driver_leaves_a_node_in_use(machine: Machine, state: str, jobs: str) -> None:
    machine.loaded("570.158.01")
    machine.write("slurmd", "")
    machine.write("state", state)
    machine.write("jobs", jobs)
    status, said = load(machine)
    assert status == 1
    assert f"cn01 is in use ({state} {jobs or 'without jobs now'}): slurmstack node drain" in said
    assert machine.log == []


def test_jobs_run_on_while_slurmd_is_stopped(machine: Machine) -> None:
    machine.loaded("570.158.01")
    machine.write("proc/7/comm", "slurmstepd\n")
    machine.write("state", "MIXED")
    machine.write("jobs", "7 (root)")
    assert "is in use" in load(machine)[1]
    assert machine.run(script(bundle(), "driver-stays"))[0] == 1
    assert machine.log == []


def test_a_driver_that_cannot_leave_names_who_holds_it(machine: Machine) -> None:
    machine.loaded("570.158.01")
    (machine.folder / "proc/7/fd/3").symlink_to(machine.folder / "dev/nvidia0")
    status, said = load(machine)
    assert status == 1
    assert "driver 570.158.01 cannot leave the kernel: held by python (7)" in said
    assert "Reboot it" in said
    # Its daemons go on, and no module has been touched.
    assert machine.log == ["stop nvidia-persistenced.service", "start nvidia-persistenced.service"]
    (machine.folder / "proc/7/fd/3").unlink()
    machine.write("stuck", "")
    status, said = load(machine)
    assert status == 1
    assert "cannot leave the kernel: modprobe: FATAL: Module nvidia is in use." in said


def test_a_module_that_was_not_built_is_named(machine: Machine) -> None:
    machine.write("built", "570.158.01\n")
    status, said = load(machine)
    assert status == 1
    assert "kernel 6.1-a has no module of driver 570.172.08 (modinfo: 570.158.01)" in said
    assert "make.log" in said


def build(machine: Machine, **stack: Any) -> tuple[int, str]:
    return machine.run(script(bundle(**stack), "driver-can-be-built"))


def test_headers_of_each_kernel_that_counts_are_there(machine: Machine) -> None:
    assert build(machine) == (0, "")
    machine.write("boot/vmlinuz-6.1-b", "")
    assert build(machine) == (0, "")
    (machine.folder / "lib/modules/6.1-b/build").rmdir()
    status, said = build(machine)
    assert status == 1
    assert "kernel 6.1-a runs, and the next boot takes 6.1-b" in said
    assert "apt-get install linux-headers-6.1-b," in said
    # Packages with modules that are built already need none.
    ready = {"version": VERSION, "packages": ["linux-modules-nvidia-570-server-open-generic"]}
    assert build(machine, driver=ready) == (0, "")


def test_secure_boot_wants_an_enrolled_key(machine: Machine) -> None:
    variable = machine.folder / "sys/firmware/efi/efivars/SecureBoot-8be4df61"
    variable.parent.mkdir(parents=True)
    variable.write_bytes(b"\6\0\0\0\0")
    assert build(machine) == (0, "")
    variable.write_bytes(b"\6\0\0\0\1")
    status, said = build(machine)
    assert (status, "Secure Boot is on" in said) == (1, True)
    machine.write("var/lib/shim-signed/mok/MOK.der", "")
    machine.write("mok", "MOK.der is not enrolled\n")
    assert build(machine)[0] == 1
    machine.write("mok", "MOK.der is already enrolled\n")
    assert build(machine) == (0, "")


def test_nvidias_own_installer_is_refused(machine: Machine) -> None:
    machine.write("usr/bin/nvidia-uninstall", "")
    status, said = build(machine)
    assert (status, "nvidia-uninstall" in said) == (1, True)


QUERY = "smi--query-gpu=driver_version,persistence_mode"


def whole(machine: Machine) -> tuple[int, str]:
    return machine.run(script(bundle(), "driver-is-whole"))


def test_all_of_it_says_the_same_version(machine: Machine) -> None:
    machine.loaded("570.172.08")
    machine.write(QUERY, "570.172.08, Enabled\n570.172.08, Enabled\n")
    machine.write("boot/vmlinuz-6.1-b", "")
    firmware = "nvidia-firmware-570-server-570.158.01 570.158.01-0ubuntu0.22.04.1"
    machine.write("installed", f"installed {firmware}\n")
    assert whole(machine) == (0, "")
    told = (machine.folder / "facts").read_text()
    assert told == "driver 570.172.08\nkernel-of-next-boot 6.1-b\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("sys/module/nvidia/version", "570.158.01\n", "the kernel has driver 570.158.01"),
        (QUERY, "570.172.08, Enabled\n", "nvidia-smi lists 1 GPUs, expected 2"),
        (QUERY, "570.172.08, Enabled\n570.172.08, Disabled\n", "persistence mode is off"),
        (QUERY, "570.158.01, Enabled\n570.158.01, Enabled\n", "nvidia-smi says driver 570.158.01"),
        (QUERY, "", "nvidia-smi says driver none"),
        (
            "installed", "installed libnvidia-gl-570-server 570.158.01-0ubuntu1\n",
            "of another version than driver 570.172.08: libnvidia-gl-570-server 570.158.01-0",
        ),
        ("built", "", "kernel 6.1-a, which runs, has module nvidia none"),
    ],
)  # fmt: skip
def test_what_does_not_is_named(machine: Machine, file: str, text: str, said: str) -> None:
    machine.loaded("570.172.08")
    machine.write(QUERY, "570.172.08, Enabled\n570.172.08, Enabled\n")
    machine.write(file, text)
    status, told = whole(machine)
    assert (status, said in told) == (1, True), told


def test_the_next_boot_has_a_driver(machine: Machine) -> None:
    machine.loaded("570.172.08")
    machine.write(QUERY, "570.172.08, Enabled\n570.172.08, Enabled\n")
    machine.write("boot/vmlinuz-6.1-b", "")
    machine.command("modinfo", 'case "$*" in *6.1-b*) ;; *) cat "$ROOT/built" ;; esac')
    status, told = whole(machine)
    assert status == 1
    assert "kernel 6.1-b, which the next boot takes, has module nvidia none" in told


FABRIC = """\
==============NVSMI LOG==============
GPU 00000000:1B:00.0
    Product Name : NVIDIA H100 80GB HBM3
    Fabric
        State                             : {}
        Status                            : {}
    Processes : None
"""


def test_the_fabric_is_looked_at(machine: Machine) -> None:
    with_manager = script(bundle(fabricManager={"version": VERSION}), "fabric-is-whole")
    without = script(bundle(), "fabric-is-whole")
    assert machine.run(without) == (0, "")
    machine.write("proc/driver/nvidia-nvswitch/devices/0", "")
    status, told = machine.run(without)
    assert (status, "slurmstack:nvidia.fabricManager" in told) == (1, True)
    for state, good in {
        ("Completed", "Success"): True, ("N/A", "N/A"): True,
        ("In Progress", "N/A"): False, ("Completed", "Failure"): False,
    }.items():  # fmt: skip
        machine.write("smi-q", FABRIC.format(*state))
        assert (machine.run(with_manager)[0] == 0) == good, state


@pytest.mark.parametrize(
    ("state", "jobs", "good"),
    [("IDLE", "", False), ("MIXED+DRAIN", "7 (root)", False), ("IDLE+DRAIN", "", True)],
)
def test_no_driver_is_taken_from_jobs(machine: Machine, state: str, jobs: str, good: bool) -> None:
    text = script(bundle(), "driver-stays")
    assert machine.run(text) == (0, "")
    machine.write("slurmd", "")
    machine.write("state", state)
    machine.write("jobs", jobs)
    assert (machine.run(text)[0] == 0) == good
