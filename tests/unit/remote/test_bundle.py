"""The text of a bundle, and what is refused before anything is sent."""

import re

import pytest

from remote.bundle import (
    Absent,
    Bundle,
    BundleError,
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
    Withdrawal,
)

WHOLE = """\
slurmstack-bundle 1
node cn01
role slurmd
guard no-jobs timeout=30
  test -z "$(squeue -h)"
guard leave when=remove timeout=5
  true
withdraw drain on=/etc/empty,package:munge unit=slurmd.service timeout=3600
  drain "$SLURMSTACK_SERVICE"
group slurm 64030
group some
user slurm 64030 slurm /nonexistent /usr/sbin/nologin
user some - some - -
package munge
package slurmd 24.11.5-4
directory /var/spool/slurmd slurm:slurm 0755 ephemeral
directory /var/spool/slurmd/inner root:root 0755
directory /var/spool/slurmd/other root:root 0700 ephemeral parents
file /etc/default/slurmd root:root 0644
  SLURMD_OPTIONS="--conf-server 10.0.0.1"

    indented
file /etc/empty root:root 0644 lasting
file-base64 /etc/munge/munge.key munge:munge 0400
  AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4
  OTo7
link /etc/slurm /run/slurm/conf
absent /etc/old.conf
validate read on=/etc/default/slurmd,/etc/empty timeout=60
  sh -n "$SLURMSTACK_STAGED/etc/default/slurmd"
probe build-x
  test -x x
command build-x on=/etc/default/slurmd,package:munge reboots=yes timeout=600
  make
  make install
command forget when=remove restarts=a.service,b.service reloads=c.service,d.service timeout=1
  rm x
unit slurmd.service enabled running restart-on=/etc/default/slurmd,package:slurmd timeout=60
  reload scontrol reconfigure ||
  reload     exit 1
  restart-key SlurmctldPort=6817
  restart-key SlurmdPort=6818
  drain-key A=1
  drain-key B=2
unit apt.timer disabled stopped timeout=90
unit quiet.service - - reload-on=/etc/empty drain-on=/etc/empty,package:munge timeout=90
check idle timeout=60
  sinfo
end
"""


def whole() -> list[Part]:
    return [
        Check("idle", "sinfo"),
        Unit(
            "slurmd.service",
            restart_on=("package:slurmd", "/etc/default/slurmd"),
            reload="\nscontrol reconfigure ||\n    exit 1\n",
            restart_keys=("SlurmdPort=6818", "SlurmctldPort=6817"),
            drain_keys=("B=2", "A=1"),
            timeout=60,
        ),
        Unit("apt.timer", enabled=False, running=False),
        Unit(
            "quiet.service",
            enabled=None,
            running=None,
            reload_on=("/etc/empty",),
            drain_on=("package:munge", "/etc/empty"),
        ),
        Validate(
            "read",
            'sh -n "$SLURMSTACK_STAGED/etc/default/slurmd"',
            on=("/etc/empty", "/etc/default/slurmd"),
        ),
        Command(
            "build-x",
            "\nmake\nmake install\n\n",
            on=("package:munge", "/etc/default/slurmd"),
            probe="test -x x",
            reboots=True,
        ),
        Command(
            "forget",
            "rm x",
            when="remove",
            timeout=1,
            restarts=("b.service", "a.service"),
            reloads=("d.service", "c.service"),
        ),
        Absent("/etc/old.conf"),
        Link("/etc/slurm", "/run/slurm/conf"),
        File("/etc/munge/munge.key", bytes(range(60)), owner="munge:munge", mode="0400"),
        File("/etc/empty", "", lasting=True),
        File(
            "/etc/default/slurmd",
            'SLURMD_OPTIONS="--conf-server 10.0.0.1"\n\n  indented\n',
        ),
        Directory("/var/spool/slurmd/other", mode="0700", ephemeral=True, parents=True),
        Directory("/var/spool/slurmd/inner"),
        Directory("/var/spool/slurmd", owner="slurm:slurm", ephemeral=True),
        Package("slurmd", "24.11.5-4"),
        Package("munge"),
        User("some", None, "some", home=None, shell=None),
        User("slurm", 64030, "slurm"),
        Group("some"),
        Group("slurm", 64030),
        Guard("no-jobs", 'test -z "$(squeue -h)"'),
        Guard("leave", "true", when="remove", timeout=5),
        Withdrawal(
            "drain",
            'drain "$SLURMSTACK_SERVICE"',
            on=("package:munge", "/etc/empty"),
            unit="slurmd.service",
        ),
    ]


def test_text() -> None:
    assert Bundle("cn01", "slurmd", whole()).render() == WHOLE


