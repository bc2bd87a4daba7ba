"""Programs that Slurm's files name: placed, or looked for, before a slurm.conf names them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

from components.configuration import job_programs
from components.configuration.programs import programs_bundle
from components.configuration.slurm_conf import slurm_conf
from components.controller.slurm_controller import controller_bundle
from remote.bundle import Bundle, Check, File, Unit, Validate
from settings import Settings, parse
from settings.scripts import JobProgram, interpreter
from tests.unit.components.test_cluster import (
    HARDWARE,
    bare,
    commands,
    deploy,
    deploy_all,
    deployed,
    plain,
)
from tests.unit.components.test_cluster import Node as MockNode
from tests.unit.settings.test_settings import mistakes

SCRIPTS = (
    "Prolog", "Epilog", "TaskProlog", "TaskEpilog", "UnkillableStepProgram", "PrologSlurmctld",
    "ResumeProgram", "SrunProlog", "job_submit.lua", "cli_filter.lua",
)  # fmt: skip


@pytest.fixture
def scripts(tmp_path: Path) -> dict[str, str]:
    """A local file for each, as slurmstack:scripts names them."""
    for name in SCRIPTS:
        head = "--\n" if name.endswith(".lua") else "#!/bin/sh\n"
        (tmp_path / name).write_text(f"{head}# {name} of the site\n")
    return {name: str(tmp_path / name) for name in SCRIPTS}


def settings(**changes: Any) -> Settings:
    hosts = {**bare()["hosts"], "in": "10.73.0.12"}
    roles = {"controller": "ctl", "login": "in"}
    return parse({**bare(), "hosts": hosts, "roles": roles, "slurm": {}, **changes})


def files(bundle: Bundle) -> dict[str, File]:
    return {part.path: part for part in bundle.parts if isinstance(part, File)}


def conf(found: Settings) -> list[str]:
    return slurm_conf(found, dict.fromkeys(found.compute, HARDWARE)).splitlines()


def test_scripts_reach_the_hosts_that_run_them(scripts: dict[str, str]) -> None:
    found = settings(scripts=scripts)
    place = "/etc/slurmstack/scripts"
    on_nodes = {f"{place}/{name}" for name in SCRIPTS if name.startswith(("Task", "Unki", "Srun"))}
    on_login = {f"{place}/SrunProlog"}
    on_head = {*on_login, f"{place}/PrologSlurmctld", f"{place}/ResumeProgram"}
    for node, paths in (("cn01", on_nodes), ("in", on_login), ("ctl", on_head)):
        placed = files(programs_bundle(node, found))
        assert set(placed) == paths
        assert {file.mode for file in placed.values()} == {"0755"}
        for path, file in placed.items():
            assert f"# {path.rpartition('/')[2]} of the site\n" in str(file.content)


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_script_ends_with_a_newline(tmp_path: Path, end: str) -> None:
    script = tmp_path / "epilog"
    script.write_text(f"#!/bin/sh\ntrue{end}")
    found = settings(scripts={"TaskEpilog": str(script)})
    (file,) = files(programs_bundle("cn01", found)).values()
    assert file.content == "#!/bin/sh\ntrue\n"


def test_what_slurmctld_serves_is_beside_slurm_conf(scripts: dict[str, str]) -> None:
    found = settings(scripts=scripts)
    bundle = controller_bundle("ctl", found, dict.fromkeys(found.compute, HARDWARE))
    held = files(bundle)
    wanted = {
        "/etc/slurm/slurmstack-prolog": ("0755", "Prolog"),
        "/etc/slurm/slurmstack-epilog": ("0755", "Epilog"),
        "/etc/slurm/job_submit.lua": ("0644", "job_submit.lua"),
        "/etc/slurm/cli_filter.lua": ("0644", "cli_filter.lua"),
    }
    for path, (mode, name) in wanted.items():
        assert held[path].mode == mode
        assert f"# {name} of the site" in str(held[path].content)
    (unit,) = [part for part in bundle.parts if isinstance(part, Unit)]
    assert set(wanted) <= set(unit.reload_on)


def test_slurm_conf_names_them(scripts: dict[str, str]) -> None:
    lines = conf(settings(scripts=scripts))
    place = "/etc/slurmstack/scripts"
    assert {
        # Without a folder: slurmctld serves them, so that all nodes change over at once.
        "Prolog=slurmstack-prolog",
        "Epilog=slurmstack-epilog",
        f"TaskProlog={place}/TaskProlog",
        f"TaskEpilog={place}/TaskEpilog",
        f"UnkillableStepProgram={place}/UnkillableStepProgram",
        f"PrologSlurmctld={place}/PrologSlurmctld",
        f"ResumeProgram={place}/ResumeProgram",
        f"SrunProlog={place}/SrunProlog",
        "JobSubmitPlugins=lua",
        "CliFilterPlugins=lua",
    } <= {*lines}
    given = {"extra": {"JobSubmitPlugins": "require_timelimit,lua"}}
    lines = conf(settings(scripts={"job_submit.lua": scripts["job_submit.lua"]}, slurm=given))
    assert [line for line in lines if line.startswith("JobSubmit")] == [
        "JobSubmitPlugins=require_timelimit,lua"
    ]


def test_reboot_works_as_it_is() -> None:
    assert "RebootProgram=/usr/sbin/reboot" in conf(settings())
    own = conf(settings(slurm={"RebootProgram": "/usr/local/sbin/reboot-node"}))
    assert [line for line in own if line.startswith("RebootProgram")] == [
        "RebootProgram=/usr/local/sbin/reboot-node"
    ]


def check(node: str, found: Settings) -> tuple[int, str]:
    """What the look at a host's programs says on this one."""
    (script,) = [
        part.script for part in programs_bundle(node, found).parts if isinstance(part, Check)
    ]
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_what_a_host_is_to_have_is_looked_for(tmp_path: Path) -> None:
    program = tmp_path / "prolog"
    found = settings(slurm={"Prolog": str(program)})
    status, said = check("cn01", found)
    assert status == 1
    assert f"Prolog names {program}, which is not there: put it there, or have a local" in said
    program.write_text("#!/bin/sh\n")
    status, said = check("cn01", found)
    assert (status, f"cannot be executed: chmod 0755 {program}" in said) == (1, True)
    program.chmod(0o755)
    assert check("cn01", found) == (0, "")


