"""Another SlurmdPort: nodes hear the new one before slurmctld speaks to it.

A slurmd listens to what it was started with, and takes no other port up with a reconfiguration
(scontrol(1)). So that slurmctld reaches the nodes with the new slurm.conf, and sees that they come
back with it or takes it back, each is made to hear both ports first. Its own bundle then restarts
slurmd, whose stop ends that (``stop-slurmd``). Where a node cannot have the port, nobody changes.
"""

from __future__ import annotations

import pulumi

from components.assembly import Assembly
from components.configuration.slurm_conf import together
from components.failure import if_any
from components.inventory import TOGETHER
from remote.contact import ContactError, Reply, run_on_hosts
from remote.host import Host
from settings import Settings
from templates.rendering import render

#: systemd's, on the node.
UNIT = "slurmstack-slurmd-port"
_SECONDS = 30.0


def heard_before(assembly: Assembly) -> list[pulumi.Input[pulumi.Resource]]:
    """What slurmctld's bundle waits for, as ``depends_on`` takes it.

    Raises:
        pulumi.RunError: a node cannot hear the port that it is to have; nothing was changed. A node
            that is out of reach keeps nobody from anything.
    """
    settings = assembly.settings

    async def wait() -> None:
        if pulumi.runtime.is_dry_run():
            return
        inventory = (await assembly.left()).inventory
        last = inventory.get(assembly.controller, {}).get(TOGETHER)
        if last in (None, together(settings)):
            return
        hosts = [assembly.hosts[name] for name in settings.compute if name in inventory]
        replies = await run_on_hosts(hosts, lambda host: script(host, settings), seconds=_SECONDS)
        if wrong := refused(replies):
            raise pulumi.RunError(
                f"{'; '.join(wrong)}. Nothing was changed: end what has the port there "
                "(ss -ltnp), or choose another slurmstack:slurm.SlurmdPort"
            )

    return [if_any(wait())]


def script(host: Host, settings: Settings) -> str:
    """What a node is asked to do."""
    own = settings.compute[host.name].extra.get("Port")
    return render("compute/slurmd-port.sh", unit=UNIT, port=own or settings.slurm.SlurmdPort)


def refused(replies: dict[str, Reply | ContactError]) -> list[str]:
    """What nodes have against it."""
    return [
        f"{name}: {reply.stdout.strip() or reply.stderr.strip()}"
        for name, reply in replies.items()
        if not isinstance(reply, ContactError) and reply.status != 0
    ]