def test_order_of_what_has_none_does_not_show() -> None:
    parts = [part for part in whole() if not isinstance(part, Guard | Command | Unit | Check)]
    assert (
        Bundle("cn01", "slurmd", parts).render()
        == Bundle("cn01", "slurmd", reversed(parts)).render()
    )


def test_order_of_what_runs_is_kept() -> None:
    checks = [Check("b", "b"), Check("a", "a")]
    text = Bundle("cn01", "slurmd", checks).render()
    assert text.index("check b") < text.index("check a")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (File("etc/a", ""), "file etc/a: 'etc/a' is not an absolute path"),
        (File("/etc/a b", ""), "file /etc/a b: '/etc/a b' is not an absolute path"),
        (File("/etc/../a", ""), "is not a plain absolute path"),
        (File("/etc/./a", ""), "is not a plain absolute path"),
        (File("//etc/a", ""), "is not a plain absolute path"),
        (File("/../etc/a", ""), "is not a plain absolute path"),
        (File("/etc//a", ""), "is not a plain absolute path"),
        (File("/etc/a/", ""), "is not a plain absolute path"),
        (File("/etc/a", "", mode="644"), "'644' is not a mode of four octal digits"),
        (File("/etc/a", "", mode="0689"), "'0689' is not a mode of four octal digits"),
        (File("/etc/a", "", owner="root"), "'root' is not owner:group"),
        (File("/etc/a", "\ud800"), "its content is not valid Unicode; give bytes"),
        (Package("Slurm!"), "'Slurm!' is not a package name"),
        (Package("slurmd", "1; reboot"), "'1; reboot' is not a package version"),
        (Group("a b"), "group a b: 'a b' is not a group name"),
        (User("a b", 1, "c"), "user a b: 'a b' is not a user name"),
        (User("a", 1, "b c"), "'b c' is not a group name"),
        (User("a", 1, "b", home="~"), "user a: '~' is not an absolute path"),
        (User("a", 1, "b", shell="sh"), "user a: 'sh' is not an absolute path"),
        (Directory("a"), "directory a: 'a' is not an absolute path"),
        (Directory("/a", owner="root"), "'root' is not owner:group"),
        (Directory("/a", mode="755"), "'755' is not a mode of four octal digits"),
        (Link("a", "b"), "link a: 'a' is not an absolute path"),
        (Link("/etc/a", "b c"), "'b c' is not a link target"),
        (Absent("a"), "absent a: 'a' is not an absolute path"),
        (Guard("a b", "true"), "guard a b: 'a b' is not a name"),
        (Guard("a", "true", timeout=0), "timeout 0 is not a positive number of seconds"),
        (Guard("a", ""), "guard a: the script is empty"),
        (Withdrawal("a b", "true"), "withdraw: 'a b' is not a name"),
        (Withdrawal("a", "true", timeout=0), "timeout 0 is not a positive number of seconds"),
        (Withdrawal("a", "\0"), "the script holds a zero byte"),
        (Withdrawal("a", "true", unit="a.service"), "either both or none of: what must not"),
        (Withdrawal("a", "true", on=("/a",), unit="a.service"), "'/a' is no path or package"),
        (Validate("a b", "true", on=("/a",)), "'/a' is no path or package:NAME"),
        (Validate("a", "true", on=()), "validate a: it names no file that it reads"),
        (Command("a b", "true"), "command a b: 'a b' is not a name"),
        (Command("c", "true", timeout=-1), "timeout -1 is not a positive number of seconds"),
        (Command("c", "true", probe=" "), "command c: the probe is empty"),
        (Command("c", "true", restarts=("x",)), "'x' is not a unit name with its suffix"),
        (Command("c", "true", reloads=("y",)), "'y' is not a unit name with its suffix"),
        (Command("c", "a\ud800"), "command c: the script is not valid Unicode"),
        (Unit("a.service", timeout=0), "timeout 0 is not a positive number of seconds"),
        (Unit("a.service", reload_on=("/etc/b",)), "'/etc/b' is no path or package:NAME"),
        (Unit("a.service", drain_on=("/etc/b",)), "'/etc/b' is no path or package:NAME"),
        (Unit("a.service", restart_keys=("\0",)), "unit a.service: restart-key holds a zero byte"),
        (Unit("a.service", drain_keys=("a\nb",)), "drain-key 'a\\nb' is not one line"),
        (Unit("a.service", restart_on=("unit a.service",)), "'unit a.service' is no path or"),
        (Check("a b", "true"), "check a b: 'a b' is not a name"),
        (Unit("slurmd"), "unit slurmd: 'slurmd' is not a unit name with its suffix"),
        (Unit("a.service", reload="a\n\nb"), "reload '' is not one line"),
        (Unit("a.service", reload="\n"), "reload '' is not one line"),
        (Unit("a.service", restart_keys=("",)), "restart-key '' is not one line"),
        (Unit("a.service", restart_on=("/etc/b",)), "'/etc/b' is no path or package:NAME"),
        (Command("c", "true", on=("package:x",)), "'package:x' is no path or package:NAME"),
        (Command("c", " \n"), "command c: the script is empty"),
        (Check("c", "a\0b"), "check c: the script holds a zero byte"),
        (Check("c", "true", timeout=0), "timeout 0 is not a positive number of seconds"),
    ],
)
def test_refused(part: Part, message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)) as error:
        Bundle("cn01", "slurmd", [part]).render()
    assert str(error.value).startswith("bundle of role slurmd for cn01: ")


