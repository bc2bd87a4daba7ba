"""reconfigure.sh: only a slurmctld that says nothing is started anew (decision 0048). reload.sh:
the nodes have the new slurm.conf, or it is taken back."""

import subprocess
import threading
from pathlib import Path

import pytest

from templates.rendering import render

_CONF = """# comment
ClusterName=c
SlurmctldHost=ctl(10.0.0.1)
AuthType=auth/munge
FooBar=1
NodeName=cn01
"""
#: scontrol as it is with a slurm.conf that it can, or cannot, read.
_SCONTROL = """#!/bin/sh
if grep -q FooBar "${SLURM_CONF:-$ETC/slurm.conf}"; then
    echo "scontrol: error: _parse_next_key: Parsing error at unrecognized key: FooBar" >&2
    echo "scontrol: fatal: Unable to process configuration file" >&2
    exit 1
fi
case $1 in
    ping) grep -v '^$' "$SLURM_CONF" >"$ETC/asked-by"; cat "$ETC/ping" ;;
    reconfigure) echo told >>"$ETC/nodes"; cat "$ETC/reconfigure"; [ ! -s "$ETC/reconfigure" ] ;;
esac
"""
#: systemctl, with a process that ended when another took slurm.conf up; `crash` is for one that
#: took the other with it, `dumping` has the number of one that writes its core before that, and
#: `again` is for one that systemd has started again when it is looked at.
_SYSTEMCTL = """#!/bin/sh
case $* in
    *MainPID*)
        if [ ! -e "$ETC/dumping" ] || [ -e "$ETC/asked" ]; then echo 4194304
        else cat "$ETC/dumping"; touch "$ETC/asked"; fi ;;
    *NRestarts*)
        if [ ! -e "$ETC/again" ] || [ ! -e "$ETC/counted" ]; then echo 0; touch "$ETC/counted"
        else echo 1; fi ;;
    *ActiveState*) if [ -e "$ETC/crash" ]; then echo failed; else echo active; fi ;;
    *) echo "$1" >>"$ETC/told"; [ "$1" != start ] || rm -f "$ETC/crash" ;;
esac
"""
UP = "Slurmctld(primary) at ctl is UP\n"
DOWN = "Slurmctld(primary) at ctl is DOWN\n"
TIMED_OUT = "slurm_reconfigure error: Socket timed out on send/recv operation\n"
REFUSED = "slurm_reconfigure error: Invalid node names\n"


