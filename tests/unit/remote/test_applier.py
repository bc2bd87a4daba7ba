"""What the stories in `cases/` cannot tell: contents of any kind, a full disk, two runs at once,
a broken connection, and where secrets may be."""

import contextlib
import getpass
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote.bundle import (
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Guard,
    Package,
    Part,
    Unit,
    Withdrawal,
)
from remote.commands import APPLIER, INSTALL, UNINSTALL
from tests import silent_file_system
from tests.unit.remote.conftest import SHELLS
from tests.unit.remote.machine import Machine

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def demo(*files: File, more: tuple[Command | Unit | Guard | Check | Directory, ...] = ()) -> str:
    return Bundle("cn01", "demo", [*files, *more]).render()


# Lines as they may come, with what is special to sh, awk, sed, printf and the bundle itself.
LINES = st.sampled_from(
    ["", " ", "  ", "end", "file /x a:b 0644", "\t", "\r", "a\\nb", "$HOME `id` $(id)", "%s%d", "&"]
) | st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=60)
TEXTS = st.lists(LINES, max_size=8).map(lambda lines: "".join(f"{line}\n" for line in lines))
CONTENTS = (
    TEXTS | st.binary(max_size=300) | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
)


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=8))
def test_any_content_arrives_as_it_is(
    shell: tuple[str, ...], contents: list[str | bytes], tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        machine = Machine(Path(folder) / "root", Path(folder) / "standin", shell)
        files = [File(f"/etc/f{index}", content) for index, content in enumerate(contents)]
        answer = machine.apply(demo(*files)).answer
        for file in files:
            data = file.content.encode() if isinstance(file.content, str) else file.content
            assert machine.path(file.path).read_bytes() == data
            assert answer.files[file.path].sha256 == hashlib.sha256(data).hexdigest()


def test_large_file_and_long_line(machine: Machine) -> None:
    text = "x" * 300_000 + "\n" + "".join(f"line {n}\n" for n in range(20_000))
    machine.apply(demo(File("/etc/large", text), File("/etc/key", os.urandom(200_000)))).answer  # noqa: B018
    assert machine.path("/etc/large").read_text() == text


def test_what_a_script_says_is_valid_json(machine: Machine) -> None:
    script = r"""printf 'k a "quoted" \\ back\tslash \001 ü\n' >"$SLURMSTACK_FACTS" """
    assert machine.apply(demo(more=(Check("c", script),))).answer.facts == {
        "k": 'a "quoted" \\ back\tslash \x01 ü'
    }


@pytest.mark.slow
def test_shellcheck(tmp_path: Path) -> None:
    """Of the whole, where each name is known; the single parts are checked by `make lint`."""
    checker = Path(sys.executable).with_name("shellcheck")
    (tmp_path / "applier").write_text(APPLIER)
    done = subprocess.run(
        [str(checker), "-s", "dash", str(tmp_path / "applier")], capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()


def test_every_part_of_the_applier_travels() -> None:
    parts = list((Path(__file__).parents[3] / "remote/applier").iterdir())
    assert len(parts) > 5
    for part in parts:
        assert part.read_text() in APPLIER, part.name


@pytest.mark.parametrize("command", [INSTALL, UNINSTALL])
def test_shellcheck_of_commands(command: str) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        # Paths of these commands have no spaces; `cd` in INSTALL is checked by `&&`.
        [str(checker), "-s", "dash", "-e", "SC2086,SC2010,SC2015", "-"],
        input=command,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture
def small_disk(machine: Machine) -> Iterator[Path]:
    """A file system of 64 KiB at /small of the scratch root."""
    folder = machine.path("/small")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@as_root
def test_full_disk_changes_nothing(machine: Machine, small_disk: Path) -> None:
    (small_disk / "a").write_text("old a\n")
    (small_disk / "b").write_text("old b\n")
    bundle = demo(File("/small/a", "new a\n"), File("/small/b", "b" * 100_000 + "\n"))
    error = machine.apply(bundle).error
    assert re.fullmatch(
        r"slurmstack: cn01: file /small/b: cannot write: .*No space left on device; "
        r"free space on the file system \(df -h .*\), or make it writable, and run again",
        error,
    )
    assert sorted(path.name for path in small_disk.iterdir()) == ["a", "b"]
    assert (small_disk / "a").read_text() == "old a\n"
    assert (small_disk / "b").read_text() == "old b\n"
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert machine.apply(bundle).answer.changed
    assert (small_disk / "a").read_text() == "new a\n"


@as_root
@pytest.mark.parametrize("place", ["/var/lib/slurmstack", "/run/slurmstack"])
def test_full_state_folder(machine: Machine, place: str) -> None:
    folder = machine.path(place)
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=4k,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    try:
        with contextlib.suppress(OSError):
            (folder / "filler").write_bytes(b"x" * 8192)
        run = machine.apply(demo(File("/etc/a", "a\n" * 5000)))
        assert "free space" in run.error
        assert not machine.path("/etc/a").exists()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_second_run_waits_and_then_names_the_holder(machine: Machine) -> None:
    held = machine.folder / "held"
    slow = demo(
        more=(
            Command("slow", f"touch {held}; while [ -e {held} ]; do sleep 0.05; done", timeout=60),
        )
    )
    process = machine.start("apply")
    assert process.stdin
    process.stdin.write(slow.encode())
    process.stdin.close()
    process.stdin = None
    while not held.exists():
        assert process.poll() is None
        time.sleep(0.01)
    machine.environment["SLURMSTACK_LOCK_WAIT"] = "1"
    other = Bundle("cn01", "other", [File("/etc/other", "x\n")]).render()
    assert machine.apply(other).error == (
        "slurmstack: cn01: lock: held for more than 1 s by "
        f"process {process.pid} (apply of role demo); wait until it has ended and run again"
    ).replace("cn01", os.uname().nodename, 1)
    machine.environment["SLURMSTACK_LOCK_WAIT"] = "60"
    waiting = machine.start("apply")
    assert waiting.stdin
    waiting.stdin.write(other.encode())
    waiting.stdin.close()
    waiting.stdin = None
    assert not machine.path("/etc/other").exists()
    held.unlink()
    assert process.wait(60) == 0
    assert waiting.wait(60) == 0
    assert machine.path("/etc/other").read_text() == "x\n"
    for done in (process, waiting):
        done.communicate()


@pytest.mark.slow
def test_a_second_run_waits_as_long_as_a_node_is_drained(machine: Machine) -> None:
    machine.system({"units": {"d.service": {"active": "active", "enabled": "enabled"}}})
    held = machine.folder / "held"

    def draining(content: str) -> str:
        out = f"touch {held}; while [ -e {held} ]; do sleep 0.05; done"
        parts: list[Part] = [
            Withdrawal("drained", f'[ "$SLURMSTACK_SERVICE" != out ] || {{ {out}; }}'),
            File("/etc/d.conf", content),
            Unit("d.service", restart_on=("/etc/d.conf",), drain_on=("/etc/d.conf",)),
        ]
        return Bundle("cn01", "demo", parts).render()

    def begin(bundle: str) -> subprocess.Popen[bytes]:
        process = machine.start("apply")
        assert process.stdin
        process.stdin.write(bundle.encode())
        process.stdin.close()
        process.stdin = None
        return process

    assert machine.apply(draining("1\n")).status == 0
    first = begin(draining("2\n"))
    while not held.exists():
        assert first.poll() is None
        time.sleep(0.01)
    machine.environment["SLURMSTACK_LOCK_WAIT"] = "5"
    second = begin(Bundle("cn01", "other", [File("/etc/other", "x\n")]).render())
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(7)
    held.unlink()
    assert (first.wait(60), second.wait(60)) == (0, 0)
    for process in (first, second):
        process.communicate()
    assert machine.path("/etc/other").read_text() == "x\n"
    assert "withdrawing" not in str(machine.leftovers())


def test_daemon_started_by_a_command_does_not_keep_the_lock(machine: Machine) -> None:
    pid = machine.folder / "daemon"
    bundle = demo(more=(Command("d", f"sleep 60 >/dev/null 2>&1 & echo $! >{pid}"),))
    assert machine.apply(bundle).status == 0
    try:
        machine.environment["SLURMSTACK_LOCK_WAIT"] = "0"
        assert machine.apply(bundle).status == 0
    finally:
        os.kill(int(pid.read_text()), 15)


def test_broken_connection(machine: Machine) -> None:
    """The other end goes away in the middle: nobody reads stdout and stderr any more, and the
    session is hung up. The run still comes to its end."""
    held = machine.folder / "held"
    process = machine.start("apply", start_new_session=True)
    bundle = demo(
        Directory("/etc/d"),  # type: ignore[arg-type]
        File("/etc/d/a", "a\n"),
        more=(
            Command("slow", f"touch {held}; while [ -e {held} ]; do sleep 0.05; done"),
            Command("loud", "seq 100000"),
            Command("last", 'touch "$SLURMSTACK_ROOT/etc/last"'),
        ),
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(bundle.encode())
    process.stdin.close()
    while not held.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.stdout.close()
    process.stderr.close()
    os.killpg(process.pid, 1)
    held.unlink()
    process.wait(60)
    assert machine.path("/etc/last").exists()
    assert machine.path("/var/lib/slurmstack/demo/manifest").read_text().count("path") == 1
    assert machine.leftovers() == []
    assert machine.apply(bundle).answer.changed is False


def test_stopped_by_a_signal(machine: Machine) -> None:
    held = machine.folder / "held"
    again = machine.folder / "again"
    process = machine.start("apply")
    slow = f"[ ! -e {again} ] || exit 0; touch {held}; while [ -e {held} ]; do sleep 0.05; done"
    bundle = demo(
        File("/etc/a", "a\n"),
        more=(
            Command("slow", slow),
            Command("second", "true"),
        ),
    )
    assert process.stdin
    process.stdin.write(bundle.encode())
    process.stdin.close()
    process.stdin = None
    while not held.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    held.unlink()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"stopped by a signal at a clean point; run again to finish" in stderr
    assert machine.leftovers() == []
    again.touch()
    assert "second" in machine.apply(bundle).answer.commands


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(
    "path",
    ["/etc/systemd/system/d.service", "/etc/systemd/system/systemd-journald.service.d/own.conf"],
)
def test_systemd_reads_units_before_they_are_in_place(machine: Machine, path: str) -> None:
    """systemd itself goes on without a line that it does not understand; a program may come
    later."""
    machine.path(path).parent.mkdir(parents=True)
    good = "[Service]\nExecStart=/usr/local/lib/not-yet-there\nType=oneshot\n"
    error = machine.apply(demo(File(path, good.replace("Type", "Tipe")))).error
    assert error.startswith(f"slurmstack: cn01: validate units: refused: {path}:3: Unknown key ")
    assert "'Tipe'" in error
    assert error.endswith(
        "; nothing was put in place; correct the settings that this comes from and run again"
    )
    assert not machine.path(path).exists()
    assert machine.apply(demo(File(path, good))).answer.changed


SECRET = "fnord-4711-geheim"


def test_secret_is_in_no_argument_environment_or_output(machine: Machine) -> None:
    """Every command that the applier runs records its arguments and environment and looks for the
    secret in files that others may read, in a run that succeeds and in one that fails."""
    log = machine.folder / "log"
    machine.wrap_tools(
        f'{{ tr "\\0" "\\n" </proc/$$/cmdline; tr "\\0" "\\n" </proc/$$/environ; }} >>{log}'
    )
    for name in ("tr",):  # used by the recorder itself
        (machine.folder / "bin" / name).unlink()
    machine.system(
        {
            "units": {"d.service": {"active": "active", "enabled": "enabled"}},
            "journal": {"d.service": [f"d: cannot use {SECRET}"]},
        }
    )
    files = (
        File("/etc/text.key", f"StoragePass={SECRET}\n", mode="0600"),
        File("/etc/raw.key", SECRET.encode(), mode="0400"),
    )
    unit = Unit("d.service", restart_on=("/etc/text.key",))
    quiet = machine.apply(demo(*files, more=(unit,)))
    assert quiet.status == 0
    leak = Check("leak", f'cat "$SLURMSTACK_ROOT/etc/raw.key"; echo; echo "is {SECRET}"; exit 1', 1)
    loud = machine.apply(demo(*files, more=(unit, leak)))
    assert "(withheld: quotes a protected file)" in loud.error
    state = machine.state
    machine.system({**state, "fails": {"restart d.service": f"bad {SECRET}"}})
    machine.path("/etc/text.key").write_text("by hand\n")
    failed = machine.apply(demo(*files, more=(unit,)))
    assert "unit d.service" in failed.error
    recorded = log.read_text()
    assert recorded.count("sha256sum") > 3, "the recorder does not work"
    for text in (recorded, *(r.stdout + r.stderr for r in (quiet, loud, failed))):
        assert SECRET not in text


def test_scripts_and_bundle_are_closed_while_they_are_used(machine: Machine) -> None:
    script = 'find "$SLURMSTACK_ROOT/run/slurmstack" -type d -printf "%m %f\\n" >"$STANDIN/modes"'
    assert machine.apply(demo(more=(Command("look", script),))).status == 0
    modes = (machine.folder / "modes").read_text().splitlines()
    assert "700 slurmstack" in modes
    assert "700 work" in modes


def test_temporary_file_does_not_follow_a_link(machine: Machine) -> None:
    """In a directory that others may write to, someone could have put a link there."""
    victim = machine.write("/etc/victim", "precious\n")
    machine.path("/etc/.a.slurmstack-new").symlink_to(victim)
    assert machine.apply(demo(File("/etc/a", "mine\n"))).status == 0
    assert victim.read_text() == "precious\n"
    assert machine.path("/etc/a").read_text() == "mine\n"
    # Nor one that is put there in the very moment.
    link = machine.path("/etc/.a.slurmstack-new")
    machine.tool("rm", f'/usr/bin/rm "$@"; [ ! -d {link.parent} ] || ln -sf {victim} {link}')
    error = machine.apply(demo(File("/etc/a", "newer\n"))).error
    assert error.startswith("slurmstack: cn01: file /etc/a: cannot write: ")
    assert victim.read_text() == "precious\n"


def test_not_root() -> None:
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    done = subprocess.run(
        ["dash", "-s", "apply"],
        input=APPLIER,
        capture_output=True,
        text=True,
        cwd="/",
        user="nobody" if os.geteuid() == 0 else None,
    )
    assert done.stderr.endswith(f": start: runs as {user}, not as root; connect as root\n")


def test_install_and_uninstall(tmp_path: Path) -> None:
    assert len(INSTALL) < 450
    environment = {"SLURMSTACK_ROOT": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def sh(command: str, stdin: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["dash", "-c", command], input=stdin, capture_output=True, text=True, env=environment
        )

    place = tmp_path / "usr/local/lib/slurmstack/apply"
    cut = sh(INSTALL, APPLIER[:-40])
    assert cut.returncode == 1
    assert cut.stderr.splitlines()[-1].startswith("slurmstack: ")
    assert not place.exists()
    done = sh(INSTALL, APPLIER)
    assert hashlib.sha256(APPLIER.encode()).hexdigest() in done.stdout
    assert place.read_text() == APPLIER
    assert place.stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in place.parent.iterdir()] == ["apply"]
    assert sh(UNINSTALL, "").returncode == 0
    assert not place.parent.exists()
    assert not (tmp_path / "var/lib/slurmstack").exists()


def test_uninstall_takes_back_what_never_came_to_its_end(machine: Machine) -> None:
    place = machine.write("/usr/local/lib/slurmstack/apply", APPLIER, 0o755)
    bundle = demo(File("/etc/one/a", "a\n"), more=(Directory("/etc/one"), Check("c", "false", 1)))
    assert machine.apply(bundle).status == 1
    assert machine.path("/etc/one/a").exists()
    done = subprocess.run(
        ["dash", "-c", UNINSTALL],
        capture_output=True,
        text=True,
        env={
            "PATH": f"{machine.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SLURMSTACK_ROOT": str(machine.root),
            "STANDIN": str(machine.folder),
        },
    )
    assert done.returncode == 0, done.stderr
    assert not machine.path("/etc/one").exists()
    assert not place.parent.exists()
    assert not machine.path("/var/lib/slurmstack").exists()


def test_nothing_to_do_is_fast(machine: Machine) -> None:
    """Not a timing: the number of processes that a run without change takes for ten files."""
    log = machine.folder / "log"
    machine.wrap_tools(f"echo x >>{log}")
    bundle = demo(*(File(f"/etc/f{n}", f"{n}\n") for n in range(10)))
    machine.apply(bundle)
    log.unlink()
    assert machine.apply(bundle).answer.changed is False
    assert len(log.read_text().splitlines()) < 80


def test_what_can_only_be_after_a_boot_is_left_until_then(machine: Machine) -> None:
    machine.system({"units": {"d.service": {"active": "active", "enabled": "disabled"}}})

    def bundle(version: str) -> str:
        there = f'grep -q {version} "$SLURMSTACK_ROOT/kernel"'
        on = ("/etc/driver",)
        driver = Command("driver", f"{there} || exit 4\n", on=on, probe=f"{there}\n", reboots=True)
        unit = Unit("d.service", restart_on=on, restart_keys=(version,))
        check = Check("whole", f"{there}\n", timeout=1)
        return demo(File("/etc/driver", f"{version}\n"), more=(driver, unit, check))

    machine.write("/kernel", "old\n")
    told = machine.apply(bundle("new")).answer
    assert told.actions == ("wrote /etc/driver", "ran driver", "enabled d.service")
    # Asked again before it, it is not further than it was.
    assert machine.apply(bundle("new")).answer.actions == ("ran driver",)
    assert machine.state["units"]["d.service"] == {"active": "active", "enabled": "enabled"}
    assert [it.name for it in machine.compare(bundle("new")).roles["demo"]] == ["driver"]
    # The boot has started it with what was there: once more would be for nothing.
    machine.write("/kernel", "new\n")
    assert machine.apply(bundle("new")).answer.actions == ()
    # Of a command that has no node rebooted it is an error as any other.
    other = demo(more=(Command("driver", "exit 4\n"),))
    assert "command driver: exit 4" in machine.apply(other).error


def test_that_a_role_was_begun_is_noted_and_what_it_said_at_last(machine: Machine) -> None:
    """`pulumi up` asks for it at its end: the engine tells the program of a failure, not why."""
    refusing = demo(more=(Guard("no", "echo 'not now'; exit 1"),))
    failed = machine.apply(refusing)
    note = machine.path("/run/slurmstack/run-demo")
    assert note.read_text() == failed.stderr.splitlines()[-1] + "\n"
    assert "guard no: refused (exit 1): not now" in note.read_text()
    # Reasons in a row, each with a sign after it.
    machine.apply(demo(more=(Guard("no", "printf 'not now; nor then; '; exit 1"),)))
    assert "refused (exit 1): not now; nor then; nothing was changed; do what" in note.read_text()
    machine.apply(demo())
    assert note.read_text() == "\n"


@pytest.fixture
def silent(machine: Machine) -> Iterator[Path]:
    """A file system that never answers, at /share of the scratch root."""
    folder = machine.path("/share")
    folder.mkdir()
    serves_nobody = subprocess.Popen(
        [sys.executable, silent_file_system.__file__, str(folder)], stdout=subprocess.PIPE
    )
    try:
        assert serves_nobody.stdout is not None
        if serves_nobody.stdout.readline() != b"mounted\n":
            pytest.skip("cannot mount a file system of FUSE here")
        yield folder
    finally:
        serves_nobody.kill()
        serves_nobody.communicate()
        subprocess.run(["umount", "--lazy", str(folder)], stderr=subprocess.DEVNULL)


@as_root
def test_who_asks_a_mount_is_left_behind_where_nothing_ends_him(
    machine: Machine, silent: Path
) -> None:
    """As timeout(1) is that waits for a process in the kernel's hands."""
    left = f"""case $* in *'stat -f'*) echo $$ >{machine.folder}/left; exec sleep 60 ;; esac"""
    machine.tool("timeout", f'{left}\nexec /usr/bin/timeout "$@"')
    machine.environment["SLURMSTACK_MOUNT_TIME"] = "1"
    began = time.monotonic()
    assert "does not answer for 1 s" in machine.apply(demo(File("/share/x", "x\n"))).error
    assert time.monotonic() - began < 20
    os.kill(int((machine.folder / "left").read_text()), signal.SIGKILL)


@as_root
@pytest.mark.parametrize("step", [Guard, Check], ids=["guard", "check"])
def test_what_looked_at_a_mount_that_does_not_answer_is_told_with_it(
    machine: Machine, silent: Path, step: type[Guard | Check]
) -> None:
    """A script may look anywhere: which mount it waits for is found when its time is over."""
    machine.environment["SLURMSTACK_MOUNT_TIME"] = "1"
    looks = step("looks", f"test -f {silent}/program", timeout=1)
    error = machine.apply(Bundle("cn01", "demo", [looks]).render()).error
    # A test beside this one may have such a mount, too: the first of the host's is named.
    assert re.search(rf"1 s, and \S*/{silent.name} does not answer", error)


@as_root
@pytest.mark.parametrize(
    "part", [File("/share/x", "x\n"), Directory("/share/in"), Directory("/share")], ids=str
)
def test_a_mount_that_does_not_answer_ends_the_run_before_anything_changes(
    machine: Machine, silent: Path, part: File | Directory
) -> None:
    machine.environment["SLURMSTACK_MOUNT_TIME"] = "1"
    other = Bundle("cn01", "other", [File("/etc/other", "x\n")]).render()
    bundle = Bundle("cn01", "demo", [File("/etc/own", "x\n"), part]).render()
    words = f"mount {silent}: does not answer for 1 s; bring its server back"
    began = time.monotonic()
    for run in (machine.apply, machine.remove):
        machine.path("/var/lib/slurmstack/demo").mkdir(parents=True, exist_ok=True)
        assert run(bundle).error.startswith(f"slurmstack: cn01: {words}")
    assert not machine.path("/etc/own").exists()
    compared = machine.compare(bundle, other)
    assert compared.failed["demo"].startswith(words)
    # Who has nothing there is not held up by it.
    assert machine.apply(other).answer.changed
    assert time.monotonic() - began < 12


def test_a_role_without_packages_goes_and_asks_apt_nothing(machine: Machine) -> None:
    """Though a role before it left packages behind, for whoever they are kept for."""
    lists = {name: {"versions": ["1"]} for name in ("libmunge2", "slurmd")}
    munge = {"versions": ["1"], "depends": ["libmunge2"]}
    machine.system({"lists": {**lists, "munge": munge}})
    both = [Package("munge"), Package("slurmd")]
    gone = Bundle("cn01", "gone", both).render()
    for bundle in (gone, Bundle("cn01", "stays", both[:1]).render(), demo(File("/etc/x", "x\n"))):
        assert machine.apply(bundle).status == 0
    assert machine.remove(gone).answer.actions == ("purged slurmd ",)
    for name in ("apt-get", "apt-mark"):
        machine.tool(name, "echo E: broken; exit 100")
    assert machine.remove(demo()).status == 0
    assert not machine.path("/etc/x").exists()