@pytest.mark.parametrize(
    "parts",
    [
        [File("/etc/a", ""), Link("/etc/a", "b")],
        [Package("munge"), Package("munge", "1")],
        [Unit("a.service"), Unit("a.service", enabled=None)],
    ],
)
def test_twice(parts: list[Part]) -> None:
    with pytest.raises(BundleError, match=re.escape(f"{parts[0].key} is there twice")) as error:
        Bundle("cn01", "slurmd", parts).render()
    assert str(error.value).startswith("bundle of role slurmd for cn01: ")


@pytest.mark.parametrize(("node", "role"), [("a b", "slurmd"), ("cn01", "Slurm d"), ("", "x")])
def test_names(node: str, role: str) -> None:
    with pytest.raises(BundleError, match="is not a"):
        Bundle(node, role, []).render()


def test_a_word_to_apply_again_makes_another_text() -> None:
    bundle = Bundle("cn01", "slurmd", whole())
    assert bundle.render("again") == WHOLE.replace("role slurmd\n", "role slurmd\nreapply again\n")
    with pytest.raises(BundleError, match=r"^bundle of role slurmd for cn01: 'a b' is not a word"):
        bundle.render("a b")


@pytest.mark.parametrize(
    ("name", "script", "timeout", "message"),
    [
        ("a b", "true", 60, "validate a b: 'a b' is not a name"),
        ("a", "true", 0, "validate a: timeout 0 is not a positive number of seconds"),
        ("a", "\n", 60, "validate a: the script is empty"),
    ],
)
def test_a_reader_that_cannot_be_is_refused(
    name: str, script: str, timeout: int, message: str
) -> None:
    reader = Validate(name, script, on=("/etc/a",), timeout=timeout)
    with pytest.raises(BundleError, match=message):
        Bundle("cn01", "slurmd", [File("/etc/a", ""), reader]).render()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("", "file /a root:root 0644\n"),
        ("x\n", "file /a root:root 0644\n  x\n"),
        ("x", "file-base64 /a root:root 0644\n  eA==\n"),
        ("x\0\n", "file-base64 /a root:root 0644\n  eAAK\n"),
        (b"x\n", "file-base64 /a root:root 0644\n  eAo=\n"),
    ],
)
def test_only_whole_lines_are_sent_readable(content: str | bytes, lines: str) -> None:
    assert Bundle("cn01", "r", [File("/a", content)]).render() == (
        f"slurmstack-bundle 1\nnode cn01\nrole r\n{lines}end\n"
    )


def test_only_newlines_around_a_script_are_left_out() -> None:
    parts: list[Part] = [
        Unit("a.service", reload="\n X\nX\n\n"),
        Check("c", "\n\n  X # as it is\n\nX\n"),
    ]
    text = Bundle("cn01", "r", parts).render()
    assert "\n  reload  X\n  reload X\ncheck c timeout=60\n    X # as it is\n\n  X\nend\n" in text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Package("X"), "package X: 'X' is not a package name"),
        (Unit("a"), "unit a: 'a' is not a unit name with its suffix"),
        (File("a", ""), "file a: 'a' is not an absolute path of plain characters without spaces"),
        (File("/a", "\ud800"), "file /a: its content is not valid Unicode; give bytes"),
    ],
)
def test_an_error_names_node_role_and_part_once(part: Part, message: str) -> None:
    with pytest.raises(BundleError) as error:
        Bundle("cn01", "slurmd", [part]).render()
    assert str(error.value) == f"bundle of role slurmd for cn01: {message}"


def test_content_is_not_in_repr() -> None:
    file = File("/etc/key", "secret\n")
    assert "secret" not in repr(file)
    assert "secret" not in repr(Bundle("cn01", "munge", [file]))
