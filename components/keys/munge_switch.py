"""The switch to another munge key: nobody before all can, and then all understand each other.

A munged holds one key, so that hosts with the old one and hosts with the new one do not hear each
other. What is between them is as short as the engine lets it be: the switches stand on nothing but
the permit, and run together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, cast

import pulumi
from pulumi_command import remote as command

from components.assembly import Assembly, Deployed
from components.bundle_resource import connection
from components.failure import dependency, if_any, recovered, took
from remote.contact import ContactError, Reply, run_on_hosts
from remote.host import Host
from templates.rendering import render

_NAME = "munge-switch"
#: Seconds for what is asked of one host of each role.
_SECONDS = 30.0
#: Hosts of a role that are asked, since some may be down.
_CANDIDATES = 4
_CREDENTIAL = re.compile(r"^MUNGE:[A-Za-z0-9+/=]+:$", re.MULTILINE)
_VERDICT = re.compile(r"^(\S+) (refused .*)$", re.MULTILINE)


class MungeSwitch:
    """Who may switch to a key, and the proof that all understand each other with it."""

    #: Runs when every host that has another key has staged this one.
    permit: pulumi.Resource

    def __init__(
        self,
        assembly: Assembly,
        path: str,
        sha256: pulumi.Output[str],
        staged: Mapping[str, Deployed],
        parent: pulumi.Resource,
    ) -> None:
        """
        Args:
            assembly: what the key is part of.
            path: where munged has its key.
            sha256: the key's.
            staged: host → the key, staged there.
            parent: the component that the permit belongs to.
        """
        self._assembly = assembly
        #: The hosts that have another key, as each said when it was applied last.
        self._switching = pulumi.Output.all(assembly.last, sha256).apply(
            lambda told: _with_another(told[0].inventory, path, told[1])
        )
        permit = command.Command(
            _NAME,
            connection=connection(assembly.hosts[assembly.controller]),
            # It does nothing: what stands on it is skipped where a host could not stage the key.
            create=":",
            triggers=[recovered(sha256, "")],
            logging=command.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=parent,
                depends_on=[
                    staged[assembly.controller].resource,
                    *(self._if_switched(bundle) for bundle in staged.values()),
                ],
            ),
        )
        self.permit = dependency(permit, parent)

    def _if_switched(self, bundle: Deployed) -> pulumi.Input[pulumi.Resource]:
        """The staged key of a host that is to switch. One that is new, or that has the key already,
        keeps nobody from anything."""

        async def wait() -> pulumi.Resource | None:
            if pulumi.runtime.is_dry_run() or self._assembly.hosts[bundle.node].lost:
                return None
            switching = await self._switching.future() or set()
            return bundle.resource if bundle.node in switching else None

        return if_any(wait())

    def check(self, switched: Mapping[str, Deployed]) -> None:
        """After a switch, have a host of each role decode what one of each other role has made.

        Args:
            switched: host → the key that munged serves with there.
        """

        async def ask(told: list[Any]) -> Any:
            switching, *applied = told
            have = {name for name, well in zip(switched, applied, strict=True) if well}
            hosts = {
                role: [self._assembly.hosts[name] for name in names if name in have][:_CANDIDATES]
                for role, names in self._roles().items()
            }
            wrong = await misunderstandings(hosts) if switching else []
            if wrong:
                raise pulumi.RunError("; ".join(wrong))

        if not pulumi.runtime.is_dry_run():
            taken = (took(bundle) for bundle in switched.values())
            whole: pulumi.Output[Any] = pulumi.Output.all(self._switching, *taken)
            whole.apply(ask)

    def _roles(self) -> dict[str, list[str]]:
        settings = self._assembly.settings
        return {
            "controller": [self._assembly.controller],
            "login": list(settings.login),
            "compute": list(settings.compute),
        }


def _with_another(inventory: Mapping[str, Any], path: str, sha256: str) -> set[str]:
    keys = {node: held.get("files", {}).get(path) for node, held in inventory.items()}
    return {node for node, key in keys.items() if key not in (None, sha256)}


async def misunderstandings(hosts: Mapping[str, Sequence[Host]]) -> list[str]:
    """Each pair of roles of which one does not decode the other's credential, and why.

    Args:
        hosts: role → hosts of it; the first that is there stands for it. Who is down, and so keeps
            the key that it has, is told where that host is to be changed.
    """
    candidates = list({host.name: host for names in hosts.values() for host in names}.values())
    given = await run_on_hosts(candidates, "timeout 20 munge --no-input", seconds=_SECONDS)
    wrong, made = [], {}
    by_name: dict[str, tuple[str, Host]] = {}
    for role, names in hosts.items():
        host = next((host for host in names if isinstance(given[host.name], Reply)), None)
        if host is None or host.name in by_name:
            continue
        by_name[host.name] = (role, host)
        credential = _CREDENTIAL.search(cast("Reply", given[host.name]).stdout)
        if credential is None:
            wrong.append(
                f"{host.name}: munge: gives no credential; see journalctl -u munge on {host.name}"
            )
        else:
            made[host.name] = credential[0]
    asked = [by_name[name][1] for name in made]
    verdicts = await run_on_hosts(
        asked,
        lambda host: render(
            "keys/munge-decodes.sh",
            credentials={name: text for name, text in made.items() if name != host.name},
        ),
        seconds=_SECONDS,
    )
    for name, other in permutations(made, 2):
        reply = verdicts[name]
        if isinstance(reply, ContactError):
            found = str(reply)
        elif verdict := dict(_VERDICT.findall(reply.stdout)).get(other):
            found = f"{name}: munge: {verdict}"
        else:
            continue
        wrong.append(
            f"{found}: {by_name[name][0]} {name} does not understand {by_name[other][0]} {other}; "
            f"compare their clocks, and see journalctl -u munge on {name}"
        )
    return list(dict.fromkeys(wrong))