def run(
    folder: Path, conf: str, reconfigure: str, ping: str, script: str = "", **environment: str
) -> tuple[int, str, str]:
    """Exit status, output, and what systemctl was told."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(_SCONTROL)
    (tools / "systemctl").write_text(_SYSTEMCTL)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (folder / "slurm.conf").write_text(conf)
    (folder / "reconfigure").write_text(reconfigure)
    (folder / "ping").write_text(ping)
    script = (script or render("controller/reconfigure.sh")).replace("/etc/slurm", str(folder))
    done = subprocess.run(
        ["dash", "-s"],
        input=script,
        env={
            "PATH": f"{tools}:/usr/bin:/bin",
            "ETC": str(folder),
            "TMPDIR": str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = folder / "told"
    return done.returncode, done.stdout, told.read_text() if told.exists() else ""


@pytest.mark.parametrize(
    ("conf", "reconfigure", "ping", "status", "restarted"),
    [
        (_CONF.replace("FooBar=1\n", ""), "", UP, 0, False),
        (_CONF.replace("FooBar=1\n", ""), REFUSED, UP, 1, False),
        (_CONF.replace("FooBar=1\n", ""), TIMED_OUT, UP, 1, False),
        (_CONF.replace("FooBar=1\n", ""), TIMED_OUT, DOWN, 0, True),
        # The client cannot read the file: that says nothing of slurmctld.
        (_CONF, "", UP, 1, False),
    ],
    ids=["taken up", "refused", "busy", "silent", "a file that the client cannot read"],
)
def test_only_a_silent_slurmctld_is_restarted(
    tmp_path: Path, conf: str, reconfigure: str, ping: str, status: int, restarted: bool
) -> None:
    returned, output, told = run(tmp_path, conf, reconfigure, ping)
    assert returned == status, output
    assert ("start" in told.split()) is restarted
    assert bool(told) is restarted
    if reconfigure == REFUSED:
        assert "Invalid node names" in output
    if conf == _CONF:
        assert "unrecognized key: FooBar" in output
        asked = (tmp_path / "asked-by").read_text()
        assert asked == "ClusterName=c\nSlurmctldHost=ctl(10.0.0.1)\nAuthType=auth/munge\n"
    assert [path.name for path in tmp_path.glob("tmp.*")] == []


def test_a_slurmctld_that_crashed_after_its_answer_is_started_and_asked_again(
    tmp_path: Path,
) -> None:
    """Seen with 24.11.5: the process of before crashed, and systemd ended the new one with it."""
    (tmp_path / "crash").touch()
    returned, output, told = run(tmp_path, _CONF.replace("FooBar=1\n", ""), "", UP)
    assert returned == 0
    assert told.split() == ["reset-failed", "start"]
    assert "slurmctld crashed" in output
    assert "; restarting it" not in output  # reload.sh still looks whether the nodes came back


def test_one_that_systemd_has_started_again_is_asked_again(tmp_path: Path) -> None:
    """It told no node of the new file before it crashed."""
    (tmp_path / "again").touch()
    returned, output, told = run(tmp_path, _CONF.replace("FooBar=1\n", ""), "", UP)
    assert returned == 0
    assert told.split() == ["reset-failed", "start"]
    assert "slurmctld crashed" in output


@pytest.mark.slow
def test_a_core_that_takes_long_to_write_is_waited_for(tmp_path: Path) -> None:
    """Seen on a busy machine: the new one still ran when it was looked at, and then no more."""
    writes = subprocess.Popen(["sh", "-c", f"sleep 5; touch {tmp_path}/crash"])
    (tmp_path / "dumping").write_text(f"{writes.pid}\n")
    reaper = threading.Thread(target=writes.wait)
    reaper.start()
    returned, output, told = run(tmp_path, _CONF.replace("FooBar=1\n", ""), "", UP)
    reaper.join()
    assert (returned, told.split()) == (0, ["reset-failed", "start"])
    assert "slurmctld crashed" in output


#: How nodes come back that were told so often.
_BACK = 'echo {0} >>"$ETC/waits"; [ "$(wc -l <"$ETC/nodes")" -ge {1} ]'


@pytest.mark.parametrize(
    ("reconfigure", "ping", "needed", "environment", "status", "told", "waits"),
    [
        ("", UP, 1, {}, 0, 1, ["soon"]),
        # slurmctld crashed and was started again by systemd a second after its answer.
        ("", UP, 2, {}, 0, 2, ["soon", "back"]),
        ("", UP, 9, {}, 3, 2, ["soon", "back"]),
        (REFUSED, UP, 1, {}, 1, 1, []),
        # The files of before, taken up again: there is nothing to fall back to.
        ("", UP, 9, {"SLURMSTACK_RETURNED": "1"}, 0, 1, []),
    ],
    ids=["at once", "told once more", "not at all", "refused", "put back"],
)
def test_nodes_that_missed_it_are_told_once_more(
    tmp_path: Path,
    reconfigure: str,
    ping: str,
    needed: int,
    environment: dict[str, str],
    status: int,
    told: int,
    waits: list[str],
) -> None:
    soon, back = (f"sh -c '{_BACK.format(name, needed)}'" for name in ("soon", "back"))
    script = render("controller/reload.sh", note=":", soon=soon, back=back)
    conf = _CONF.replace("FooBar=1\n", "")
    returned, output, _ = run(tmp_path, conf, reconfigure, ping, script, **environment)
    assert returned == status, output
    assert len((tmp_path / "nodes").read_text().split()) == told
    waited = tmp_path / "waits"
    assert (waited.read_text().split() if waited.exists() else []) == waits
    assert ("once more" in output) is (told == 2)


def test_a_slurmctld_that_was_restarted_tells_the_nodes(tmp_path: Path) -> None:
    """Started, it tells them nothing: they went on with the file of before, and `up` was green."""
    script = render("controller/reload.sh", note=":", soon="false", back="touch $ETC/looked; true")
    script = script.replace("systemctl start", "sh -c ': >$ETC/reconfigure'; systemctl start")
    conf = _CONF.replace("FooBar=1\n", "")
    returned, output, told = run(tmp_path, conf, TIMED_OUT, DOWN, script)
    assert returned == 0, output
    assert "start" in told.split()
    assert len((tmp_path / "nodes").read_text().split()) == 2
    assert (tmp_path / "looked").exists()
