"""Programs that Slurm runs, host lists and GRES, against the real Slurm of a lab."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from components.configuration.served_files import gres_conf
from components.host.lua import lua_is_read
from lab import machine
from settings import parse
from settings.gres import Gres, node_gres
from settings.hostlist import expand
from tests.lab.conftest import RunningLab, await_that
from tests.unit.settings import test_hostlist as hostlists
from tests.unit.settings.test_real_gres import CASES, entries
from tests.unit.settings.test_settings import lab as lab_settings

RAN = "/run/prolog-ran"


def slurm_conf(lab: RunningLab) -> str:
    return lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout


def test_a_program_that_is_not_there_is_refused_before_slurm_conf_names_it(
    restored: RunningLab,
) -> None:
    lab = restored
    before = slurm_conf(lab)
    lab.change(lambda it: it["slurm"].update(Epilog="/opt/site/epilog"))
    said = lab.up(check=False)
    assert "cn01" in said
    assert "Epilog names /opt/site/epilog, which is not there" in said
    assert slurm_conf(lab) == before
    assert lab.ssh("ctl", "srun -N2 hostname").returncode == 0


def test_scripts_run_from_the_first_job_on_and_leave_without_a_trace(
    restored: RunningLab, tmp_path: Path
) -> None:
    lab = restored
    for name in ("Prolog", "UnkillableStepProgram", "PrologSlurmctld"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >>{RAN}-{name}\nexit 0\n")
    (tmp_path / "job_submit.lua").write_text(
        "function slurm_job_submit(request, partitions, uid)\n"
        "  if request.comment == 'refuse me' then return slurm.ERROR end\n"
        "  return slurm.SUCCESS\nend\n"
        "function slurm_job_modify() return slurm.SUCCESS end\nreturn slurm.SUCCESS\n"
    )
    submit = "sbatch --parsable --mem=50 -o /dev/null --wrap 'sleep 600'"
    job = lab.ssh("ctl", submit).stdout.strip()
    await_that(lambda: "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout)
    lab.set(scripts={path.name: str(path) for path in tmp_path.iterdir()})
    lab.up()
    lab.ssh("ctl", "srun -N2 --mem=50 true")
    for node in ("cn01", "cn02"):
        assert "Prolog" in lab.ssh(node, f"cat {RAN}-Prolog").stdout
        unkillable = "/etc/slurmstack/scripts/UnkillableStepProgram"
        assert lab.ssh(node, f"stat -c %a {unkillable}").stdout == "755\n"
    assert lab.ssh("ctl", "sbatch --comment='refuse me' --wrap true", check=False).returncode != 0
    # Another text, and then none: nodes change over with slurm.conf.
    (tmp_path / "Prolog").write_text(f"#!/bin/sh\necho second >>{RAN}-Prolog\n")
    lab.up()
    lab.ssh("ctl", "srun -N2 --mem=50 true")
    assert "second" in lab.ssh("cn02", f"tail -n 1 {RAN}-Prolog").stdout
    lab.set(scripts=None)
    lab.up()
    lab.ssh("ctl", "srun -N2 --mem=50 true")
    drained = lab.ssh("ctl", "sinfo -h -t drain,fail,down -o %n").stdout
    assert drained == ""
    assert "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout
    lab.ssh("ctl", f"scancel {job}")


def test_gpus_and_the_job_container_change_together(restored: RunningLab) -> None:
    lab = restored
    for count in (6, 3, 8):

        def change(it: dict[str, Any], count: int = count) -> None:
            it["nodes"][0]["Gres"][0]["Count"] = count
            it["jobContainer"]["BasePath"] = f"/var/lib/slurm-tmp-{count}"

        lab.change(change)
        lab.up()
        journal = lab.ssh("cn01", "journalctl -u slurmd --no-pager -o cat -n 40").stdout
        assert "timed out" not in journal
        assert f"gpu:h100:{count}" in lab.ssh("ctl", "sinfo -h -n cn01 -o %G").stdout


def _resumed(lab: RunningLab, node: str) -> bool:
    """Whether it is idle; else it is told to resume once more."""
    lab.ssh("ctl", f"scontrol update NodeName={node} State=RESUME", check=False)
    return lab.shown(node, "%T") == "idle"


def test_a_node_is_rebooted(lab: RunningLab) -> None:
    lab.ssh("ctl", "scontrol reboot ASAP nextstate=RESUME reason=kernel cn02")
    await_that(lambda: not machine.is_running(lab.lab, "cn02"))
    lab.boot("cn02")  # a machine inside a container has no firmware that would
    # It has the boot time of the kernel that it shares, too, so that slurmctld goes on waiting for
    # a later one (node_mgr.c) until ResumeTimeout; the resume is the administrator's here.
    await_that(
        lambda: lab.ssh("cn02", "systemctl is-active slurmd", check=False).stdout == "active\n", 120
    )
    await_that(lambda: _resumed(lab, "cn02"))
    assert lab.ssh("ctl", "srun -w cn02 hostname").stdout == "cn02\n"


@pytest.mark.parametrize(("text", "hosts"), hostlists.READ)
def test_slurm_reads_host_lists_so(lab: RunningLab, text: str, hosts: str) -> None:
    shown = lab.ssh("ctl", f"scontrol show hostnames '{text}'").stdout
    assert shown.split() == hosts.split()


_CONF = """\
ClusterName=x
SlurmctldHost=gpu01
AuthType=auth/munge
GresTypes={types}
SlurmdParameters=config_overrides
NodeName=gpu01 CPUs=64 SocketsPerBoard=2 CoresPerSocket=32 RealMemory=1000 Gres={gres}
"""


def asked(gres: tuple[Gres, ...]) -> str:
    """Shell text that has slurmd read this, with files in the place of devices."""
    text = gres_conf({"gpu01": gres}) or ""
    named = re.findall(r"Files?=(\S+)", text)
    files = sorted({f"/tmp/g{file}" for path in named for file in expand(path)})
    text = re.sub(r"AutoDetect=\w+", "AutoDetect=off", text).replace("/dev/", "/tmp/g/dev/")
    types = ",".join(sorted({one.Name for one in gres}))
    conf = _CONF.format(types=types, gres=",".join(node_gres(gres)))
    return "\n".join(
        [
            *(f"install -D /dev/null {file}" for file in files),
            f"cat >/tmp/g/slurm.conf <<'END'\n{conf}END",
            f"cat >/tmp/g/gres.conf <<'END'\n{text}END",
            "slurmd -G -f /tmp/g/slurm.conf -N gpu01 2>&1",
            "echo ====",
        ]
    )


def test_slurmd_takes_what_people_write(lab: RunningLab) -> None:
    """`slurmd -G` finds as many of each as slurm.conf is to have."""
    every: list[tuple[Gres, ...]] = []
    for _, lines in CASES:
        settings = parse({**lab_settings(), "nodes": [{"hosts": "cn01", "Gres": entries(lines)}]})
        every.append(settings.nodes[0].Gres or ())
    first = "mkdir -p /tmp/g; echo CgroupPlugin=disabled >/tmp/g/cgroup.conf"
    script = "\n".join([first, *(asked(gres) for gres in every)])
    answers = lab.send("cn01", "sh", script.encode()).decode().split("====\n")
    for (head, _), gres, answer in zip(CASES, every, answers[:-1], strict=True):
        found: dict[str, int] = {}
        for name, count in re.findall(r"Gres Name=(\S+) .*?Count=(\d+)", answer):
            found[name] = found.get(name, 0) + int(count)
        wanted: dict[str, int] = {}
        for one in gres:
            wanted[one.Name] = wanted.get(one.Name, 0) + (one.count or 0)
        assert found == wanted, (head, answer)


def test_what_is_no_lua_is_named_before_it_is_in_place(lab: RunningLab) -> None:
    """By the compiler of the nodes, which have it with Lmod; its words are the error's."""
    script = lua_is_read(("/m/a.lua", "/m/b.lua")).script
    place = "mkdir -p /tmp/staged/m && echo 'help(\"x\")' >/tmp/staged/m/a.lua && cp /tmp/staged/m/"
    run = f"SLURMSTACK_STAGED=/tmp/staged sh -s 2>&1 <<'END'\n{script}\nEND"
    lab.ssh("cn01", f"{place}a.lua /tmp/staged/m/b.lua && {run}")
    said = lab.ssh("cn01", f"echo 'help(' >/tmp/staged/m/b.lua; {run}", check=False)
    lab.ssh("cn01", "rm -r /tmp/staged")
    assert said.returncode == 1
    assert "/m/b.lua:2: unexpected symbol near <eof>" in said.stdout