@pytest.mark.parametrize(
    ("changes", "nodes"),
    [
        ({"slurm": {"Epilog": "/no/such"}}, {"cn01", "cn02"}),
        ({"slurm": {"Epilog": "/no/such/*"}}, {"cn01", "cn02"}),
        ({"slurm": {"extra": {"MailProg": "/no/such#1/it"}}}, {"ctl"}),
        ({"slurm": {"HealthCheckProgram": "/no/such -x"}}, {"cn01", "cn02"}),
        ({"slurm": {"extra": {"taskprolog": "/no/such"}}}, {"cn01", "cn02"}),
        ({"slurm": {"extra": {"SuspendProgram": "/no/such"}}}, {"ctl"}),
        ({"slurm": {"extra": {"MailProg": "/no/such"}}}, {"ctl"}),
        ({"slurm": {"extra": {"SrunEpilog": "/no/such"}}}, {"ctl", "cn01", "cn02", "in"}),
        ({"slurm": {"extra": {"JobSubmitPlugins": "lua"}}}, {"ctl"}),
        ({"slurm": {"extra": {"PlugStackConfig": "/no/such"}}}, {"ctl", "cn01", "cn02", "in"}),
        ({"healthCheck": {"program": "/no/such"}}, {"cn01", "cn02"}),
        ({"jobContainer": {"BasePath": "/t", "InitScript": "/no/such"}}, {"cn01", "cn02"}),
    ],
)
def test_each_is_looked_for_where_it_runs(changes: dict[str, Any], nodes: set[str]) -> None:
    found = settings(**changes)
    assert {node for node in found.members if programs_bundle(node, found).parts} == nodes
    for node in nodes:
        status, said = check(node, found)
        assert (status, "which is not there" in said) == (1, True)


