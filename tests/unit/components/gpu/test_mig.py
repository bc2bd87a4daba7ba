"""GPUs that are cut: what a node gets, and the program on a machine with a stand-in for nvidia-smi.

tests/lab/test_mig.py has real systemd and Slurm."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from components.gpu import geometry
from components.gpu.geometry import GEOMETRY
from components.gpu.mig import OURS, PROGRAM, UNIT, mig_bundle
from components.gpu.mig_in_use import used_bundle
from components.gpu.nvidia import nvidia_bundle
from remote.bundle import Bundle, File, Unit, Withdrawal
from settings import parse
from tests.unit.components.gpu.test_nvidia import SYSTEMCTL, Machine, script
from tests.unit.components.test_cluster import HARDWARE, bare

CUT = {"0": {"3g.40gb": 2}, "1": {"1g.10gb": 2, "3g.40gb": 1}}
WHOLE = {"Type": "h100", "Count": 1, "AutoDetect": "nvml"}


def settings(mig: Any = CUT, **changes: Any) -> Any:
    nodes = [{"hosts": "cn01", "mig": mig, "Gres": [WHOLE]}, {"hosts": "cn02", "Gres": []}]
    return parse({**bare(), "nodes": nodes, **changes})


def bundle(mig: Any = CUT, **changes: Any) -> Bundle:
    read = settings(mig, **changes)
    hardware = dict.fromkeys(read.compute, HARDWARE)
    return mig_bundle("cn01", read.compute["cn01"], read, hardware)


def used(mig: Any = CUT) -> Bundle:
    read = settings(mig)
    return used_bundle("cn01", read.compute["cn01"], read, {"cn01": HARDWARE})


def file(made: Bundle, path: str) -> str:
    (text,) = (it.content for it in made.parts if isinstance(it, File) and it.path == path)
    assert isinstance(text, str)
    return text


def withdrawal(made: Bundle) -> Withdrawal:
    (out,) = (part for part in made.parts if isinstance(part, Withdrawal))
    return out


#: In this order.
WATCHING = (
    "nvidia-dcgm.service", "dcgm.service", "nvsm.service", "dcgm-exporter.service",
    "nvidia-dcgm-exporter.service",
)  # fmt: skip
#: MIG mode in $ROOT/mode.N, instances in $ROOT/instances.N, a line each; three GPUs. A profile
#: `9g` finds no place.
NVIDIA_SMI = r"""
[ ! -e "$ROOT/broken" ] || { echo 'NVIDIA-SMI has failed'; exit 9; }
gpu=; [ "$1" != -i ] || { gpu=$2; shift 2; }
[ "$1" != mig ] || { shift; [ "$1" != -i ] || { gpu=$2; shift 2; }; set -- mig "$@"; }
mode() { cat "$ROOT/mode.$1" 2>/dev/null || echo Disabled; }
case $1 in
  --query-gpu=mig.mode.current) mode "$gpu" ;;
  --query-gpu=index,mig.mode.current) for gpu in 0 1 2; do echo "$gpu, $(mode $gpu)"; done ;;
  -L)
    for gpu in 0 1 2; do
      echo "GPU $gpu: NVIDIA H100 80GB HBM3 (UUID: GPU-$gpu)"
      at=0
      for profile in $(cat "$ROOT/instances.$gpu" 2>/dev/null); do
        echo "  MIG $profile     Device  $at: (UUID: MIG-$gpu-$at)"; at=$((at + 1))
      done
    done ;;
  *)
    echo "nvidia-smi $gpu $*" >>"$ROOT/log"
    case $1.$2 in
      -mig.1)
        [ ! -e "$ROOT/pending" ] || { echo 'Warning: MIG mode is in pending enable state'; exit 0; }
        echo Enabled >"$ROOT/mode.$gpu" ;;
      -mig.0) rm "$ROOT/mode.$gpu" ;;
      mig.-dci) ;;
      mig.-dgi)
        [ -s "$ROOT/instances.$gpu" ] || { echo 'No GPU instances found: Not Found'; exit 6; }
        rm "$ROOT/instances.$gpu" ;;
      mig.-cgi) [ ! -e "$ROOT/full" ] || { echo 'Insufficient Resources'; exit 19; }
        echo "$3" | tr , '\n' >"$ROOT/instances.$gpu" ;;
    esac ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.command("nvidia-smi", NVIDIA_SMI)
    made.command("getconf", "echo 100")
    made.command("timeout", 'shift; exec "$@"')
    made.write("proc/uptime", "500.25 900.00\n")
    (tmp_path / "run").mkdir()
    return made


