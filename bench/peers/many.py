"""The work of 64 compute nodes by Ansible and pyinfra, over real SSH, beside slurmstack's on as
many simulated ones.

One machine of a lab answers at all addresses, each with the work of that machine. It does on the
processors of this machine what 64 would do on their own, so the clock is an upper bound of what 64
machines would take. The lower bound is what the tool itself takes of the processors here: with
machines that answer at once, its time is that, divided by the processors it can use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from bench.measure import Measured
from bench.peers.real import OURS, Figures
from bench.peers.tools import site, tools
from bench.peers.work import Work
from bench.steps import simulated
from lab import machine
from lab.names import Lab

_MACHINE = "cn02"
#: The last number of the first address.
_FIRST = 100
_READY = """\
set -e
for number in $(seq {first} {last}); do ip address replace {network}.$number/24 dev host0; done
# Each of so many machines has an sshd of its own, which would refuse none of them.
echo 'MaxStartups 1000' >/etc/ssh/sshd_config.d/00-bench.conf
systemctl reload ssh
"""


def measured(
    lab: Lab, works: Mapping[str, Work], count: int, say: Callable[[str], None]
) -> Figures:
    """A no-op, and looking for drift, on `count` nodes.

    Args:
        lab: deployed; one of its machines serves all.
        works: host → what is on it.
        count: at most 150.
        say: is told each figure as it comes.

    Raises:
        RuntimeError: a tool failed.
    """
    figures: Figures = defaultdict(lambda: defaultdict(list))

    def note(step: str, tool: str, took: Measured) -> None:
        figures[step][tool].append(took)
        say(f"{step}, {tool}: {took.seconds:.1f} s, processors {took.cpu:.1f} s")

    ours = dict(simulated(count))
    note(f"no-op, {count} nodes", OURS, ours["no-op up"])
    note(f"drift, or --check, {count} nodes", OURS, ours["slurmstack drift"])
    addresses = listen(lab, count)
    for tool in tools():
        with site(tool, lab, addresses, key_of=_MACHINE) as peer:
            # What may be missing comes once, since one machine has one lock for all packages.
            one = next(iter(addresses))
            peer.give({one: works[_MACHINE]})
            peer.run_first([one])
            peer.give(dict.fromkeys(addresses, works[_MACHINE]))
            note(f"no-op, {count} nodes", tool.name, peer.run())
            note(f"drift, or --check, {count} nodes", tool.name, peer.check())
    return figures


def listen(lab: Lab, count: int) -> dict[str, str]:
    """Names of so many nodes → the addresses at which the one machine answers from now on."""
    network = lab.gateway.rpartition(".")[0]
    text = _READY.format(first=_FIRST, last=_FIRST + count - 1, network=network)
    machine.ssh(lab, _MACHINE, text)
    return {f"node{number:03}": f"{network}.{_FIRST + number}" for number in range(count)}