def test_a_pattern_names_all_that_match_it(tmp_path: Path) -> None:
    folder = tmp_path / "pro log.d"
    folder.mkdir()
    found = settings(slurm={"Prolog": str(tmp_path / "*.d" / "*.sh")})
    assert check("cn01", found)[0] == 1
    for name in ("10-a.sh", "20-b.sh"):
        (folder / name).write_text("#!/bin/sh\n")
    (folder / "10-a.sh").chmod(0o755)
    status, said = check("cn01", found)
    assert (status, f"chmod 0755 {folder}/20-b.sh" in said, "10-a.sh" in said) == (1, True, False)
    (folder / "20-b.sh").chmod(0o755)
    assert check("cn01", found) == (0, "")


def test_a_script_whose_interpreter_is_missing(tmp_path: Path) -> None:
    script = tmp_path / "epilog"
    script.write_text("#!/usr/bin/env no-such-shell\n")
    status, said = check("cn01", settings(scripts={"Epilog": str(script)}))
    assert (status, "Epilog is run by no-such-shell, which is not there" in said) == (1, True)
    assert interpreter("#! /bin/bash -e\n") == "/bin/bash"
    assert interpreter("#!/usr/bin/env -S python3 -u\n") == "python3"


def test_the_controller_waits_for_all_of_them(scripts: dict[str, str]) -> None:
    made, _ = deploy(slurm={}, scripts={"TaskProlog": scripts["TaskProlog"]})
    assert {"cn01-programs", "cn02-programs"} <= set(commands(made))
    # Nothing is looked for, and nothing more is deployed, where no program is named.
    assert not [name for name in commands(deployed(slurm={})[0]) if name.endswith("-programs")]


def test_a_lost_host_keeps_its_resource(scripts: dict[str, str]) -> None:
    """Else it would be deleted, on a machine that is not there."""
    lost = {"address": "10.73.0.22", "lost": True}
    hosts = {"ctl": "10.73.0.10", "cn01": "10.73.0.21", "cn02": lost}
    placed = {"TaskProlog": scripts["TaskProlog"]}
    made, _ = deploy(slurm={}, scripts=placed, hosts=hosts)
    assert "cn02-programs" in commands(made)


def test_a_dropped_script_stays_until_the_role_goes(scripts: dict[str, str]) -> None:
    text = programs_bundle("cn01", settings(scripts=scripts)).render()
    assert "file /etc/slurmstack/scripts/TaskProlog root:root 0755 lasting\n" in text


def test_the_environment_of_jobs_is_there_before_slurm_conf_names_it() -> None:
    found = settings(jobEnvironment={"A": 1})
    made, _ = deploy_all(MockNode(), found, dict.fromkeys(found.compute, HARDWARE))
    text = plain(commands(made)["cn01-programs"]["stdin"])
    assert "file /etc/slurmstack/scripts/TaskProlog root:root 0755 lasting\n" in text


