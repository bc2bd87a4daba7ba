"""`pulumi preview` and `pulumi up` as the verbs call them, on the operator's terminal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from operations.cluster import Cluster
from operations.refused import Refused


class NotDone(Refused):
    """`pulumi up` failed or was declined; the same verb goes on from there. Exit code 4."""


def preview(cluster: Cluster) -> None:
    """What `up` would do.

    Raises:
        Refused: it cannot be planned.
    """
    if _pulumi(cluster, "preview") != 0:
        raise Refused("pulumi preview failed: see above")


def up(cluster: Cluster, yes: bool, urns: Iterable[str] = ()) -> None:
    """Do it, asking before as Pulumi does.

    Args:
        cluster: whose stack.
        yes: ask nothing.
        urns: the resources that it is about; by default all.

    Raises:
        NotDone: it failed, or the operator said no.
    """
    words = [word for urn in urns for word in ("--target", urn)]
    words += ["--yes", "--skip-preview"] if yes else []
    code = _pulumi(cluster, "up", *words)
    if code != 0:
        raise NotDone(f"pulumi up ended with {code}: see above")


def _pulumi(cluster: Cluster, verb: str, *words: str) -> int:
    # What programs read is on stdout, and it is the verb's.
    place = ("--stack", cluster.stack, "--cwd", str(cluster.project))
    command = ["pulumi", verb, *place, "--suppress-outputs", *words]
    sys.stdout.flush()
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode
