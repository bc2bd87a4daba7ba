"""NodeBoot: the command line of a compute node's kernel, its modules that a boot alone exchanges,
and the reboot by Slurm that they take.

Two roles, since nothing that runs on a node outlasts its reboot. ``boot`` drains the node, writes
what the next boot reads, and has slurmctld reboot it when that run has ended. The program waits
until the node is back. ``booted`` sees that the kernel has what it was to have, and gives the node
back as it was found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pulumi

from components.assembly import Assembly, Deployed
from components.bundle_resource import HostRole
from components.compute import compute_node
from components.compute.service import BOOTING, accepted_by, server, service, withdrawal
from components.failure import if_any, recovered, took
from components.gpu import nvidia
from components.host import applier, host_baseline
from components.inventory import REBOOT_WAITS, was_applied
from remote.answer import Answer
from remote.bundle import Bundle, Command, Directory, File, Guard, Part, Validate
from remote.contact import ContactError, run_on_hosts
from remote.host import Host
from settings import Settings
from settings.model import Hardware
from templates.rendering import render

ROLE, BOOTED_ROLE = "boot", "booted"
#: The reason of a drain that is ours to end.
OURS = BOOTING
GRUB = "/etc/default/grub.d/90-slurmstack.cfg"
#: What the kernel is to have been booted with; where it changes, the node is drained.
WANTED = "/etc/slurmstack/kernel-parameters"
#: Fact: the boot (its id, /proc/sys/kernel/random/boot_id) that was to be ended.
ENDED = "boot-ended"
#: Fact: words that the running kernel has not, or has and should not, and why it stays so.
WAITS = REBOOT_WAITS
#: What is kept on the node over a boot; and what tells of an ending that was not.
KEPT, REFUSED = "/var/lib/slurmstack-boot", "/run/slurmstack-reboot-refused"
#: Seconds for one look at a node that may be down, and between two.
_LOOK, _PAUSE = 15.0, 2.0


class NodeBoot(HostRole):
    """How one compute node is booted."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        for name in filter(settings.gets_boot, settings.compute_nodes):
            if not _has_its_say(name, settings, assembly.hardware):
                continue
            needs: list[pulumi.Input[pulumi.Resource]] = [
                *assembly.on(name, applier.ROLE, host_baseline.ROLE),
                # A boot for a driver whose turn does not come would be done before it.
                *assembly.on(name, nvidia.ROLE),
                *assembly.turns.unless_stopped(assembly.bundles(name, compute_node.ROLE)),
            ]
            needs += _alone(assembly, name)
            bundle = boot_bundle(name, settings, assembly.hardware)
            _tell(cls(name, assembly, bundle, needs).deployed)


class NodeBooted(HostRole):
    """A node that has the command line that it was to have."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if not reboots(settings):
            return
        assembly.turns.ends(ROLE, BOOTED_ROLE)
        for name in settings.compute_nodes:
            for boot in assembly.bundles(name, ROLE):
                needs = [boot.resource, *_back(boot, assembly)]
                cls(name, assembly, booted_bundle(name, settings, assembly.hardware), needs)


def reboots(settings: Settings) -> bool:
    """Whether nodes are rebooted where that is needed."""
    return settings.boot is not None and settings.boot.reboot != "never"


def needed(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> str:
    """Shell text: ``needed`` says whether the node is to be booted, and ``why``."""
    return render("boot/needed.sh", **_values(node, settings, hardware))


def gpu_driver(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> str | None:
    """The version of NVIDIA's driver that a boot brings where its module cannot be exchanged."""
    if settings.nvidia is None or not reboots(settings) or not settings.gets_boot(node):
        return None
    return settings.nvidia.driver.upstream if nvidia.is_for(node, settings, hardware) else None


