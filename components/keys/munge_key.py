"""MungeKey: one key for the whole cluster, staged on every host before any switches to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import pulumi
import pulumi_random as random
from pulumi_command import remote as command

from components.asked_again import ask_again, counted
from components.assembly import Assembly, Deployed
from components.bundle_resource import connection, deploy, read_answer
from components.failure import dependency, recovered
from components.host import host_baseline
from components.host.identities import service_user
from components.keys.munge_switch import MungeSwitch
from remote.bundle import Bundle, Check, File, Package, Part, Unit, Validate
from remote.framing import BEGIN, END
from settings import Settings
from settings.model import MungeKeySetting
from templates.rendering import render

ROLE = "munge-key"
STAGED_ROLE = "munge-staged"
PATH = "/etc/munge/munge.key"
#: Where the key lies before munged serves with it.
STAGED = "/etc/munge/munge.key.staged"
_NAME = "munge-credential"
#: munged(8): keys have up to 1,024 bytes.
_BYTES = 1024
#: munge(1): what munged gives; nothing in it is special to a shell.
_FORM = re.compile(r"MUNGE:[A-Za-z0-9+/=]+:")


class MungeKey(pulumi.ComponentResource):
    """The munge key of a cluster, on each of its hosts.

    The key is made by pulumi-random's RandomPassword (1,024 characters), or is an existing one
    from the stack's secret ``slurmstack:mungeKey``. It is staged first: laid beside the one that
    munged serves with, taken by a munged of its own, which must decode there what the controller's
    has made with it. When every host that has a key has staged the new one, all switch at once.
    """

    #: SHA-256 of the key, as the controller read it back.
    sha256: pulumi.Output[str]

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:MungeKey", name, None, assembly.options)
        hosts, controller = assembly.hosts, assembly.controller
        key = self._key(name, assembly.settings.munge_key)
        first = self._stage(assembly, controller, key, None, [])
        credential = self._credential(assembly, first)
        given = credential.stdout.apply(lambda text: read_credential(text, controller))
        made = dependency(credential, self)
        staged = {
            node: first if node == controller else self._stage(assembly, node, key, given, [made])
            for node in hosts
        }
        switch = MungeSwitch(assembly, PATH, key.apply(_sha256), staged, self)
        switched = {
            node: self._place(assembly, node, key, [bundle.resource, switch.permit])
            for node, bundle in staged.items()
        }
        switch.check(switched)
        self.sha256 = switched[controller].answer.apply(lambda answer: answer.files[PATH].sha256)
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        cls("munge-key", assembly)

    def _key(self, name: str, existing: MungeKeySetting | None) -> pulumi.Output[bytes]:
        if existing is None:
            # Not RandomBytes: its id, which no engine encrypts, is the bytes (decision 0005).
            made = random.RandomPassword(
                name, length=_BYTES, opts=pulumi.ResourceOptions(parent=self)
            )
            return made.result.apply(str.encode)
        value = existing.value.get_secret_value()
        pulumi.log.info(
            f"munge key from slurmstack:mungeKey, taken as {existing.encoding}: {len(value)} "
            f"bytes, sha256 {_sha256(value)}",
            self,
        )
        return pulumi.Output.secret(value)

    def _stage(
        self,
        assembly: Assembly,
        node: str,
        key: pulumi.Output[bytes],
        credential: pulumi.Output[str] | None,
        depends_on: list[pulumi.Input[pulumi.Resource]],
    ) -> Deployed:
        settings = assembly.settings
        bundle = pulumi.Output.all(key=key, credential=credential).apply(
            lambda values: staged_bundle(node, values["key"], values["credential"], settings)
        )
        system = assembly.turns.unless_stopped(assembly.bundles(node, host_baseline.ROLE))
        needs = [*system, *depends_on]
        return deploy(assembly, node, bundle, STAGED_ROLE, self, needs, secret=True)

    def _credential(self, assembly: Assembly, staged: Deployed) -> command.Command:
        """What the controller's munged makes with the staged key."""
        script = render("keys/munge-credential.sh", staged=STAGED, begin=BEGIN, end=END)
        sha256 = staged.answer.apply(lambda answer: answer.files[STAGED].sha256)
        return command.Command(
            _NAME,
            connection=connection(assembly.hosts[staged.node]),
            create=script,
            update=counted(_NAME, script),
            # A new key needs a new credential; nothing else does.
            triggers=[recovered(sha256, "")],
            logging=command.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[staged.resource], additional_secret_outputs=["stdout"]
            ),
        )

    def _place(
        self,
        assembly: Assembly,
        node: str,
        key: pulumi.Output[bytes],
        depends_on: Sequence[pulumi.Resource],
    ) -> Deployed:
        user = service_user(assembly.settings, "munge")
        bundle = key.apply(lambda value: munge_bundle(node, value, user))
        system = assembly.turns.unless_stopped(assembly.bundles(node, host_baseline.ROLE))
        needs = [*system, *depends_on]
        return deploy(assembly, node, bundle, ROLE, self, needs, secret=True)


def _sha256(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def read_credential(stdout: str, controller: str) -> str:
    """The controller's credential out of what the command printed."""
    credential = read_answer(stdout, _NAME, controller, _NAME).facts.get("credential", "")
    if not _FORM.fullmatch(credential):
        ask_again(_NAME)
        raise pulumi.RunError(
            f"{controller}: {_NAME}: what munge gave is no credential; see `munge -n` there, and "
            "run `pulumi up` again: it asks again"
        )
    return credential


def staged_bundle(node: str, key: bytes, credential: str | None, settings: Settings) -> Bundle:
    """The key beside the one that munged serves with, where a munged has taken it.

    Args:
        node: the host's name.
        key: the cluster's.
        credential: what the controller's munged has made with it, for every other host.
        settings: the stack's.
    """
    script = render("keys/munge-key-is-taken.sh", staged=STAGED, credential=credential)
    return Bundle(
        node,
        STAGED_ROLE,
        [
            *service_user(settings, "munge"),
            Package("munge"),
            File(STAGED, key, owner="munge:munge", mode="0400"),
            Validate("munge-key-is-taken", script, on=(STAGED,)),
        ],
    )


def munge_bundle(node: str, key: bytes, user: Sequence[Part] = ()) -> Bundle:
    """munged with this key on a node.

    Args:
        node: the host's name.
        key: the cluster's.
        user: the user munge, where the settings give it an id.
    """
    parts: list[Part] = [
        *user,
        Package("munge"),
        File(PATH, key, owner="munge:munge", mode="0400"),
        Unit("munge.service", restart_on=(PATH,)),
        Check("munge-round-trip", render("keys/munge-round-trip.sh"), timeout=20),
    ]
    return Bundle(node, ROLE, parts)
