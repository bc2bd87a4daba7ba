"""A token for a user, issued where the key is: on the controller."""

from __future__ import annotations

import shlex
from pathlib import Path

from components.keys.jwt_key_pair import TOKEN
from discovery.host_keys import UnknownHostKey, hosts
from operations.refused import Refused
from operations.stack import settings
from remote.contact import ContactError, run_on_hosts, wait_for
from settings.duration import seconds, written

#: Seconds within which the controller must have signed.
_TIMEOUT = 30.0


class NoToken(Refused):
    """No token was issued, and why."""


def issue(
    stack: str | None,
    project: Path,
    user: str,
    lifetime: str | None = None,
    privileged: bool = False,
) -> str:
    """A token, as clients send it in X-SLURM-USER-TOKEN or SLURM_JWT.

    The controller holds the limit, too: its own script refuses what is longer, whoever asks.

    Args:
        stack: whose cluster; None for the selected one.
        project: the project's folder, or one below it.
        user: a user that the controller knows.
        lifetime: such as ``30m``; left out, the settings' default.
        privileged: issue it also for root and SlurmUser, whose tokens may act as any user.

    Raises:
        NoToken: the stack has no tokens, the lifetime is too long, or the controller refuses.
        NoSuchStack, SettingsError: the stack or its settings cannot be read.
    """
    cluster, project, stack = settings(stack, project)
    setting = cluster.jwt
    if setting is None:
        raise NoToken(f"stack {stack} has no tokens: set slurmstack:jwt and run pulumi up")
    try:
        wanted = setting.default_lifetime if lifetime is None else seconds(lifetime)
    except ValueError as error:
        raise NoToken(f"--lifetime: expected {error}; found {lifetime}") from None
    if not 0 < wanted <= setting.max_lifetime:
        raise NoToken(
            f"--lifetime: expected at most {written(setting.max_lifetime)} (maxLifetime of "
            f"slurmstack:jwt) and at least 1s; found {lifetime}"
        )
    head = cluster.roles.controller
    try:
        host = hosts(cluster, project)[head]
    except UnknownHostKey as error:
        raise NoToken(str(error)) from error
    words = [TOKEN, user, str(wanted), *(["privileged"] if privileged else [])]
    # The words travel on the shell's stdin; the token comes back on stdout and goes nowhere else.
    script = f"""[ -x {TOKEN} ] || {{
  echo "slurmstack: {head}: token: {TOKEN} is missing; run pulumi up" >&2
  exit 1
}}
exec {shlex.join(words)}
"""
    reply = wait_for(run_on_hosts([host], script, seconds=_TIMEOUT))[head]
    if isinstance(reply, ContactError):
        raise NoToken(str(reply))
    if reply.status != 0:
        lines = reply.stderr.strip().splitlines() or [f"{head}: token: exit {reply.status}"]
        raise NoToken(lines[-1].removeprefix("slurmstack: "))
    return reply.stdout.strip()