def wanted(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> str:
    """The content of ``WANTED``, which another boot of the node changes beforehand."""
    values = _values(node, settings, hardware)
    words = [
        *values["parameters"],
        *(("module", " ".join(it)) for it in values["modules"].items()),
    ]
    lines = "".join(f"{vendor} {word}\n" for vendor, word in words)
    return f"# Of the kernel's command line, by slurmstack.\n{lines}"


def _has_its_say(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> bool:
    """Whether there is anything that a boot of the node has to bring."""
    assert settings.boot is not None
    return (
        settings.boot.parameters is not None
        or settings.gets_fabric(node)
        or gpu_driver(node, settings, hardware) is not None
    )


def boot_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """What a compute node gets before its boot.

    Raises:
        ValueError: the settings have no word of how it is booted.
    """
    values, look = _values(node, settings, hardware), needed(node, settings, hardware)
    parts = _command_line(values) if values["words_are_ours"] else _no_command_line(values)
    if not reboots(settings):
        script = look + render("boot/waits.sh", waits=WAITS)
        on = tuple(part.path for part in parts if isinstance(part, File))
        parts.append(Command("reboot-waits", script, on=on, probe=_probe(look)))
        return Bundle(node, ROLE, parts)
    first = look + render("boot/service.sh")
    return Bundle(
        node,
        ROLE,
        [
            *parts,
            withdrawal(node, settings, OURS, on=(WANTED,), unit="slurmd.service", first=first),
            Directory("/etc/slurmstack"),
            File(WANTED, wanted(node, settings, hardware)),
            Command(
                "reboot",
                look + render("boot/reboot.sh", **values),
                on=(WANTED,),
                timeout=120,
                probe=_probe(look),
                reboots=True,
            ),
        ],
    )


def _command_line(values: Mapping[str, Any]) -> list[Part]:
    """What GRUB gives the kernel."""
    return [
        Guard("grub-boots-it", render("boot/grub-boots-it.sh")),
        Directory("/etc/default/grub.d"),
        File(GRUB, render("boot/grub.cfg", **values)),
        Validate("shell-reads-it", f'sh -n "$SLURMSTACK_STAGED{GRUB}"\n', on=(GRUB,)),
        Command("boot-loader", render("boot/boot-loader.sh", **values), on=(GRUB,), timeout=300),
        Command(
            "boot-loader-without", render("boot/boot-loader-without.sh", **values), when="remove",
            timeout=300,
        ),
    ]  # fmt: skip


def _no_command_line(values: Mapping[str, Any]) -> list[Part]:
    """What takes the words of before from GRUB, if there were any: the role may go on without."""
    given = f'[ -s "${{SLURMSTACK_ROOT-}}{KEPT}/given" ] || exit 0\n'
    script = given + render("boot/boot-loader-without.sh", **values)
    return [Command("boot-loader-without", script, timeout=300)]


def booted_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """What is seen on it after its boot; due once for each list of parameters."""
    give_back = service(node, settings, OURS, accepted_by(settings))
    driver = gpu_driver(node, settings, hardware)
    proof = nvidia.proof(node, settings, hardware) if driver is not None else None
    values = _values(node, settings, hardware)
    script = needed(node, settings, hardware) + render("boot/booted.sh", **values, proof=proof)
    return Bundle(
        node,
        BOOTED_ROLE,
        [Command("booted", f"{script}SLURMSTACK_SERVICE=back\n{give_back}", timeout=1800)],
    )


def _values(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> dict[str, Any]:
    if settings.boot is None or not _has_its_say(node, settings, hardware):
        raise ValueError("no slurmstack:boot with parameters of the kernel in the settings")
    fabric = settings.fabric if settings.gets_fabric(node) else None
    driver = gpu_driver(node, settings, hardware)
    modules = {"mlx5_core": fabric.version} if fabric is not None else {}
    return {
        "node": node,
        "ours": OURS,
        "server": server(settings),
        "parameters": settings.boot.parameters or (),
        "words_are_ours": settings.boot.parameters is not None,
        "modules": {**modules, **({"nvidia": driver} if driver is not None else {})},
        "kept": KEPT,
        "refused": REFUSED,
        "grub": GRUB,
        "ended": ENDED,
        "waits": WAITS,
    }


def _probe(needed: str) -> str:
    return f'{needed}! needed || {{\n  echo "the node is to be booted for$why"\n  exit 1\n}}\n'


def _alone(assembly: Assembly, node: str) -> list[pulumi.Input[pulumi.Resource]]:
    """Waits until nothing else is being done to the node, well or not: a reboot would end it."""
    others = [bundle for bundle in assembly.deployed if bundle.node == node]

    async def wait() -> None:
        if not pulumi.runtime.is_dry_run():
            await asyncio.gather(*(took(bundle).future() for bundle in others))

    return [if_any(wait())]


def _back(boot: Deployed, assembly: Assembly) -> list[pulumi.Input[pulumi.Resource]]:
    """Waits until the node has been booted, where ``boot`` has just had it rebooted. One that does
    not come back in time is for ``booted`` to say."""
    settings, host = assembly.settings, assembly.hosts[boot.node]
    assert settings.boot is not None
    patience = settings.boot.boot_timeout

    async def wait() -> None:
        if pulumi.runtime.is_dry_run() or host.lost:
            return
        answer = await recovered(boot.answer, _NO_ANSWER).future()
        if answer is None or ENDED not in answer.facts:
            return
        if was_applied(answer, (await assembly.left()).inventory):
            await booted(host, answer.facts[ENDED], patience)

    return [if_any(wait())]


_NO_ANSWER: Any = None


async def booted(host: Host, ended: str, patience: float) -> bool:
    """Whether a node comes to have another boot than this one; False also where its reboot was
    refused, which the node says itself."""
    look = f"cat /proc/sys/kernel/random/boot_id; cat {REFUSED} 2>/dev/null; true"
    end = time.monotonic() + patience
    while time.monotonic() < end:
        reply = (await run_on_hosts([host], look, seconds=_LOOK))[host.name]
        if not isinstance(reply, ContactError) and reply.status == 0:
            boot, _, refusal = reply.stdout.partition("\n")
            if boot != ended:
                return True
            if refusal.strip():
                return False
        await asyncio.sleep(_PAUSE)
    return False


def _tell(boot: Deployed) -> None:
    def warn(answer: Answer) -> None:
        if answer.facts.get(WAITS):
            pulumi.log.warn(f"{answer.node}: a reboot waits: {answer.facts[WAITS]}")

    recovered(boot.answer.apply(warn), None)
