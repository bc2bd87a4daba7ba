"""`compare`: each kind of difference is planted on a scratch machine and named, and nothing at all
is changed by looking."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from remote.bundle import (
    Absent,
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Group,
    Guard,
    Link,
    Package,
    Part,
    Unit,
    User,
    Validate,
)
from tests.unit.remote.machine import Machine

pytestmark = pytest.mark.slow

SYSTEM: dict[str, Any] = {
    "lists": {"munge": {"versions": ["0.5.16-1"], "units": ["munge.service"]}},
    "packages": {"base-files": {"version": "13"}},
}
KEY, CONF = "/etc/munge/munge.key", "/etc/demo.conf"
PARTS: list[Part] = [
    Guard("never", "touch $SLURMSTACK_ROOT/guard-ran"),
    Package("munge"),
    Directory("/etc/munge", mode="0700"),
    File(KEY, "a secret of the cluster\n", mode="0400"),
    File(CONF, "one\ntwo\nthree\n"),
    Link("/etc/link", "demo.conf"),
    Absent("/etc/gone"),
    Validate("reader", "touch $SLURMSTACK_ROOT/reader-ran", on=(CONF,)),
    Command("made", "exit 0", probe=f'[ -e "$SLURMSTACK_ROOT{CONF}" ]'),
    Unit("munge.service", restart_on=(KEY,), reload_on=(CONF,), reload="true"),
    Check("checked", "touch $SLURMSTACK_ROOT/check-ran; rm $SLURMSTACK_ROOT/check-ran"),
]
DEMO = Bundle("cn01", "demo", PARTS).render()
OTHER = Bundle("cn01", "other", [File("/etc/other", "x\n")]).render()


@pytest.fixture
def deployed(machine: Machine) -> Machine:
    machine.system(SYSTEM)
    if os.geteuid() == 0:
        os.chown(machine.root, 0, 0)
    for bundle in (DEMO, OTHER):
        assert machine.apply(bundle).status == 0
    for left in ("guard-ran", "reader-ran"):
        machine.path(f"/{left}").unlink()
    since = datetime.now(UTC) + timedelta(seconds=2)
    change_unit(machine, since=f"{since:%a %Y-%m-%d %H:%M:%S} UTC", pid=7)
    machine.take_calls()
    return machine


def change_unit(machine: Machine, **values: Any) -> None:
    state = machine.state
    state["units"]["munge.service"].update(values)
    machine.system(state)


def everything(machine: Machine) -> dict[str, Any]:
    """As `tree`, with /run and the times of folders."""
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_mode)
        for path in machine.root.rglob("*")
        if "dev" not in path.relative_to(machine.root).parts
    }


def found(machine: Machine, *bundles: str) -> dict[str, str]:
    """Kind and name → what was found; whatever it is, looking has changed nothing."""
    before = everything(machine)
    comparison = machine.compare(*(bundles or (DEMO, OTHER)))
    assert everything(machine) == before
    assert machine.take_calls() == []
    assert list(machine.path("/dev/shm").iterdir()) == []
    assert comparison.failed == {}
    return {f"{one.kind} {one.name}": one.found for one in comparison.differences}


def test_nothing_differs_after_it_was_applied(deployed: Machine) -> None:
    comparison = deployed.compare(DEMO, OTHER)
    assert comparison.node == os.uname().nodename
    assert comparison.roles == {"demo": [], "other": []}
    assert found(deployed) == {}


def test_files(deployed: Machine) -> None:
    deployed.path(CONF).write_text("one\n2\nthree\n")
    deployed.path(KEY).chmod(0o644)
    deployed.path("/etc/other").unlink()
    deployed.path("/etc/link").unlink()
    deployed.path("/etc/link").symlink_to("elsewhere")
    deployed.write("/etc/gone", "back\n")
    assert found(deployed) == {
        f"file {CONF}": "content",
        f"file {KEY}": "mode 0644, not 0400",
        "file /etc/other": "missing",
        "link /etc/link": "points to elsewhere, not demo.conf",
        "absent /etc/gone": "is there",
    }


def test_the_lines_of_a_file_are_told_and_no_word_of_a_secret(deployed: Machine) -> None:
    deployed.path(CONF).write_text("one\n2\nthree\n")
    deployed.path(KEY).chmod(0o600)
    deployed.path(KEY).write_text("a new secret\n")
    deployed.path(KEY).chmod(0o644)  # everybody may read it now, which makes it no less a secret
    comparison = deployed.compare(DEMO)
    lines = {one.name: one.diff for one in comparison.differences}
    assert lines[CONF][2:] == ("@@ -1,3 +1,3 @@", " one", "-two", "+2", " three")
    assert lines[KEY] == ()
    run = deployed.run("compare", DEMO)
    assert "secret" not in run.stdout + run.stderr


def test_a_file_that_was_closed_to_others_is_not_told(deployed: Machine) -> None:
    deployed.path(CONF).write_text("password=hunter2\n")
    deployed.path(CONF).chmod(0o600)
    run = deployed.run("compare", DEMO)
    assert "content, mode 0600, not 0644" in run.stdout
    assert "hunter2" not in run.stdout + run.stderr


def test_a_link_in_the_place_of_a_file_and_a_directory(deployed: Machine) -> None:
    deployed.path(CONF).unlink()
    deployed.path(CONF).symlink_to("other")
    deployed.path("/etc/munge").chmod(0o755)
    assert found(deployed, DEMO) == {
        f"file {CONF}": "is no regular file",
        "directory /etc/munge": "mode 0755, not 0700",
    }


def test_packages(machine: Machine) -> None:
    machine.system({"packages": {"munge": {"version": "0.4"}}})
    bundle = Bundle("cn01", "demo", [Package("munge", "0.5"), Package("slurmd")]).render()
    differences = found(machine, bundle)
    assert differences.pop("role demo") == "was not applied to this machine"
    assert differences == {"package munge": "0.4, not 0.5", "package slurmd": "missing"}


def test_users_and_groups(machine: Machine) -> None:
    parts: list[Part] = [Group("slurm", 64030), User("slurm", 64030, "slurm"), Group("free")]
    machine.write("/etc/group", "slurm:x:64030:\nusers:x:100:\nfree:x:5:\n")
    machine.write("/etc/passwd", "slurm:x:64030:100:x:/nonexistent:/bin/bash\n")
    bundle = Bundle("cn01", "demo", parts).render()
    assert found(machine, bundle)["user slurm"] == (
        "group 100, not slurm, shell /bin/bash, not /usr/sbin/nologin"
    )
    machine.write("/etc/group", "slurm:x:5:\n")
    machine.write("/etc/passwd", "slurm:x:5:5:x:/nonexistent:/usr/sbin/nologin\n")
    differences = found(machine, bundle)
    assert differences["group slurm"] == "exists with gid 5, not 64030"
    assert differences["user slurm"] == "exists with uid 5, not 64030"
    assert differences["group free"] == "missing"


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ({"enabled": "disabled"}, "disabled, not enabled"),
        ({"active": "failed"}, "failed, not running"),
        ({"load": "masked"}, "is masked"),
        ({"load": "not-found"}, "not found on the node"),
        ({"stale": "yes"}, "is older than its unit file"),
        ({"since": "Thu 2026-01-01 00:00:00 UTC"}, f"is older than {KEY}"),
    ],
)
def test_units(deployed: Machine, unit: dict[str, str], said: str) -> None:
    change_unit(deployed, **unit)
    assert found(deployed, DEMO) == {"unit munge.service": said}


def test_a_daemon_whose_program_was_replaced(deployed: Machine) -> None:
    process = deployed.path("/proc/7")
    process.mkdir(parents=True)
    (process / "exe").symlink_to("/usr/sbin/munged (deleted)")
    assert found(deployed, DEMO) == {"unit munge.service": "is older than its program"}


def test_a_daemon_with_the_keys_of_before(machine: Machine) -> None:
    machine.system({"units": {"slurmd.service": {"active": "active", "enabled": "enabled"}}})
    old, new = (
        Bundle("cn01", "demo", [Unit("slurmd.service", restart_keys=(f"Port={port}",))]).render()
        for port in (1, 2)
    )
    assert machine.apply(old).status == 0
    machine.take_calls()
    assert found(machine, new) == {
        "unit slurmd.service": "runs with what was there before: a restart is due"
    }


def test_commands(deployed: Machine) -> None:
    new = Command("made", "exit 0 # anew", probe="true")
    parts = [new if part.key == new.key else part for part in PARTS]
    assert found(deployed, Bundle("cn01", "demo", parts).render()) == {
        "command made": "did not run with this text"
    }
    worn = Command("made", "exit 0", probe="echo worn out; false")
    parts = [worn if part.key == worn.key else part for part in PARTS]
    assert found(deployed, Bundle("cn01", "demo", parts).render()) == {
        "command made": "no longer so: worn out"
    }


def test_what_the_applier_keeps_of_a_role(deployed: Machine) -> None:
    parts = [part for part in PARTS if not isinstance(part, Link)]
    assert found(deployed, Bundle("cn01", "demo", parts).render()) == {
        "role demo": "holds path /etc/link, which is not in the bundle"
    }
    deployed.path("/var/lib/slurmstack/demo/pending").write_text("changed /etc/other\n")
    assert found(deployed, DEMO) == {"role demo": "was applied, but not to the end"}


def test_what_one_role_cannot_tell_leaves_the_others_be(deployed: Machine) -> None:
    deployed.path("/etc/other").unlink()
    run = deployed.run("compare", DEMO.replace("\nend\n", "\n") + OTHER)
    assert run.status == 1
    comparison = deployed.compare(DEMO.replace("\nend\n", "\n") + OTHER)
    assert comparison.failed == {
        "demo": f"bundle: not understood, nothing was changed: line {len(DEMO.splitlines()) - 1}: "
        "the bundle ends before its last line (was the connection cut?); correct the bundle, or "
        "update the applier of this node (role node)"
    }
    assert [one.name for one in comparison.roles["other"]] == ["/etc/other"]


def test_it_waits_for_no_lock(deployed: Machine, tmp_path: Path) -> None:
    deployed.environment["SLURMSTACK_LOCK_WAIT"] = "60"
    deployed.tool("flock", "exit 1")
    assert found(deployed) == {}


def test_what_a_killed_look_left_is_swept(deployed: Machine) -> None:
    left = deployed.path("/dev/shm/slurmstack-compare.999999999")
    left.mkdir()
    (left / "bundle.1").write_text("secret")
    assert found(deployed) == {}


def test_without_memory_for_its_work(deployed: Machine) -> None:
    deployed.path("/dev/shm").rmdir()
    assert "see that /dev/shm is mounted" in deployed.run("compare", DEMO).error


def test_what_is_kept_of_a_bundle_is_enough_to_compare_and_holds_no_secret(
    deployed: Machine,
) -> None:
    state = deployed.path("/var/lib/slurmstack/demo")
    kept = state / "applied"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700
    text = kept.read_text()
    assert "a secret of the cluster" not in text
    assert not {"guard", "validate", "check"} & {line.split(" ")[0] for line in text.splitlines()}
    assert found(deployed, text) == {}
    deployed.path(KEY).write_text("another\n")
    deployed.path(CONF).write_text("by hand\n")
    change_unit(deployed, active="failed")
    assert found(deployed, text) == found(deployed, DEMO)
    assert {one.diff for one in deployed.compare(text).differences} == {()}


def test_what_is_kept_is_of_the_last_bundle_that_was_applied(deployed: Machine) -> None:
    later = Bundle("cn01", "other", [File("/etc/other", b"\0"), File("/etc/empty", "")]).render("2")
    assert deployed.apply(later).status == 0
    kept = deployed.path("/var/lib/slurmstack/other/applied").read_text()
    assert "reapply" not in kept
    assert found(deployed, kept) == {}
    deployed.path("/etc/empty").write_text("x")
    assert found(deployed, kept) == {"file /etc/empty": "content"}


def test_a_hash_is_no_content_to_apply(deployed: Machine) -> None:
    kept = deployed.path("/var/lib/slurmstack/other/applied").read_text()
    assert "a hash in the place of a content" in deployed.apply(kept).error
    assert deployed.path("/etc/other").read_text() == "x\n"
