"""Parameters of the kernel by a reboot in the middle of `pulumi up`, with jobs there.

A machine of the lab has neither GRUB nor a kernel of its own. Stand-ins: update-grub, which writes
what the next boot takes; a unit that makes it the command line of the boot (SLURMSTACK_CMDLINE) and
the modules that are installed those of the kernel (SLURMSTACK_SYS); packages of drivers; a
slurmd that is told of each boot (-b of slurmd(8)), as all machines have one kernel's boot time; and
a thread in the place of the firmware, which switches on what went off. systemd, Slurm, its reboot
and what it says of nodes are real."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.boot.node_boot import OURS
from components.gpu import nvidia
from lab import deploy, machine
from tests.lab import artifacts
from tests.lab.artifacts import PLACE, entry
from tests.lab.conftest import Run, RunningLab, await_that
from tests.lab.test_guards import cancel, node, state_of, submit
from tests.lab.test_nvidia import driver, loaded, whole

pytestmark = pytest.mark.lab

NODES = ("cn01", "cn02")
PREPARED = r"""
set -e
mkdir -p /srv/stand-in /boot/grub /etc/default/grub.d /etc/systemd/system/slurmd.service.d
cat >/usr/sbin/update-grub <<"END"
#!/bin/sh
GRUB_CMDLINE_LINUX=quiet
for file in /etc/default/grub.d/*.cfg; do [ ! -e "$file" ] || . "$file"; done
printf '\tlinux\t/vmlinuz root=UUID=1 ro %s\n' "$GRUB_CMDLINE_LINUX" >/boot/grub/grub.cfg
END
cat >/usr/local/sbin/slurmd-of-this-boot <<"END"
#!/bin/sh
[ -e /run/slurmd-was-started ] || set -- -b "$@"
: >/run/slurmd-was-started
exec /usr/sbin/slurmd "$@"
END
chmod 755 /usr/sbin/update-grub /usr/local/sbin/slurmd-of-this-boot
: >/run/slurmd-was-started
cat >/etc/systemd/system/slurmd.service.d/zz-stand-in.conf <<"END"
[Service]
ExecStart=
ExecStart=/usr/local/sbin/slurmd-of-this-boot --systemd $SLURMD_OPTIONS
END
cat >/etc/systemd/system/stand-in-kernel.service <<"END"
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/stand-in-kernel
[Install]
WantedBy=sysinit.target
END
cat >/usr/local/sbin/stand-in-kernel <<"END"
#!/bin/sh
sed 's/^.*linux//' /boot/grub/grub.cfg >/srv/stand-in/cmdline
cd /srv/stand-in/sys/module/mlx5_core
rm -f version
[ ! -x /usr/local/sbin/modinfo ] || /usr/local/sbin/modinfo >version
[ ! -e ../nvidia ] || cp /var/lib/stand-in/built ../nvidia/version
END
chmod 755 /usr/local/sbin/stand-in-kernel
mkdir -p /srv/stand-in/sys/module/mlx5_core /lib/modules/$(uname -r)/build
update-grub
systemctl daemon-reload
systemctl enable --now stand-in-kernel.service
sed -i "/^SLURMSTACK_CMDLINE/d; /^SLURMSTACK_SYS/d" /etc/environment
echo SLURMSTACK_CMDLINE=/srv/stand-in/cmdline >>/etc/environment
echo SLURMSTACK_SYS=/srv/stand-in/sys >>/etc/environment
"""
UNDONE = """
sed -i "/^SLURMSTACK_CMDLINE/d; /^SLURMSTACK_SYS/d" /etc/environment
systemctl disable stand-in-kernel.service
rm -rf /srv/stand-in /var/lib/stand-in /var/lib/dkms /usr/sbin/update-grub /boot/grub \
  /usr/local/sbin/slurmd-of-this-boot /usr/local/sbin/stand-in-kernel /lib/modules/$(uname -r)/build
cd /etc/systemd/system && rm slurmd.service.d/zz-stand-in.conf stand-in-kernel.service
systemctl daemon-reload
systemctl restart slurmd
"""


class Firmware(threading.Thread):
    """Switches machines on again that went off, and notes it. `holding`: not these."""

    def __init__(self, lab: RunningLab) -> None:
        super().__init__(daemon=True)
        self.lab, self.booted, self.holding = lab, list[str](), set[str]()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.3):
            for name in NODES:
                if name not in self.holding and not machine.is_running(self.lab.lab, name):
                    self.booted.append(name)
                    self.lab.boot(name)


class Site:
    """The lab with both nodes in one class, cn01 being its canary."""

    def __init__(self, lab: RunningLab, firmware: Firmware) -> None:
        self.lab, self.firmware = lab, firmware

    def want(self, *parameters: str, **more: Any) -> None:
        self.lab.set(boot={"kernelParameters": [*parameters], **more})

    def running(self, name: str) -> list[str]:
        """The command line that the kernel stands in for, without what it always has."""
        words = self.lab.ssh(name, "cat /srv/stand-in/cmdline").stdout.split()
        return words[words.index("quiet") + 1 :]

    def drivers(self, folder: Path, version: str, modules: str = "") -> None:
        """Network drivers of a release, into the settings and onto the package host."""
        files = artifacts.network_driver_stand_ins(folder, version, modules)
        artifacts.bring(self.lab, *files)
        packages = {file.name.split("_")[0]: f"{version}+standin" for file in files}
        self.lab.set(
            boot={},
            fabric={
                "version": version, "packages": packages, "modules": [],
                "packageFiles": [entry(file) for file in files],
            },
        )  # fmt: skip

    def module(self, name: str) -> str:
        """The release of the module in what stands for the kernel, and that of the packages."""
        words = (
            "cat /srv/stand-in/sys/module/mlx5_core/version 2>/dev/null || echo its own; "
            "dpkg-query -W -f '${Version}\n' 'mlnx-ofed-kernel-*' 2>/dev/null | sort -u"
        )
        return " ".join(self.lab.ssh(name, words).stdout.split())

    def plan(self) -> str:
        return " ".join(self.lab.run("slurmstack", "plan", check=False).stdout.split())

    @contextmanager
    def killed_while_it_is_off(self, name: str) -> Iterator[None]:
        """A run that is killed when this node has gone off, which stays so."""
        lab = self.lab.lab
        self.firmware.holding.add(name)
        program = str(lab.checkout / ".venv" / "bin" / "pulumi")
        words = [program, "up", "--yes", "--skip-preview", "--stack", self.lab.name]
        none = subprocess.DEVNULL
        process = subprocess.Popen(
            [*words, "--non-interactive"], env=deploy.program_environment(lab), cwd=lab.checkout,
            stdin=none, stdout=none, stderr=none, start_new_session=True,
        )  # fmt: skip
        try:
            yield
            await_that(lambda: not machine.is_running(lab, name))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.lab.pulumi("cancel", "--yes", check=False)

    @contextmanager
    def in_background(self) -> Iterator[Run]:
        run = Run(self.lab)
        run.start()
        try:
            yield run
        finally:
            run.join()


@pytest.fixture(scope="module")
def site(lab: RunningLab) -> Iterator[Site]:
    firmware, before = Firmware(lab), lab.settings.read_text()
    made = Site(lab, firmware)
    cancel(lab)
    for name in NODES:
        lab.send(name, "sh -s", PREPARED.encode())
    firmware.start()
    try:
        lab.set(nodes=[{"name": "dgx", "hosts": "cn[01-02]", "Features": ["dgx"]}])
        lab.up()
        yield made
    finally:
        cancel(lab)
        firmware.holding.clear()
        # No driver goes from a node in use.
        lab.ssh("ctl", "scontrol update node=cn[01-02] state=drain reason='the test ends'")
        lab.settings.write_text(before)
        lab.up()
        lab.ssh("ctl", f"rm -rf {PLACE}; scontrol update node=cn[01-02] state=undrain")
        firmware.ended.set()
        firmware.join()
        for name in NODES:
            lab.send(name, "sh -s", UNDONE.encode())


@pytest.fixture(autouse=True)
def no_job_stays(lab: RunningLab) -> Iterator[None]:
    """A test that fails leaves none that another one would wait for."""
    yield
    cancel(lab)


def test_a_parameter_is_booted_on_the_canary_and_then_on_the_rest(site: Site) -> None:
    lab, firmware = site.lab, site.firmware
    site.want("iommu=pt")
    told = site.plan()
    assert "cn[01-02] drained first, rebooted by Slurm where needed, given back" in told, told
    long = submit(lab, "-w cn01 --mem=100")
    waiting = submit(lab, "-w cn01 --exclusive", "PENDING")
    elsewhere = submit(lab, "-w cn02 --mem=100")
    with site.in_background() as run:
        run.comes_to(lambda: OURS in node(lab, "cn01"))
        assert node(lab, "cn02") == "mixed|none|Unknown"
        assert (state_of(lab, long), firmware.booted) == ("RUNNING", [])
        lab.ssh("ctl", f"scancel {long}")
        # The canary was booted and takes its waiting job, while the other still has its own.
        run.comes_to(lambda: OURS in node(lab, "cn02"))
        assert (site.running("cn01"), site.running("cn02")) == (["iommu=pt"], [])
        await_that(lambda: state_of(lab, waiting) == "RUNNING")
        assert (state_of(lab, elsewhere), firmware.booted) == ("RUNNING", ["cn01"])
        lab.ssh("ctl", f"scancel {elsewhere}")
    assert run.status == 0, run.said
    assert (site.running("cn02"), firmware.booted) == (["iommu=pt"], ["cn01", "cn02"])
    assert (state_of(lab, waiting), node(lab, "cn02")) == ("RUNNING", "idle|none|Unknown")
    lab.pulumi("preview", "--expect-no-changes")


def test_jobs_that_do_not_end_are_left_alone(site: Site) -> None:
    lab, boots = site.lab, list(site.firmware.booted)
    submit(lab, "-w cn01 --mem=100")
    site.want("iommu=pt", "mitigations=off")
    lab.set(rollout={"drainTimeout": 1})
    said = " ".join(lab.up(check=False).split())
    lab.set(rollout={"drainTimeout": 300})
    assert "slurmstack: cn01: withdraw node-drained: refused" in said, said
    assert "nothing was changed" in said
    assert site.firmware.booted == boots
    assert (site.running("cn01"), site.running("cn02")) == (["iommu=pt"], ["iommu=pt"])
    for name in NODES:
        assert not lab.ssh(name, "grep mitigations /boot/grub/grub.cfg", check=False).stdout


def test_a_node_that_a_person_drained_is_booted_empty_and_stays_drained(site: Site) -> None:
    lab = site.lab
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    try:
        site.want("iommu=pt", "mitigations=off")
        lab.up()
        for name in NODES:
            assert site.running(name) == ["iommu=pt", "mitigations=off"]
        assert node(lab, "cn02") == "drained|of a person|root"
        assert node(lab, "cn01") == "idle|none|Unknown"
    finally:
        lab.ssh("ctl", "scontrol update node=cn02 state=undrain")


def test_a_run_killed_while_the_node_is_off_is_finished_by_the_next(site: Site) -> None:
    lab, firmware = site.lab, site.firmware
    site.want("iommu=pt")
    with site.killed_while_it_is_off("cn01"):
        pass
    # slurmctld gives it up (ResumeTimeout), which is none of a person's words.
    await_that(lambda: "reboot timed out" in node(lab, "cn01"))
    firmware.holding.clear()
    assert node(lab, "cn02") == "idle|none|Unknown"
    lab.up()
    for name in NODES:
        assert site.running(name) == ["iommu=pt"]
        assert node(lab, name) == "idle|none|Unknown"
    lab.pulumi("preview", "--expect-no-changes")


def test_values_are_set_at_once_and_no_job_notices(site: Site) -> None:
    """A machine of the lab has network values of its own, and no others."""
    lab, boots = site.lab, list(site.firmware.booted)
    read = "cat /proc/sys/net/core/somaxconn"
    before = lab.ssh("cn01", read).stdout
    job = submit(lab, "-w cn01 --mem=100")
    site.want("iommu=pt", sysctl={"net.core.somaxconn": 8192, "vm.max_map_count": 70000})
    said = " ".join(lab.up(check=False).split())
    assert "vm.max_map_count: the kernel does not take 70000, and has" in said, said
    site.want("iommu=pt", sysctl={"net.core.somaxconn": 8192})
    lab.up()
    assert [lab.ssh(name, read).stdout for name in NODES] == ["8192\n"] * 2
    lab.ssh("cn01", "echo 77 >/proc/sys/net/core/somaxconn")
    told = lab.run("slurmstack", "drift", "--json", check=False).stdout
    assert "net.core.somaxconn is 77, expected 8192" in told, told
    site.want("iommu=pt")
    lab.up()
    assert lab.ssh("cn01", read).stdout == before
    assert not lab.ssh("cn01", "ls /etc/sysctl.d/90-slurmstack.conf", check=False).stdout
    assert (state_of(lab, job), site.firmware.booted) == ("RUNNING", boots)
    # Nor is a virtual machine, as this one is or not, taken for one of metal.
    if lab.ssh("cn01", "systemd-detect-virt --vm", check=False).returncode == 0:
        site.want("iommu=pt", acs="off")
        said = " ".join(lab.up(check=False).split())
        assert "guard no-virtual-machine: refused" in said, said
        site.want("iommu=pt", cpuGovernor="performance")
        lab.up()
        site.want("iommu=pt")
        lab.up()


def test_never_leaves_the_node_and_says_that_a_reboot_waits(site: Site) -> None:
    lab, boots = site.lab, list(site.firmware.booted)
    job = submit(lab, "-w cn01 --mem=100")
    site.want("iommu=pt", "nosmt", reboot="never")
    said = " ".join(lab.up().split())
    assert "cn01: a reboot waits: nosmt" in said, said
    assert (state_of(lab, job), node(lab, "cn01")) == ("RUNNING", "mixed|none|Unknown")
    assert site.firmware.booted == boots
    told = lab.run("slurmstack", "drift", "--json", check=False).stdout
    assert "reboot-waits" in told, told
    cancel(lab)
    # Allowed, it is made up for.
    site.want("iommu=pt", "nosmt")
    lab.up()
    assert [site.running(name) for name in NODES] == [["iommu=pt", "nosmt"]] * 2


def test_parameters_are_taken_back_by_a_boot_without_them(site: Site) -> None:
    lab = site.lab
    site.want()
    lab.up()
    for name in NODES:
        assert site.running(name) == []
        assert node(lab, name) == "idle|none|Unknown"
    boots = list(site.firmware.booted)
    lab.set(boot=None)
    lab.up()
    assert site.firmware.booted == boots
    for name in NODES:
        gone = "ls /etc/default/grub.d/90-slurmstack.cfg /var/lib/slurmstack-boot"
        assert lab.ssh(name, gone, check=False).stdout == ""


def test_network_drivers_change_on_a_drained_node_and_come_with_its_boot(
    site: Site, tmp_path: Path
) -> None:
    lab, firmware, first, second = site.lab, site.firmware, "24.04-0.6.6", "24.10-2.1.8"
    boots = list(firmware.booted)
    site.drivers(tmp_path, first)
    told = site.plan()
    assert "cn[01-02] drained first, rebooted by Slurm where needed, given back" in told, told
    long = submit(lab, "-w cn01 --mem=100")
    waiting = submit(lab, "-w cn01 --exclusive", "PENDING")
    elsewhere = submit(lab, "-w cn02 --mem=100")
    with site.in_background() as run:
        run.comes_to(lambda: OURS in node(lab, "cn01"))
        assert site.module("cn01") == "its own"
        assert node(lab, "cn02") == "mixed|none|Unknown"
        lab.ssh("ctl", f"scancel {long}")
        # The canary has its drivers and was booted before the other is drained for them.
        run.comes_to(lambda: OURS in node(lab, "cn02"))
        assert site.module("cn01") == f"{first} {first}+standin"
        assert (site.module("cn02"), state_of(lab, elsewhere)) == ("its own", "RUNNING")
        await_that(lambda: state_of(lab, waiting) == "RUNNING")
        lab.ssh("ctl", f"scancel {elsewhere}")
    assert run.status == 0, run.said
    assert site.module("cn02") == f"{first} {first}+standin"
    # One boot, and one drain, for both.
    assert firmware.booted == [*boots, "cn01", "cn02"]
    assert (state_of(lab, waiting), node(lab, "cn02")) == ("RUNNING", "idle|none|Unknown")
    cancel(lab)
    lab.pulumi("preview", "--expect-no-changes")

    # A release whose modules were not built boots nobody, and goes no further than the canary.
    before = lab.settings.read_text()
    site.drivers(tmp_path / "unbuilt", second, modules=first)
    said = " ".join(lab.up(check=False).split())
    assert f"has module mlx5_core {first}, expected {second}" in said, said
    assert site.module("cn01") == f"{first} {second}+standin"
    assert site.module("cn02") == f"{first} {first}+standin"
    assert node(lab, "cn01").startswith(f"drained|{OURS}|")
    assert node(lab, "cn02") == "idle|none|Unknown"
    lab.settings.write_text(before)
    lab.up()
    assert firmware.booted == [*boots, "cn01", "cn02"]
    for name in NODES:
        assert site.module(name) == f"{first} {first}+standin"
        assert node(lab, name) == "idle|none|Unknown"

    lab.set(fabric=None, boot=None)
    said = " ".join(lab.up(check=False).split())
    assert "guard drivers-stay: refused" in said, said
    lab.ssh("ctl", "scontrol update node=cn[01-02] state=drain reason='they go'")
    lab.up()
    lab.ssh("ctl", f"rm -rf {PLACE}; scontrol update node=cn[01-02] state=undrain")
    for name in NODES:
        # The kernel keeps what it has until its next boot.
        assert site.module(name) == first


def test_a_gpu_driver_that_cannot_leave_the_kernel_comes_with_one_boot(
    site: Site, tmp_path: Path
) -> None:
    """A run killed while the node is off is finished by the next; a person's drain stays."""
    lab, firmware, first, second = site.lab, site.firmware, "570.1.1", "570.2.2"
    boots = list(firmware.booted)
    lab.set(boot={}, nvidia=driver(lab, tmp_path, first))
    lab.up()
    for name in NODES:
        assert (loaded(lab, name), node(lab, name)) == (whole(first), "idle|none|Unknown")
        # Whatever has the device open holds the module.
        lab.ssh(name, "touch /dev/nvidia0; systemd-run -q sh -c 'exec sleep 1d </dev/nvidia0'")
    assert firmware.booted == boots
    lab.set(nvidia=driver(lab, tmp_path, second))
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    job = submit(lab, "-w cn01 --mem=100")
    waiting = submit(lab, "-w cn01 --exclusive", "PENDING")
    with site.killed_while_it_is_off("cn01"):
        await_that(lambda: nvidia.OURS in node(lab, "cn01"))
        assert (state_of(lab, job), loaded(lab, "cn01")) == ("RUNNING", whole(first))
        lab.ssh("ctl", f"scancel {job}")
    # One drain: no job has met the node between its new packages and its boot.
    assert OURS in node(lab, "cn01")
    assert state_of(lab, waiting) == "PENDING"
    assert (loaded(lab, "cn02"), node(lab, "cn02")) == (whole(first), "drained|of a person|root")
    firmware.holding.clear()
    lab.up()
    assert firmware.booted == [*boots, "cn01", "cn02"]
    for name in NODES:
        assert loaded(lab, name) == whole(second)
        running = "systemctl is-active nvidia-persistenced nvidia-fabricmanager"
        assert lab.ssh(name, running).stdout.split() == ["active", "active"]
    await_that(lambda: state_of(lab, waiting) == "RUNNING")
    assert node(lab, "cn01") == "allocated|none|Unknown"
    assert node(lab, "cn02") == "drained|of a person|root"
    lab.pulumi("preview", "--expect-no-changes")