THROTTLE = {"extra": {"JobSubmitPlugins": "throttle"}}


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"scripts": {"Prologue": "x"}}, "slurmstack:scripts.Prologue", "'Prolog'"),
        ({"scripts": {"Prolog": "no/such"}}, "slurmstack:scripts.Prolog", "a file, from "),
        ({"scripts": {"Prolog": "CRLF"}}, "slurmstack:scripts.Prolog", "dos2unix"),
        ({"scripts": {"Prolog": "EMPTY"}}, "slurmstack:scripts.Prolog", "not empty"),
        ({"scripts": {"Prolog": "BINARY"}}, "slurmstack:scripts.Prolog", "a text file"),
        ({"scripts": {"Prolog": "BARE"}}, "slurmstack:scripts.Prolog", "such as #!/bin/sh"),
        (
            {"scripts": {"Prolog": "GOOD"}, "slurm": {"Prolog": "/x"}},
            "slurmstack:scripts.Prolog",
            "not in both",
        ),
        (
            {"scripts": {"TaskProlog": "GOOD"}, "jobEnvironment": {"A": 1}},
            "slurmstack:scripts.TaskProlog",
            "no TaskProlog beside",
        ),
        (
            {"scripts": {"job_submit.lua": "GOOD"}, "slurm": THROTTLE},
            "slurmstack:slurm.extra.JobSubmitPlugins",
            "lua among it",
        ),
    ],
)
def test_mistakes(changes: dict[str, Any], path: str, says: str, tmp_path: Path) -> None:
    contents = {
        "CRLF": b"#!/bin/sh\r\n", "EMPTY": b"\n", "BINARY": b"\x7fELF\xff", "BARE": b"true\n",
        "GOOD": b"#!/bin/sh\n",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    if "scripts" in changes:
        placed = {
            name: str(tmp_path / value) if value in contents else value
            for name, value in changes["scripts"].items()
        }
        changes = {**changes, "scripts": placed}
    found = mistakes(changes)
    assert says in found.get(path, ""), found


def ours(*parameters: Literal["Prolog", "Epilog"]) -> tuple[Any, ...]:
    """Components that add programs: one before the site's own, one after them."""

    def early(_: Settings) -> list[JobProgram]:
        return [JobProgram(name, "early", f"#!/bin/sh\n# early {name}\n") for name in parameters]

    def late(_: Settings) -> list[JobProgram]:
        text = "#!/bin/sh\n# late {name}\n"
        return [JobProgram(name, "late", text, after_site=True) for name in parameters]

    return (late, early)


def test_programs_of_ours_run_beside_those_of_the_site(
    scripts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_programs, "SOURCES", ours("Epilog"))
    place = "/etc/slurmstack/scripts"
    placed = {"Prolog": scripts["Prolog"], "Epilog": scripts["Epilog"]}
    cases: tuple[tuple[dict[str, Any], str | None], ...] = (
        ({"scripts": placed}, "slurmstack-epilog"),
        ({"slurm": {"Epilog": "/opt/site/epilog.d/*"}}, "/opt/site/epilog.d/*"),
        ({}, None),
    )
    for changes, site in cases:
        found = settings(**changes)
        early, late = f"{place}/Epilog-early", f"{place}/Epilog-late"
        wanted = [f"Epilog={name}" for name in (early, site, late) if name]
        assert [line for line in conf(found) if line.startswith("Epilog=")] == wanted
        on_node, on_head = (files(programs_bundle(node, found)) for node in ("cn01", "ctl"))
        assert (on_node[early].mode, on_node[early].lasting) == ("0755", True)
        assert not {name for name in on_head if name.endswith(("-early", "-late"))}
    assert "Prolog=slurmstack-prolog" in conf(settings(scripts=placed))


@pytest.mark.parametrize(
    ("version", "several", "good"),
    [
        ("slurm 23.11.4", True, False),
        ("slurm-wlm 23.11.4", True, False),
        ("slurm 24.05.0", True, True),
        ("slurm-wlm 25.11.1", True, True),
        ("slurm 23.11.4", False, True),
    ],
)
def test_a_slurm_that_takes_one_program_is_not_given_two(
    monkeypatch: pytest.MonkeyPatch, version: str, several: bool, good: bool, tmp_path: Path
) -> None:
    """Before slurm.conf is in place, by the slurmctld that is to read it."""
    monkeypatch.setattr(job_programs, "SOURCES", ours("Prolog")[: 2 if several else 1])
    found = settings()
    bundle = controller_bundle("ctl", found, dict.fromkeys(found.compute, HARDWARE))
    (reader,) = [
        part for part in bundle.parts if isinstance(part, Validate) and part.name == "slurm-conf"
    ]
    part = reader.script.partition("SLURM_CONF=$conf timeout")[0]
    part = part[part.index("words()") :]
    said = subprocess.run(
        ["sh", "-c", f"slurmctld() {{ echo '{version}'; }}\n{part}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (said.returncode == 0) is good, said
    assert ("takes one program for each of Prolog" in said.stdout) is not good


def test_our_own_health_checks_are_on_compute_nodes_alone() -> None:
    made, _ = deploy(slurm={}, healthCheck={"by": "slurmstack"})
    found = {name for name in commands(made) if name.endswith("-health")}
    assert found == {"cn01-health", "cn02-health"}
    programs = plain(commands(made)["cn01-programs"]["stdin"])
    assert "file /etc/slurmstack/scripts/Prolog-health root:root 0755 lasting\n" in programs
    # NHC is what it was.
    assert not [name for name in commands(deploy(slurm={}, healthCheck={})[0]) if "health" in name]
