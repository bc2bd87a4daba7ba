"""What a node gets of network drivers, and what the scripts say on machines that stand-ins make.

tests/lab/test_boot.py has real dpkg, systemd and Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.boot import node_boot
from components.boot.node_boot import OURS, WANTED, boot_bundle
from components.fabric.fabric_drivers import fabric_bundle
from remote.bundle import Bundle, Command, File, Withdrawal
from settings import parse
from settings.problems import SettingsError
from tests.unit.components.gpu.test_nvidia import Machine, packages, script
from tests.unit.components.test_cluster import bare, commands, deploy

VERSION = "24.10-2.1.8"
FABRIC: dict[str, Any] = {
    "version": VERSION,
    "packages": {"mlnx-ofed-kernel-dkms": "24.10.OFED.1-1", "doca-ofed": "2.9.2-1"},
}


def settings(**changes: Any) -> Any:
    return parse({**bare(), "fabric": FABRIC, "boot": {}, **changes})


def bundle(**changes: Any) -> Bundle:
    return fabric_bundle("cn01", settings(**changes), {})


def boot(**changes: Any) -> Bundle:
    return boot_bundle("cn01", settings(**changes), {})


def mistakes(fabric: dict[str, Any], **changes: Any) -> dict[str, str]:
    try:
        parse({**bare(), "fabric": {**FABRIC, **fabric}, "boot": {}, **changes})
    except SettingsError as error:
        return {
            it.path.removeprefix("slurmstack:"): f"{it.expected}; found {it.found}"
            for it in error.problems
        }
    return {}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """The kernel that runs and the next one have the drivers, and so has what is loaded."""
    it = Machine(tmp_path)
    it.command("modinfo", 'cat "$ROOT/built-$2" 2>/dev/null || cat "$ROOT/built"')
    it.command("ofed_info", 'cat "$ROOT/ofed"')
    it.command("dkms", DKMS)
    it.write("boot/vmlinuz-6.1-a", "")
    it.write("boot/vmlinuz-6.1-b", "")
    it.write("built", f"{VERSION}\n")
    it.write("ofed", f"OFED-internal-{VERSION}:\n")
    it.write("sys/module/mlx5_core/version", f"{VERSION}\n")
    it.write("proc/cmdline", "ro\n")
    return it


DKMS = """
echo "dkms $*" >>"$ROOT/log"
case $1 in
  status) cat "$ROOT/dkms" 2>/dev/null ;;
  *) [ ! -e "$ROOT/fails" ] || { echo 'Error! Bad return status'; exit 1; } ;;
