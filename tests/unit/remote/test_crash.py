"""The applier is killed (SIGKILL) before each single thing it does, one run for each such point.

Whatever the point: no file is ever half-written, no secret is ever readable by others, the next
run finishes everything (the reload that was still due, too), and the one after it has nothing to
do. The same for `remove`.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from remote.bundle import Absent, Bundle, Command, Directory, File, Link, Package, Unit, Validate
from tests.unit.remote.machine import Machine

pytestmark = pytest.mark.slow

SECRET = "StoragePass=fnord-4711-geheim\n"
OLD = {"/etc/d.conf": "old configuration\n", "/etc/gone": "to be absent\n", "/etc/d.key": "old\n"}
NEW = {"/etc/d.conf": "new configuration\n", "/etc/d.key": SECRET, "/etc/d/extra": "x\n"}

BUNDLE = Bundle(
    "cn01",
    "demo",
    [
        Package("demo"),
        Directory("/etc/d"),
        Directory("/etc/systemd/system/d.service.d"),
        File("/etc/d.conf", NEW["/etc/d.conf"]),
        File("/etc/d/extra", NEW["/etc/d/extra"]),
        File("/etc/d.key", SECRET, mode="0600"),
        File("/etc/systemd/system/d.service.d/own.conf", "[Service]\n"),
        Link("/etc/link", "d.conf"),
        Absent("/etc/gone"),
        Validate(
            "d",
            'cmp "$SLURMSTACK_STAGED/etc/d.conf" - <<END\nnew configuration\nEND',
            on=("/etc/d.conf", "/etc/d.key"),
        ),
        Command("build", 'cp "$SLURMSTACK_ROOT/etc/d.conf" "$STANDIN/built"', on=("/etc/d.conf",)),
        Unit("d.service", reload_on=("/etc/d.conf",), restart_on=("/etc/d.key",)),
        Unit("e.service", reload_on=("/etc/d.conf",)),
    ],
).render()

SYSTEM = {
    "lists": {"demo": {"versions": ["1"], "depends": ["libd"], "units": ["d.service"]},
              "libd": {"versions": ["1"]}},
    "packages": {"base": {"version": "1"}},
    "units": {
        "d.service": {"active": "inactive", "enabled": "disabled",
                      "reads": ["/etc/d.conf", "/etc/d.key"]},
        "e.service": {"active": "active", "enabled": "enabled", "reads": ["/etc/d.conf"],
                      "loaded": {"/etc/d.conf": OLD["/etc/d.conf"]}},
    },
}  # fmt: skip

# Commands that change something; before each of them the applier can die.
CHANGING = (
    *("mv", "cp", "sync", "rm", "rmdir", "chmod", "chown", "mkdir", "ln", "touch"),
    *("systemctl", "apt-get", "apt-mark", "dpkg"),
)

COUNT = r"""
read -r n <"$STANDIN/count"; n=$((n + 1)); echo $n >"$STANDIN/count"
if [ $n -eq "${CRASH_AT:-0}" ]; then read -r pid <"$STANDIN/pid"; kill -9 "$pid"; exit 137; fi
"""


def prepare(folder: Path) -> Machine:
    machine = Machine(
        folder / "root",
        folder / "standin",
        shell=("sh", "-c", 'echo $$ >"$STANDIN/pid"; exec dash "$@"', "sh"),
    )
    for name in CHANGING:
        real = machine.folder / "bin" / name
        if real.exists():
            text = real.read_text().removeprefix("#!/bin/sh\n")
        else:
            text = f'exec {shutil.which(name, path="/usr/sbin:/usr/bin:/bin")} "$@"'
        machine.tool(name, COUNT + text)
    machine.system(SYSTEM)
    machine.path("/etc/systemd/system").mkdir(parents=True)
    for path, content in OLD.items():
        machine.write(path, content)
    reset(machine, 0)
    return machine


def reset(machine: Machine, crash_at: int) -> None:
    (machine.folder / "count").write_text("0\n")
    machine.environment["CRASH_AT"] = str(crash_at)


def count_points(folder: Path, *, remove: bool) -> int:
    machine = prepare(folder)
    assert machine.apply(BUNDLE).status == 0
    if remove:
        reset(machine, 0)
        assert machine.remove(BUNDLE).status == 0
    return int((machine.folder / "count").read_text())


def assert_whole(machine: Machine) -> None:
    for path in {**OLD, **NEW}:
        target = machine.path(path)
        allowed = {OLD.get(path), NEW.get(path)}
        content = target.read_text() if target.exists() else None
        assert content in allowed | {None}, f"{path} is half-written"
        if path in OLD and path in NEW:
            assert content is not None, f"{path} was away for a moment"


def assert_secret_is_closed(machine: Machine) -> None:
    for path in machine.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and SECRET.strip() in path.read_text("latin-1"):
            folders = [p for p in path.parents if machine.root in p.parents]
            closed = [p for p in (path, *folders) if p.stat().st_mode & 0o077 == 0]
            assert closed, f"{path} can be read by others"


def assert_finished(machine: Machine) -> None:
    for path, content in NEW.items():
        assert machine.path(path).read_text() == content
    assert not machine.path("/etc/gone").exists()
    assert (machine.folder / "built").read_text() == NEW["/etc/d.conf"]
    state = machine.state
    for unit in state["units"].values():
        assert unit["active"] == "active"
        assert unit["loaded"] == {path: NEW[path] for path in unit["reads"]}, "runs with old files"
    assert "package script starts d.service" not in state["calls"]
    assert machine.leftovers() == []


def points(total: int) -> list[int]:
    """Every eighth point, or all (minutes) with SLURMSTACK_EVERY_POINT=1."""
    return list(range(1, total + 1, 1 if os.environ.get("SLURMSTACK_EVERY_POINT") else 8))


def test_apply_survives_a_kill_at_every_point(tmp_path: Path) -> None:
    total = count_points(tmp_path / "count", remove=False)
    assert total > 40
    for point in points(total):
        machine = prepare(tmp_path / str(point))
        reset(machine, point)
        crashed = machine.apply(BUNDLE)
        if crashed.status != -9:  # a pipe's other end was waited for, and the count differs by one
            assert crashed.status == 0
            continue
        assert_whole(machine)
        assert_secret_is_closed(machine)
        reset(machine, 0)
        assert machine.apply(BUNDLE).answer.units["d.service"] == "active", f"point {point}"
        assert_finished(machine)
        assert_secret_is_closed(machine)
        machine.take_calls()
        assert machine.apply(BUNDLE).answer.changed is False, f"point {point}"
        assert machine.take_calls() == [], f"point {point}"
        # And what came is all known, so that it can go again.
        assert machine.remove(BUNDLE).status == 0
        assert_as_before(machine, f"point {point}")
        shutil.rmtree(tmp_path / str(point))


def assert_as_before(machine: Machine, where: str) -> None:
    for path, content in OLD.items():
        assert machine.path(path).read_text() == content, where
    for path in ("/etc/d", "/etc/link", "/var/lib/slurmstack/demo"):
        assert not machine.path(path).exists(), where
    state = machine.state
    assert set(state["packages"]) == {"base"}, where
    assert state["units"]["d.service"]["active"] == "inactive", where
    assert state["units"]["e.service"]["active"] == "active", where
    assert machine.leftovers() == [], where


def test_remove_survives_a_kill_at_every_point(tmp_path: Path) -> None:
    total = count_points(tmp_path / "count", remove=True)
    assert total > 20
    for point in points(total):
        machine = prepare(tmp_path / str(point))
        assert machine.apply(BUNDLE).status == 0
        reset(machine, point)
        crashed = machine.remove(BUNDLE)
        if crashed.status != -9:
            continue
        assert_secret_is_closed(machine)
        reset(machine, 0)
        run = machine.remove(BUNDLE)
        assert run.status == 0, f"point {point}: {run.stderr}"
        assert_as_before(machine, f"point {point}")
        shutil.rmtree(tmp_path / str(point))


@pytest.mark.parametrize("old", [None, "#!/bin/sh\nexit 101\n"])
def test_a_policy_left_by_a_crash_is_harmless_and_goes(
    old: str | None, machine: Machine, tmp_path: Path
) -> None:
    """Killed while packages are installed: the policy stays in place but no longer forbids, and a
    site's own policy behind it is asked again; the next run puts things back."""
    policy = machine.path("/usr/sbin/policy-rc.d")
    if old:
        machine.write("/usr/sbin/policy-rc.d", old, 0o755)
    machine.system({"lists": {"demo": {"versions": ["1"], "units": ["d.service"]}}})
    machine.shell = ("sh", "-c", 'echo $$ >"$STANDIN/pid"; exec dash "$@"', "sh")
    installer = (machine.folder / "bin/apt-get").read_text()
    machine.tool(
        "apt-get",
        f'{policy} d start; echo $? >"$STANDIN/during"; kill -9 "$(cat "$STANDIN/pid")"',
    )
    bundle = Bundle("cn01", "demo", [Package("demo"), Unit("d.service", enabled=None)]).render()
    assert machine.apply(bundle).status == -9
    assert (machine.folder / "during").read_text() == "101\n"
    assert policy.exists()
    environment = {"PATH": "/usr/bin:/bin"}
    after = subprocess.run([str(policy), "d", "start"], env=environment).returncode
    assert after == (101 if old else 0)
    (machine.folder / "bin/apt-get").write_text(installer)
    assert machine.apply(bundle).answer.units == {"d.service": "active"}
    assert "package script starts d.service" not in machine.state["calls"]
    assert (policy.read_text() if policy.exists() else None) == old