def program(machine: Machine, verb: str, mig: Any = CUT) -> tuple[int, str]:
    made = bundle(mig)
    machine.write(GEOMETRY.lstrip("/"), file(made, GEOMETRY))
    machine.command("mig", file(made, PROGRAM).replace("${SLURMSTACK_ROOT-}", "$ROOT"))
    return machine.run(f"mig {verb}")


def instances(machine: Machine) -> dict[int, list[str]]:
    found = {}
    for gpu in range(3):
        path = machine.folder / f"instances.{gpu}"
        if (machine.folder / f"mode.{gpu}").exists():
            found[gpu] = path.read_text().split() if path.exists() else []
    return found


def test_a_job_does_not_meet_another_geometry() -> None:
    out = withdrawal(bundle())
    assert (out.unit, out.on) == ("slurmd.service", (GEOMETRY,))
    assert OURS in out.script
    assert [it.name for it in bundle().parts if isinstance(it, Unit)] == [UNIT]
    # What is made by hand at a boot is no matter of jobs: they come after.
    unit = file(bundle(), f"/etc/systemd/system/{UNIT}")
    assert f"\nExecStart={PROGRAM} set\n" in unit
    before = next(line for line in unit.splitlines() if line.startswith("Before="))
    assert "slurmd.service" in before
    after = next(line for line in unit.splitlines() if line.startswith("After="))
    assert "nvidia-persistenced.service" in after


def test_another_geometry_of_the_same_gres_is_given_back_anew() -> None:
    assert used({"0": {"3g.40gb": 2}}).render() != used({"1": {"3g.40gb": 2}}).render()


def test_whole_gpus_are_cut_and_stay_so(machine: Machine) -> None:
    status, said = program(machine, "look")
    assert status == 1
    assert said == (
        "GPU 0 is whole, expected MIG with 2 × 3g.40gb; "
        "GPU 1 is whole, expected MIG with 1 × 3g.40gb + 2 × 1g.10gb\n"
    )
    assert program(machine, "set") == (0, "")
    assert instances(machine) == {0: ["3g.40gb"] * 2, 1: ["3g.40gb", "1g.10gb", "1g.10gb"]}
    assert machine.log == [
        *(f"stop {unit}" for unit in WATCHING),
        "nvidia-smi 0 -mig 1", "nvidia-smi 0 mig -cgi 3g.40gb,3g.40gb -C",
        "nvidia-smi 1 -mig 1", "nvidia-smi 1 mig -cgi 3g.40gb,1g.10gb,1g.10gb -C",
        f"start {' '.join(WATCHING)}",
    ]  # fmt: skip
    (machine.folder / "log").unlink()
    assert program(machine, "look") == (0, "")
    assert program(machine, "set") == (0, "")
    assert machine.log == []


def test_only_what_is_other_is_touched(machine: Machine) -> None:
    program(machine, "set")
    (machine.folder / "log").unlink()
    machine.write("instances.1", "3g.40gb\n1g.10gb\n")
    machine.write("mode.2", "Enabled\n")
    status, said = program(machine, "look")
    assert (status, "GPU 0" in said) == (1, False)
    assert (
        "GPU 1 is MIG with 1 × 3g.40gb + 1 × 1g.10gb, expected MIG with 1 × 3g.40gb + 2 × 1g.10gb"
        in said
    )
    assert "GPU 2 is MIG with no instance, expected whole" in said
    assert program(machine, "set") == (0, "")
    assert instances(machine) == {0: ["3g.40gb"] * 2, 1: ["3g.40gb", "1g.10gb", "1g.10gb"]}
    assert [line for line in machine.log if line.startswith("nvidia-smi")] == [
        "nvidia-smi 1 mig -dci", "nvidia-smi 1 mig -dgi",
        "nvidia-smi 1 mig -cgi 3g.40gb,1g.10gb,1g.10gb -C",
        "nvidia-smi 2 mig -dci", "nvidia-smi 2 mig -dgi", "nvidia-smi 2 -mig 0",
    ]  # fmt: skip


def test_all_are_whole_again(machine: Machine) -> None:
    program(machine, "set")
    assert program(machine, "off") == (0, "")
    assert instances(machine) == {}
    program(machine, "set")
    assert program(machine, "set", {}) == (0, "")
    assert instances(machine) == {}


