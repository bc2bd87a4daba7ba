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
)

WHOLE = """\
slurmstack-bundle 1
node cn01
role slurmd
guard no-jobs timeout=30
  test -z "$(squeue -h)"
guard leave when=remove timeout=5
  true
group slurm 64030
group some
user slurm 64030 slurm /nonexistent /usr/sbin/nologin
user some - some - -
package munge
package slurmd 24.11.5-4
directory /var/spool/slurmd slurm:slurm 0755 ephemeral
directory /var/spool/slurmd/inner root:root 0755
file /etc/default/slurmd root:root 0644
  SLURMD_OPTIONS="--conf-server 10.0.0.1"

    indented
file /etc/empty root:root 0644
file-base64 /etc/munge/munge.key munge:munge 0400
  AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4
  OTo7
link /etc/slurm /run/slurm/conf
absent /etc/old.conf
command build-x on=/etc/default/slurmd,package:munge timeout=600
  make
  make install
unit slurmd.service enabled running restart-on=/etc/default/slurmd,package:slurmd timeout=60
  reload scontrol reconfigure ||
  reload     exit 1
  restart-key SlurmctldPort=6817
  restart-key SlurmdPort=6818
unit apt.timer disabled stopped timeout=90
unit quiet.service - - reload-on=/etc/empty timeout=90
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
            timeout=60,
        ),
        Unit("apt.timer", enabled=False, running=False),
        Unit("quiet.service", enabled=None, running=None, reload_on=("/etc/empty",)),
        Command("build-x", "\nmake\nmake install\n\n", on=("package:munge", "/etc/default/slurmd")),
        Absent("/etc/old.conf"),
        Link("/etc/slurm", "/run/slurm/conf"),
        File("/etc/munge/munge.key", bytes(range(60)), owner="munge:munge", mode="0400"),
        File("/etc/empty", ""),
        File(
            "/etc/default/slurmd",
            'SLURMD_OPTIONS="--conf-server 10.0.0.1"\n\n  indented\n',
        ),
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
        (File("/etc//a", ""), "is not a plain absolute path"),
        (File("/etc/a/", ""), "is not a plain absolute path"),
        (File("/etc/a", "", mode="644"), "'644' is not a mode of four octal digits"),
        (File("/etc/a", "", mode="0689"), "'0689' is not a mode of four octal digits"),
        (File("/etc/a", "", owner="root"), "'root' is not owner:group"),
        (File("/etc/a", "\ud800"), "its content is not valid Unicode; give bytes"),
        (Package("Slurm!"), "'Slurm!' is not a package name"),
        (Package("slurmd", "1; reboot"), "'1; reboot' is not a package version"),
        (Group("a b"), "'a b' is not a group name"),
        (User("a", 1, "b c"), "'b c' is not a group name"),
        (Link("/etc/a", "b c"), "'b c' is not a link target"),
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
    with pytest.raises(BundleError, match="is there twice"):
        Bundle("cn01", "slurmd", parts).render()


@pytest.mark.parametrize(("node", "role"), [("a b", "slurmd"), ("cn01", "Slurm d"), ("", "x")])
def test_names(node: str, role: str) -> None:
    with pytest.raises(BundleError, match="is not a"):
        Bundle(node, role, []).render()


def test_content_is_not_in_repr() -> None:
    file = File("/etc/key", "secret\n")
    assert "secret" not in repr(file)
    assert "secret" not in repr(Bundle("cn01", "munge", [file]))
