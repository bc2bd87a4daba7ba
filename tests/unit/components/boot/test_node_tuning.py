"""Values of the kernel, the CPUs' governor and ACS, on machines of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.boot.node_tuning import ACS, GOVERNOR, tuning_bundle
from remote.bundle import Bundle, Command, File, Guard, Unit
from settings import parse
from tests.unit.components.gpu.test_nvidia import Machine
from tests.unit.components.test_cluster import bare


def bundle(**boot: Any) -> Bundle:
    return tuning_bundle("cn01", parse({**bare(), "boot": boot}))


def command(made: Bundle, name: str) -> Command:
    return next(it for it in made.parts if isinstance(it, Command) and it.name == name)


def program(made: Bundle, path: str) -> str:
    content = next(it.content for it in made.parts if isinstance(it, File) and it.path == path)
    assert isinstance(content, str)
    return content


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


SOMAXCONN, RMEM = "proc/sys/net/core/somaxconn", "proc/sys/net/ipv4/tcp_rmem"


def test_values_are_set_read_back_and_come_back(machine: Machine) -> None:
    machine.write(SOMAXCONN, "128\n")
    machine.write(RMEM, "4096\t131072\t6291456\n")
    both = bundle(sysctl={"net.core.somaxconn": 8192, "net.ipv4.tcp_rmem": "4096 87380 67108864"})
    values = command(both, "values")
    assert values.probe is not None
    status, said = machine.run(values.probe)
    assert (status, said.count("expected")) == (1, 2)
    assert (machine.folder / SOMAXCONN).read_text() == "128\n"
    assert machine.run(values.script) == (0, "")
    assert (machine.folder / SOMAXCONN).read_text() == "8192\n"
    assert (machine.folder / RMEM).read_text() == "4096 87380 67108864\n"
    assert machine.run(values.probe) == (0, "")
    # A value that leaves the settings is what it was before ours; so are all, when the role goes.
    one = bundle(sysctl={"net.core.somaxconn": 4096})
    assert machine.run(command(one, "values").script) == (0, "")
    assert (machine.folder / RMEM).read_text().split() == ["4096", "131072", "6291456"]
    assert (machine.folder / SOMAXCONN).read_text() == "4096\n"
    assert machine.run(command(one, "values-back").script) == (0, "")
    assert (machine.folder / SOMAXCONN).read_text() == "128"
    assert not (machine.folder / "var/lib/slurmstack-tuning").exists()


def test_what_the_kernel_does_not_take_is_named(machine: Machine) -> None:
    machine.write(SOMAXCONN, "128\n")
    wrong = bundle(sysctl={"net.core.somaxconn": 8192, "vm.none": 1, "net.none": 2})
    status, said = machine.run(command(wrong, "values").script)
    assert status == 1
    assert "net.none: the kernel has no such value" in said
    assert "vm.none: the kernel has no such value" in said


def pages(machine: Machine, count: int) -> tuple[int, str]:
    made = bundle(hugePages={"count": count})
    return machine.run(next(it for it in made.parts if isinstance(it, Guard)).script)


def test_huge_pages_come_out_of_memory_that_is_free(machine: Machine) -> None:
    machine.write("proc/meminfo", "MemTotal: 4096000 kB\nMemAvailable: 2048000 kB\n")
    machine.write("proc/sys/vm/nr_hugepages", "100\n")
    assert pages(machine, 1000) == (0, "")
    status, said = pages(machine, 1001)
    assert (status, "1001 huge pages of 2 MiB need 1802 MiB more" in said) == (1, True)
    assert pages(machine, 50) == (0, "")


CPU = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"


def test_each_cpu_gets_its_governor_and_gets_it_back(machine: Machine) -> None:
    made = bundle(cpuGovernor="performance")
    text = program(made, GOVERNOR)

    def run(verb: str) -> tuple[int, str]:
        return machine.run(f"set -- {verb}\n{text}")

    assert run("set") == run("look")
    assert "no cpufreq here" in run("look")[1]
    for cpu, governor in enumerate(("powersave", "performance")):
        machine.write(CPU.format(cpu), f"{governor}\n")
    (machine.folder / "run").mkdir()
    assert run("look")[0] == 1
    assert run("set") == run("set") == run("look") == (0, "")
    assert (machine.folder / CPU.format(0)).read_text() == "performance\n"
    assert run("back") == (0, "")
    assert (machine.folder / CPU.format(0)).read_text() == "powersave\n"
    assert (machine.folder / CPU.format(1)).read_text() == "performance\n"
    assert [it.name for it in made.parts if isinstance(it, Unit)]


SETPCI = """
case $3 in
  *=*) [ -e "$ROOT/held" ] || echo "${3#*=}" >"$ROOT/$2" ;;
  *) cat "$ROOT/$2" 2>/dev/null ;;
esac
"""


def test_bridges_with_acs_have_it_off(machine: Machine) -> None:
    text = program(bundle(acs="off"), ACS)
    machine.command("lspci", 'printf "0000:00:01.0 x\\n0000:00:02.0 y\\n"')
    machine.command("setpci", SETPCI)
    machine.write("0000:00:01.0", "001d\n")
    (machine.folder / "run").mkdir()
    status, said = machine.run(f"set -- look\n{text}")
    assert (status, "ACS is on in bridges 0000:00:01.0" in said) == (1, True)
    machine.write("held", "")
    assert machine.run(f"set -- set\n{text}")[0] == 1
    (machine.folder / "held").unlink()
    assert machine.run(f"set -- set\n{text}") == machine.run(f"set -- look\n{text}") == (0, "")
    assert machine.run(f"set -- back\n{text}") == (0, "")
    assert (machine.folder / "0000:00:01.0").read_text() == "001d\n"


def test_acs_stays_in_a_virtual_machine(machine: Machine) -> None:
    guard = next(it for it in bundle(acs="off").parts if isinstance(it, Guard))
    machine.command("systemd-detect-virt", "echo kvm")
    status, said = machine.run(guard.script)
    assert (status, "a virtual machine (kvm)" in said) == (1, True)
    machine.command("systemd-detect-virt", "echo none; exit 1")
    assert machine.run(guard.script) == (0, "")