esac
"""


def test_each_package_has_its_version_and_none_changes_under_a_job() -> None:
    made = bundle()
    assert packages(made) == FABRIC["packages"]
    out = next(part for part in made.parts if isinstance(part, Withdrawal))
    assert out.unit == "slurmd.service"
    assert set(out.on) == {f"package:{name}" for name in FABRIC["packages"]}
    assert OURS in out.script


def test_slurmd_and_the_gpu_driver_come_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_alone", "_back"):
        monkeypatch.setattr(node_boot, name, lambda *_: [])
    nvidia = {"hosts": "cn01", "driver": {"version": "570.172.08-1"}}
    made, _ = deploy(fabric={**FABRIC, "hosts": "cn01"}, boot={}, nvidia=nvidia)
    assert [name for name in commands(made) if name.endswith("-fabric")] == ["cn01-fabric"]
    assert "cn02-boot" not in commands(made)
    order = ["cn01-fabric", "cn01-nvidia", "cn01-slurmd", "cn01-boot", "cn01-booted"]
    assert [name for name in made.made if name in order] == order


def test_a_boot_that_is_for_the_modules_alone_needs_no_grub() -> None:
    made = boot()
    assert [part.path for part in made.parts if isinstance(part, File)] == [WANTED]
    text = next(part.content for part in made.parts if isinstance(part, File))
    assert f"module mlx5_core {VERSION}\n" in str(text)
    both = boot(boot={"kernelParameters": ["nosmt"]})
    assert len([part for part in both.parts if isinstance(part, File)]) == 2


def test_words_that_leave_the_settings_take_no_boot_where_the_role_goes_on(
    machine: Machine,
) -> None:
    machine.write("proc/cmdline", "ro nosmt\n")
    machine.write("var/lib/slurmstack-boot/given", "nosmt\n")
    machine.command("update-grub", 'echo update-grub >>"$ROOT/log"')
    reboot = next(part for part in boot().parts if isinstance(part, Command) and part.reboots)
    assert reboot.probe is not None
    assert machine.run(reboot.probe) == (0, "")
    assert machine.run(script(boot(), "boot-loader-without")) == (0, "")
    assert machine.log == ["update-grub"]
    # A boot loader that had none of ours is not touched.
    assert machine.run(script(boot(), "boot-loader-without")) == (0, "")
    assert machine.log == ["update-grub"]


@pytest.mark.parametrize(
    ("loaded", "built", "needed"),
    [
        (VERSION, VERSION, False),
        ("24.04-0.6.6", VERSION, True),
        ("", VERSION, True),  # the kernel's own module says no version
        (None, VERSION, False),  # no adapter has asked for it: it comes as it is installed
        ("24.04-0.6.6", "24.04-0.6.6", False),  # not installed: a boot would change nothing
    ],
    ids=["there", "another", "the kernel's own", "not loaded", "not built"],
)
def test_it_is_booted_for_modules_that_are_installed_and_not_there(
    machine: Machine, loaded: str | None, built: str, needed: bool
) -> None:
    machine.write("built", f"{built}\n")
    file = machine.folder / "sys/module/mlx5_core/version"
    if not loaded:
        file.unlink()
        if loaded is None:
            file.parent.rmdir()
    else:
        file.write_text(f"{loaded}\n")
    probe = next(it.probe for it in boot().parts if isinstance(it, Command) and it.reboots)
    assert probe is not None
    status, told = machine.run(probe)
    assert status == (1 if needed else 0)
    assert ("the node is to be booted for mlx5_core-24.10-2.1.8" in told) is needed


@pytest.mark.parametrize("never", [False, True])
def test_whoever_has_it_booted_gives_it_back(machine: Machine, never: bool) -> None:
    machine.write("sys/module/mlx5_core/version", "24.04-0.6.6\n")
    made = bundle(boot={"reboot": "never"} if never else {})
    out = next(part for part in made.parts if isinstance(part, Withdrawal))
    head = out.script.rpartition("case $SLURMSTACK_SERVICE in")[0]
    status, _ = machine.run(f"SLURMSTACK_SERVICE=back\n{head}exit 7\n")
    assert status == (7 if never else 4)
    machine.write("sys/module/mlx5_core/version", f"{VERSION}\n")
    assert machine.run(f"SLURMSTACK_SERVICE=back\n{head}exit 7\n")[0] == 7


@pytest.mark.parametrize(
    "told", [f"OFED-internal-{VERSION}:", f"MLNX_OFED_LINUX-{VERSION}.0:", None]
)
def test_one_release_everywhere(machine: Machine, told: str | None) -> None:
    if told is None:
        (machine.bin / "ofed_info").unlink()
    else:
        machine.write("ofed", f"{told}\n")
    assert machine.run(script(bundle(), "drivers-are-built")) == (0, "")
    assert (machine.folder / "facts").read_text() == f"fabric-drivers {VERSION}\n"


def test_what_is_of_another_release_is_named(machine: Machine) -> None:
    text = script(bundle(), "drivers-are-built")
    machine.write("ofed", "OFED-internal-24.10-2.1.80:\n")
    status, said = machine.run(text)
    assert status == 1
    assert "ofed_info -s says OFED-internal-24.10-2.1.80:, expected 24.10-2.1.8" in said
    machine.write("built-6.1-b", "24.04-0.6.6\n")
    status, said = machine.run(text)
    assert status == 1
    assert "kernel 6.1-b, which the next boot takes, has module mlx5_core 24.04-0.6.6" in said
    assert "dkms autoinstall -k 6.1-b" in said
    machine.write("built-6.1-b", "")
    assert "has module mlx5_core of its own, expected 24.10-2.1.8" in machine.run(text)[1]


def test_it_is_not_begun_without_headers(machine: Machine) -> None:
    (machine.folder / "lib/modules/6.1-b/build").rmdir()
    status, said = machine.run(script(bundle(), "drivers-can-be-built"))
    assert status == 1
    assert "apt-get install linux-headers-6.1-b" in said
    prebuilt = bundle(fabric={**FABRIC, "packages": {"mlnx-ofed-kernel-modules": "24.10-1"}})
    assert machine.run(script(prebuilt, "drivers-can-be-built"))[0] == 0


def test_peer_memory_is_built_for_the_drivers_that_are_there(machine: Machine) -> None:
    nvidia = {"hosts": "cn01", "driver": {"version": "570.172.08-1"}, "peerMemory": True}
    text = script(bundle(nvidia=nvidia), "peer-memory-rebuilt")
    assert machine.run(text) == (0, "")
    assert machine.log == ["dkms status nvidia/570.172.08"]
    machine.write("dkms", "nvidia/570.172.08, 6.1-a, x86_64: installed\n")
    assert machine.run(text) == (0, "")
    assert machine.log[2:] == [
        f"dkms {verb} --force nvidia/570.172.08 -k {kernel}"
        for kernel in ("6.1-a", "6.1-b")
        for verb in ("build", "install")
    ]
    machine.write("fails", "")
    status, said = machine.run(text)
    assert status == 1
    assert "dkms build --force nvidia/570.172.08 -k 6.1-a: Error! Bad return status" in said
    without = bundle(nvidia={**nvidia, "peerMemory": False})
    assert "peer-memory-rebuilt" not in [getattr(part, "name", "") for part in without.parts]


def test_all_mistakes_at_once() -> None:
    file = {
        "url": "https://site.example/doca-ofed_2.9.1-1_amd64.deb", "sha256": "0" * 63 + "1",
    }  # fmt: skip
    stray = {"url": "https://site.example/mft_4.30-1_amd64.deb", "sha256": "0" * 63 + "2"}
    found = mistakes(
        {"hosts": "cn[01-02],ctl", "packageFiles": [file, stray]},
        boot={"hosts": "cn02"},
        rollout={"drain": "never"},
    )
    assert found == {
        "fabric.hosts": "compute nodes of slurmstack:nodes; found ctl",
        "boot.hosts": "cn01, too, which slurmstack:fabric is for; found cn02",
        "fabric.packageFiles[0]": "doca-ofed 2.9.2-1, as in the settings; found 2.9.1-1",
        "fabric.packageFiles[1]": (
            "a package file of one of doca-ofed, mlnx-ofed-kernel-dkms; found mft"
        ),
        "rollout.drain": (
            "asNeeded or always beside slurmstack:fabric: no driver changes under jobs; found never"
        ),
    }


def test_it_cannot_be_without_a_boot() -> None:
    with pytest.raises(SettingsError, match="slurmstack:boot beside it"):
        parse({**bare(), "fabric": FABRIC})
    # One that cannot be read is told as such, and not besides as none.
    assert [*mistakes({}, boot={"hosts": "cn01", "acs": True})] == ["boot.acs"]


@pytest.mark.parametrize("version", ["24.10", "MLNX_OFED_LINUX-24.10-2.1.8.0", "24.10-2.1.8.0", ""])
def test_the_release_is_said_as_its_modules_say_it(version: str) -> None:
    assert [*mistakes({"version": version})] == ["fabric.version"]
    assert [*mistakes({"packages": {}})] == ["fabric.packages"]
