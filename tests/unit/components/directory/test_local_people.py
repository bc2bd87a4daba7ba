"""What a host is asked before people are made there, and what is made where."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.directory.job_access import administrators, job_access_bundle
from components.directory.local_people import MADE, declared, homes, mismatches, people_bundle
from discovery.identities import numbers
from remote.bundle import Guard
from settings import Settings, parse
from tests.unit.components.test_cluster import bare

PASSWD = "root:x:0:0::/root:/bin/bash\nanna:x:6001:6001::/home/anna:/bin/bash\n"
GROUP = "root:x:0:\nanna:x:6001:\n"


def settings(users: dict[str, Any], **changes: Any) -> Settings:
    local = {"groups": {"optics": {"gid": 6100}}, "users": users}
    return parse({**bare(), "directory": {"local": local, **changes.pop("more", {})}, **changes})


def asked(folder: Path, users: dict[str, Any], passwd: str = PASSWD, group: str = GROUP) -> str:
    """What a host says that has these users and groups."""
    programs = folder / "bin"
    programs.mkdir()
    (folder / "passwd").write_text(passwd)
    (folder / "group").write_text(group)
    getent = (
        '#!/bin/sh\nfile=$1; shift\nfor one; do awk -F : -v one="$one"'
        f" '$1 == one || $3 == one' \"{folder}/$file\"; done\n"
    )
    for name, text in {"getent": getent, "find": "#!/bin/sh\necho $FOUND\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", numbers(settings(users))],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "FOUND": os.environ.get("FOUND", "")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("users", "further", "said"),
    [
        ({"anna": {"uid": 6001}}, "", ""),
        ({"ben": {"uid": 6002}}, "", ""),
        (
            {"anna": {"uid": 6009}},
            "",
            "group anna has the number 6001, and 6009 in the settings\n"
            "user anna has the number 6001, and 6009 in the settings\n",
        ),
        (
            {"ben": {"uid": 6001, "group": "optics"}},
            "",
            "user anna has the number 6001, which ben is to get\n",
        ),
        (
            {"ben": {"uid": 6002}},
            "optics:x:6200:\nother:x:6002:\n",
            "group other has the number 6002, which ben is to get\n"
            "group optics has the number 6200, and 6100 in the settings\n",
        ),
    ],
)
def test_numbers_of_others_are_told(
    users: dict[str, Any], further: str, said: str, tmp_path: Path
) -> None:
    assert asked(tmp_path, users, group=GROUP + further) == said


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("6002 /srv/old/of ben", True),
        ("6002 /home/ben", False),  # the home of one who comes back
        ("6002 /home/ben/.bashrc", False),
        ("6002 /home/ben2", True),
        ("6001 /srv/hers", False),  # known here already
    ],
)
def test_files_of_a_number_without_a_user_are_told(
    found: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOUND", found)
    said = asked(tmp_path, {"anna": {"uid": 6001}, "ben": {"uid": 6002}})
    assert said == (
        f"{found[5:]} is owned by the number 6002, which nobody has here and user ben is to get\n"
        if told
        else ""
    )


@pytest.mark.parametrize(
    ("mounted", "searched"),
    [
        (["/", "/home/anna/data"], {"/home", "/srv"}),
        (["/", "/home"], {"/srv"}),
        (["/", "/srv"], {"/home"}),
    ],
)
def test_what_is_mounted_is_not_looked_into(
    mounted: list[str], searched: set[str], tmp_path: Path
) -> None:
    """A share whose server is gone would hold who looks, at all hosts and before anything else."""
    mounts, told = tmp_path / "mountinfo", tmp_path / "searched"
    mounts.write_text("".join(f"1 1 0:1 / {it} rw - nfs a:/ rw\n" for it in mounted))
    find = tmp_path / "find"
    find.write_text(f'#!/bin/sh\necho "$@" >{told}\n')
    find.chmod(0o755)
    script = numbers(settings({"ben": {"uid": 6002}}))
    path = f"{tmp_path}:{os.environ['PATH']}"
    words = ["sh", "-c", script.replace("/proc/self/mountinfo", str(mounts))]
    subprocess.run(words, env={"PATH": path}, capture_output=True, check=True)
    assert {*told.read_text().split()} & {"/home", "/srv"} == searched


def test_a_home_is_made_by_whoever_has_the_folder() -> None:
    def made(node: str, server: str | None) -> list[str]:
        share = {"server": server, "path": "/export/people", "mount": "/people"}
        home = {"share": "people", "root": "/people/home"} if server else {}
        storage = {"people": share} if server else {}
        it = settings({"anna": {"uid": 6001}}, storage=storage, more={"home": home})
        return [one.folder for one in homes(node, it)]

    assert made("cn01", None) == made("ctl", None) == ["/home/anna"]
    assert made("ctl", "10.9.9.9") == ["/people/home/anna"]
    assert made("cn01", "10.9.9.9") == []
    assert made("ctl", "ctl") == ["/export/people/home/anna"]
    assert made("cn01", "ctl") == []


def test_who_is_made_is_written_down() -> None:
    users = {
        "ben": {"uid": 6002, "group": "optics", "shell": "/bin/sh", "fullName": "Ben B"},
        "anna": {"uid": 6001, "gid": 6011, "groups": ["optics"], "home": "/data/anna"},
    }
    lines = declared("cn01", settings(users)).splitlines()[1:]
    assert lines == [
        "group:anna:6011",
        "group:optics:6100",
        "user:anna:6001:6011:/data/anna:/bin/bash:",
        "user:ben:6002:6100:/home/ben:/bin/sh:Ben B",
        "members:optics:anna",
        "home:/data/anna:6001:6011",
        "home:/home/ben:6002:6100",
    ]


@pytest.mark.parametrize(
    ("made", "jobs", "code", "said"),
    [
        (None, "echo anna: job 7 RUNNING", 0, ""),
        ("user ben\n", "echo anna: job 7 RUNNING", 0, ""),
        ("user anna\nuser ben\n", "", 0, ""),
        ("user anna\nuser ben\n", "echo anna: job 7 RUNNING", 1, "anna: job 7 RUNNING (1 in all)"),
        ("user anna\n", "echo down >&2; exit 1", 1, "does not say whether"),
    ],
)
def test_who_leaves_has_no_jobs(
    made: str | None, jobs: str, code: int, said: str, tmp_path: Path
) -> None:
    """ben is declared."""
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{jobs}\n")
    (tmp_path / "squeue").chmod(0o755)
    if made is not None:
        (tmp_path / "made").write_text(made)
    parts = people_bundle("ctl", settings({"ben": {"uid": 6002}})).parts
    guard = next(it for it in parts if isinstance(it, Guard) and it.name.startswith("leavers"))
    done = subprocess.run(
        ["sh", "-c", guard.script.replace(MADE, str(tmp_path / "made"))],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert said in done.stdout


def test_jobs_are_asked_for_on_the_controller_alone_and_where_they_may_not_be_lost() -> None:
    def asks(node: str, **changes: Any) -> bool:
        bundle = people_bundle(node, settings({"anna": {"uid": 6001}}, **changes))
        return "guard leavers-have-no-jobs" in bundle.render()

    assert asks("ctl")
    assert not asks("cn01")
    assert not asks("ctl", guards={"allowJobLoss": True})


def test_root_and_the_appliers_login_always_get_in() -> None:
    ssh = {**bare()["ssh"], "user": "admin"}
    access = {"users": ["ops", "root"], "groups": ["wheel"]}
    it = parse({**bare(), "ssh": ssh, "directory": {"jobAccess": access}})
    assert administrators("cn01", it) == (["root", "admin", "ops"], ["wheel"])
    text = job_access_bundle("cn01", it).render()
    first, second, third = (
        line.split()[1:] for line in text.splitlines() if line.startswith("  account ")
    )
    assert first == ["sufficient", "pam_succeed_if.so", "quiet", "user", "in", "root:admin:ops"]
    assert second == ["sufficient", "pam_succeed_if.so", "quiet", "user", "ingroup", "wheel"]
    assert third[:2] == ["required", "pam_slurm_adopt.so"]


@pytest.mark.parametrize(("kind", "word"), [("cgroup", "deny"), ("linuxproc", "allow")])
def test_a_session_that_no_job_takes_is_refused_where_jobs_are_confined(
    kind: str, word: str
) -> None:
    slurm = {**bare()["slurm"], "ProctrackType": f"proctrack/{kind}"}
    it = parse({**bare(), "slurm": slurm, "directory": {"jobAccess": {}}})
    assert f"action_adopt_failure={word}" in job_access_bundle("cn01", it).render()


def test_people_and_accounting_are_compared() -> None:
    accounting = {"accounts": {"physics": {}}, "users": {"bob": {"Accounts": ["physics"]}}}
    users = {"anna": {"uid": 6001, "account": "physics"}, "ben": {"uid": 6002}}
    strangers, idle = mismatches(settings(users, accounting=accounting))
    assert "does not have: bob;" in strangers
    assert "without an account: ben;" in idle
