"""`slurmstack job check`: what is wrong with a job file, in the words of the submit folder."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path

from components.kubernetes.job_files import COMMAND
from on_node.kubernetes.job_file import MAX_SIZE
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError


def check(cluster: Cluster, file: Path, user: str) -> list[str]:
    """What is wrong with a file, a line each; the controller looks, by its own rules.

    Args:
        cluster: whose.
        file: here.
        user: whose job it is to be, as the controller knows them.

    Raises:
        Refused: the file cannot be read, there is no bridge, or it cannot be told now.
        ContactError: the controller cannot be asked.
    """
    if cluster.settings.kubernetes_bridge is None:
        raise Refused(
            f"stack {cluster.stack} has no submit folder: set slurmstack:kubernetesBridge and run "
            "pulumi up"
        )
    try:
        content = file.read_bytes()[: MAX_SIZE + 1]
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from None
    text = base64.b64encode(content).decode()
    script = f"base64 -d <<'END' | {COMMAND} check - {shlex.quote(user)}\n{text}\nEND\n"
    reply = cluster.run([cluster.controller], script, 60)[cluster.controller]
    if isinstance(reply, ContactError):
        raise reply
    told = [line.removeprefix("slurmstack-job: -: ") for line in reply.stderr.splitlines()]
    if reply.status not in (0, 1):
        raise Refused(f"{cluster.controller}: {told[-1] if told else f'exit {reply.status}'}")
    return told if reply.status else []