def test_gpus_that_a_process_has_are_left(machine: Machine) -> None:
    (machine.folder / "proc/7/fd/3").symlink_to(machine.folder / "dev/nvidia0")
    status, said = program(machine, "set")
    assert status == 1
    assert "GPU 0 is whole, expected MIG with 2 × 3g.40gb" in said
    assert "held by python (7)" in said
    assert not [line for line in machine.log if line.startswith("nvidia-smi")]
    # What was stopped for it runs again.
    assert machine.log[-1].startswith("start nvidia-dcgm.service")
    # The persistence daemon keeps no GPU from being cut.
    machine.write("proc/7/comm", "nvidia-persiste\n")
    assert program(machine, "set") == (0, "")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("full", "nvidia-smi mig -i 0 -cgi 3g.40gb,3g.40gb -C: Insufficient Resources"),
        ("pending", "-mig 1: Warning: MIG mode is in pending enable state; reboot the node"),
    ],
)
def test_what_nvidia_smi_says_against_it_is_told(machine: Machine, made: str, said: str) -> None:
    machine.write(made, "")
    status, told = program(machine, "set")
    assert (status, said in told) == (1, True), told
    assert "GPU 1 is whole" in told


def test_gpus_that_are_not_there_and_a_driver_that_does_not_answer(machine: Machine) -> None:
    status, said = program(machine, "look", {"3": {"7g.80gb": 1}})
    assert (status, said) == (1, "GPU 3 is not there, expected MIG with 1 × 7g.80gb\n")
    machine.write("mode.0", "[N/A]\n")
    assert "GPU 0 is whole and has no MIG, expected MIG" in program(machine, "look")[1]
    machine.write("broken", "")
    for verb in ("look", "set"):
        status, said = program(machine, verb)
        assert (status, "NVIDIA-SMI has failed" in said) == (2, True)


def test_slurmd_begins_anew_where_it_began_before(machine: Machine) -> None:
    machine.command("systemctl", "case $* in *MainPID*) echo 9 ;; *) " + SYSTEMCTL + " ;; esac")
    machine.write("slurmd", "")
    stat = "9 (slurm d) S " + " ".join(["0"] * 18) + " {} 0 0\n"
    machine.write("proc/9/stat", stat.format(50024))
    assert program(machine, "again") == (0, "")
    assert machine.log == []  # nothing was cut
    program(machine, "set")
    for started, restarted in ((50024, True), (50025, True), (50026, False)):
        machine.write("proc/9/stat", stat.format(started))
        (machine.folder / "log").unlink(missing_ok=True)
        assert program(machine, "again") == (0, "")
        assert (machine.log == ["restart slurmd.service"]) is restarted, started


def placed(machine: Machine) -> None:
    """The program where the bundle's scripts look for it."""
    program(machine, "look")
    target = machine.folder / PROGRAM.lstrip("/")
    target.parent.mkdir(parents=True)
    (machine.bin / "mig").rename(target)


def test_gpus_of_a_node_in_use_are_not_cut(machine: Machine) -> None:
    placed(machine)
    machine.write("slurmd", "")
    machine.write("state", "MIXED")
    machine.write("jobs", "7 (root)")
    rooted = 'export SLURMSTACK_ROOT="$ROOT"\n'
    status, said = machine.run(rooted + script(bundle(), "instances"))
    assert status == 1
    assert "GPU 0 is whole, expected MIG with 2 × 3g.40gb" in said
    assert "and cn01 is in use (MIXED, jobs: 7 (root)): slurmstack node drain cn01" in said
    assert instances(machine) == {}
    machine.write("state", "IDLE+DRAIN")
    machine.write("jobs", "")
    assert machine.run(rooted + script(bundle(), "instances")) == (0, "")
    assert instances(machine).keys() == {0, 1}
    # Nor are they made whole under jobs.
    machine.write("state", "MIXED")
    status, said = machine.run(script(bundle(), "instances-stay"))
    assert (status, "expected whole" in said) == (1, True), said
    machine.write("state", "IDLE+DRAIN")
    assert machine.run(script(bundle(), "instances-stay")) == (0, "")


def serve(machine: Machine, verb: str) -> tuple[int, str]:
    machine.command("scontrol", 'echo "scontrol $*" >>"$ROOT/log"; cat "$ROOT/node"')
    text = withdrawal(bundle()).script
    return machine.run(f"export SLURMSTACK_SERVICE={verb} SLURMSTACK_PROCESS=$$\n{text}")


NODE = "   Gres={}\n   State=IDLE+DRAIN\n   Reason={}\n"


def test_a_node_is_drained_for_what_is_other_alone(machine: Machine) -> None:
    machine.write("node", "   Gres=\n   State=IDLE\n   Reason=\n")
    assert serve(machine, "out") == (0, "")
    assert f"scontrol update NodeName=cn01 State=DRAIN Reason={OURS}" in machine.log
    program(machine, "set")
    (machine.folder / "log").unlink()
    assert serve(machine, "out") == (4, "")
    assert machine.log == []
    machine.write("broken", "")
    status, said = serve(machine, "out")
    assert (status, "nvidia-smi does not tell of its GPUs" in said) == (1, True)
    assert machine.log == []


