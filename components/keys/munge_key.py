"""MungeKey: one key for the whole cluster, and the proof that every node accepts it."""

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
from remote.bundle import Bundle, Check, File, Package, Part, Unit
from remote.framing import BEGIN, END
from settings.model import MungeKeySetting
from templates.rendering import render

ROLE = "munge-key"
_NAME = "munge-credential"
PATH = "/etc/munge/munge.key"
#: munged(8): keys have up to 1,024 bytes.
_BYTES = 1024
#: Run by the login shell of the user, whichever it is; answers as the applier does.
_CREDENTIAL = (
    'c=$(timeout 20 munge --no-input) || { code=$?; echo "slurmstack: $(uname -n): '
    "munge-credential: munged gave none (munge's exit code $code; 124: no answer in 20 s); see "
    'journalctl -u munge.service there, correct the cause and run again" >&2; exit 1; }\n'
    f'echo "\n{BEGIN}\nnode $(uname -n)\nrole munge-credential\nfact credential $c\n{END}"'
)
#: munge(1): what munged gives; nothing in it is special to a shell.
_FORM = re.compile(r"MUNGE:[A-Za-z0-9+/=]+:")


class MungeKey(pulumi.ComponentResource):
    """The munge key of a cluster, on each of its hosts.

    The key is made by pulumi-random's RandomPassword (1,024 characters), or is an existing one
    from the stack's secret ``slurmstack:mungeKey``. It reaches the controller first; a credential
    made there must be decoded on every other host before that host counts as having the key, so a
    daemon that waits for this role never starts with another key.
    """

    #: SHA-256 of the key, as the controller read it back.
    sha256: pulumi.Output[str]

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:MungeKey", name, None, assembly.options)
        hosts, controller = assembly.hosts, assembly.controller
        key = self._key(name, assembly.settings.munge_key)
        first = self._place(assembly, controller, key, None, [])
        self.sha256 = first.answer.apply(lambda answer: answer.files[PATH].sha256)
        credential = command.Command(
            _NAME,
            connection=connection(hosts[controller]),
            create=_CREDENTIAL,
            update=counted(_NAME, _CREDENTIAL),
            # A new key needs a new credential; nothing else does.
            triggers=[recovered(self.sha256, "")],
            logging=command.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[first.resource], additional_secret_outputs=["stdout"]
            ),
        )
        given = credential.stdout.apply(lambda text: read_credential(text, controller))
        made = dependency(credential, self)
        for node in hosts:
            if node != controller:
                self._place(assembly, node, key, given, [made])
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
            f"bytes, sha256 {hashlib.sha256(value).hexdigest()}",
            self,
        )
        return pulumi.Output.secret(value)

    def _place(
        self,
        assembly: Assembly,
        node: str,
        key: pulumi.Output[bytes],
        credential: pulumi.Output[str] | None,
        depends_on: list[pulumi.Input[pulumi.Resource]],
    ) -> Deployed:
        user = service_user(assembly.settings, "munge")
        bundle = pulumi.Output.all(key=key, credential=credential).apply(
            lambda values: munge_bundle(node, values["key"], values["credential"], user)
        )
        system = assembly.turns.unless_stopped(assembly.bundles(node, host_baseline.ROLE))
        needs = [*system, *depends_on]
        return deploy(assembly, node, bundle, ROLE, self, needs, secret=True)


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


def munge_bundle(
    node: str, key: bytes, credential: str | None, user: Sequence[Part] = ()
) -> Bundle:
    """munged with this key on a node, and proof that it decodes the controller's credential.

    Args:
        node: the host's name.
        key: the cluster's.
        credential: the controller's, for every other host.
        user: the user munge, where the settings give it an id.
    """
    parts: list[Part] = [
        *user,
        Package("munge"),
        File(PATH, key, owner="munge:munge", mode="0400"),
        Unit("munge.service", restart_on=(PATH,)),
        Check("munge-round-trip", render("keys/munge-round-trip.sh"), timeout=20),
    ]
    if credential is not None:
        decode = render("keys/munge-decodes-controller.sh", credential=credential)
        parts.append(Check("munge-decodes-controller", decode, timeout=20))
    return Bundle(node, ROLE, parts)
