"""One bundle on one node: the ``remote.Command`` it becomes, and the node's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi_command import remote as command

from components.asked_again import ask_again, counted
from components.assembly import Assembly, Deployed
from components.failure import dependency, recovered
from components.planned_bundles import leave
from remote.answer import Answer, AnswerError, parse_answer
from remote.bundle import Bundle, BundleError
from remote.commands import APPLY, INSTALL, REMOVE, UNINSTALL, applier
from remote.host import Host


def connection(host: Host) -> command.ConnectionArgs:
    """How the provider reaches a host; keys are the SSH agent's, the host's key is pinned."""
    bastion = host.bastion
    return command.ConnectionArgs(
        host=host.address,
        port=host.port,
        user=host.user,
        host_key=host.host_key or None,
        dial_error_limit=host.dial_error_limit,
        per_dial_timeout=host.per_dial_timeout,
        proxy=None
        if bastion is None
        else command.ProxyConnectionArgs(
            host=bastion.address,
            port=bastion.port,
            user=bastion.user,
            host_key=bastion.host_key or None,
            dial_error_limit=bastion.dial_error_limit,
            per_dial_timeout=bastion.per_dial_timeout,
        ),
    )


def install_applier(assembly: Assembly, node: str, role: str, parent: pulumi.Resource) -> None:
    """The first thing on every node: what all its bundles are applied by."""
    text = applier(assembly.settings.wish(node, role))
    _command(assembly, node, role, INSTALL, UNINSTALL, text, parent, (), False)


def deploy(
    assembly: Assembly,
    node: str,
    bundle: Bundle | pulumi.Output[Bundle],
    role: str,
    parent: pulumi.Resource,
    depends_on: Sequence[pulumi.Input[pulumi.Resource]],
    secret: bool = False,
) -> Deployed:
    """Apply a bundle to a node, and enter it in the assembly.

    Args:
        assembly: what the component is part of.
        node: the host's name.
        bundle: what the role puts there; an Output where it holds values of other resources.
        role: the bundle's role; the resource is called NODE-ROLE.
        parent: the component this belongs to.
        depends_on: what must stand before.
        secret: the bundle holds a key: it is encrypted in the state and never shown. Its
            answer, which holds hashes only, is not.
    """
    reapply = assembly.settings.wish(node, role)
    text: pulumi.Output[Any] = pulumi.Output.from_input(bundle).apply(
        lambda value: _text(value, reapply, secret)
    )
    stdin: pulumi.Output[Any] = pulumi.Output.secret(text) if secret else text
    return _command(assembly, node, role, APPLY, REMOVE, stdin, parent, depends_on, secret)


class HostRole(pulumi.ComponentResource):
    """A component that is one role of one host: a bundle, and what it stands on.

    Its type is ``slurmstack:components:`` and the name of its class, and so part of the URN: a
    class with another name needs an alias.
    """

    deployed: Deployed

    def __init__(
        self,
        name: str,
        assembly: Assembly,
        bundle: Bundle,
        depends_on: Sequence[pulumi.Input[pulumi.Resource]],
    ) -> None:
        kind = f"slurmstack:components:{type(self).__name__}"
        super().__init__(kind, name, None, assembly.options)
        self.deployed = deploy(assembly, bundle.node, bundle, bundle.role, self, depends_on)
        self.register_outputs({})


#: What changes nothing on a machine that is gone.
_ALL_INPUTS = [
    "connection", "create", "update", "delete", "stdin", "logging", "environment",
    "addPreviousOutputInEnv",
]  # fmt: skip


def _command(
    assembly: Assembly,
    node: str,
    role: str,
    apply: str,
    remove: str,
    stdin: pulumi.Input[str],
    parent: pulumi.Resource,
    depends_on: Sequence[pulumi.Input[pulumi.Resource]],
    secret: bool,
) -> Deployed:
    host = assembly.hosts[node]
    name = f"{host.name}-{role}"
    # What is secret is a key, which changes everywhere at once; the applier changes no daemon.
    turn = [] if secret or apply == INSTALL else assembly.turns.before(node, role)
    resource = command.Command(
        name,
        connection=connection(host),
        create=apply,
        update=counted(name, apply),
        delete=remove,
        stdin=recovered(pulumi.Output.from_input(stdin), ""),
        logging=command.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=parent,
            depends_on=[*depends_on, *turn],
            retain_on_delete=host.lost,
            ignore_changes=_ALL_INPUTS if host.lost else None,
        ),
    )
    stdout: pulumi.Output[Any] = pulumi.Output.unsecret(resource.stdout)
    answer = stdout.apply(lambda text: read_answer(text, name, host.name, role))
    deployed = Deployed(node, role, dependency(resource, parent), answer, tuple(depends_on))
    assembly.deployed.append(deployed)
    assembly.turns.enter(deployed)
    return deployed


def _text(bundle: Bundle, reapply: str | None, secret: bool) -> str:
    try:
        text = bundle.render(reapply)
    except BundleError as error:
        # A report for the operator, without a traceback.
        raise pulumi.RunError(str(error)) from None
    leave(bundle, text, secret)
    return text


def read_answer(stdout: str, name: str, node: str, role: str) -> Answer:
    """What the command of this name answered. Where it is none, the run ends, and the next run of
    the program runs that command again."""
    try:
        return parse_answer(stdout)
    except AnswerError as error:
        ask_again(name)
        raise pulumi.RunError(
            f"{node}: {role}: {error}; see that a login there runs commands, and run `pulumi up` "
            "again: it asks again"
        ) from None