@pytest.mark.parametrize(
    ("gres", "status"),
    [
        ("gpu:h100:3(S:0-1)", 4),
        ("gpu:1g.10gb:2(S:0),gpu:3g.40gb:2(S:0),gpu:h100:1", 4),
        ("gpu:3g.40gb:3(S:0,2),gpu:h100:1(S:1),gpu:1g.10gb:2,shard:4", 0),
    ],
)
def test_it_is_given_back_where_slurmctld_has_the_instances(
    machine: Machine, gres: str, status: int
) -> None:
    """By `mig` where nothing of slurm.conf changes, else by `mig-used`."""
    machine.write("node", NODE.format(gres, "of a person [root@now]"))
    assert serve(machine, "back")[0] == status
    placed(machine)
    text = 'export SLURMSTACK_ROOT="$ROOT" SLURMSTACK_WAIT=0\n' + script(used(), "used")
    got, said = machine.run(text)
    assert (got == 0) == (status == 0), said
    assert status == 0 or "expected gpu:1g.10gb:2,gpu:3g.40gb:3,gpu:h100:1" in said
    # A person's drain stays.
    assert not [line for line in machine.log if line.startswith("scontrol update")]


JOBS = """\
JobId=11 JobState=PENDING Reason=Resources TresPerNode=gres/gpu:3g.40gb:1 NodeList=
JobId=12 JobState=RUNNING TresPerNode=gres/gpu:2g.20gb:1 NodeList=cn01
JobId=13 JobState=PENDING TresPerJob=gres/gpu:2g.20gb:4
JobId=14 JobState=PENDING TresPerNode=gres/gpu:2g.20gb+me:1
JobId=15 JobState=PENDING TresPerNode=gres/gpu:1 X=
"""


def test_jobs_that_wait_for_what_goes_are_named_before_anything(machine: Machine) -> None:
    machine.write("jobs-shown", JOBS)
    shown = 'case $* in *job*) cat "$ROOT/jobs-shown" ;; *) cat "$ROOT/node" ;; esac'
    machine.command("scontrol", shown)
    text = script(bundle(), "jobs-wait")
    machine.write("node", "   Gres=gpu:2g.20gb:3(S:0),gpu:h100:1\n")
    assert machine.run(text) == (0, "")  # no slurmd: it is new
    machine.write("slurmd", "")
    status, said = machine.run(text)
    assert status == 1
    assert "jobs wait for gpu:2g.20gb, which no node will have: 13." in said
    machine.write("node", "   Gres=gpu:3g.40gb:3,gpu:h100:1\n")
    assert machine.run(text) == (0, "")
    with pytest.raises(AssertionError, match="jobs-wait"):
        script(bundle(guards={"allowJobLoss": True}), "jobs-wait")


def test_a_key_that_goes_while_gpus_are_cut_is_refused() -> None:
    """What leaves the settings is taken back after slurm.conf has changed."""

    def left(mig: Any, was: Any) -> list[str]:
        of_cn01 = {} if mig is None else {"mig": mig}
        nodes = [{"hosts": "cn01", **of_cn01, "Gres": [WHOLE]}, {"hosts": "cn02"}]
        files = {} if was is None else {GEOMETRY: digest(was)}
        inventory = {"cn01": {"files": files}, "cn02": {"lost": True}, "cn03": {}}
        return geometry.left_cut(parse({**bare(), "nodes": nodes}), inventory)

    assert left(None, CUT) == ["cn01"]
    for mig, was in ((CUT, CUT), ({}, CUT), (None, {}), (None, None)):
        assert left(mig, was) == [], (mig, was)


def digest(mig: Any) -> str:
    return hashlib.sha256(file(bundle(mig), GEOMETRY).encode()).hexdigest()


def test_an_exchange_of_the_drivers_modules_is_followed_by_it(machine: Machine) -> None:
    text = script(nvidia_bundle("cn01", *with_driver()), "driver-loaded")
    target = machine.folder / PROGRAM.lstrip("/")
    target.parent.mkdir(parents=True)
    target.write_text(f'#!/bin/sh\necho "mig $1" >>"{machine.folder}/log"\n')
    target.chmod(0o755)
    machine.loaded("570.172.08")
    assert machine.run(text) == (0, "")
    assert "mig set" not in machine.log
    machine.loaded("570.158.01")
    assert machine.run(text) == (0, "")
    assert machine.log[-2:] == ["mig set", "mig again"]


def with_driver() -> tuple[Any, Any]:
    read = settings(nvidia={"driver": {"version": "570.172.08-0ubuntu1"}})
    return read, dict.fromkeys(read.compute, HARDWARE)
