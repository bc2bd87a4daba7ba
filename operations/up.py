"""The plan and `pulumi up` as the verbs call them, on the operator's terminal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from rich.console import Console

from operations.cluster import Cluster
from operations.plan import make
from operations.plan_text import text
from operations.refused import Refused


class NotDone(Refused):
    """`pulumi up` failed or was declined; the same verb goes on from there. Exit code 4."""


def show_plan(cluster: Cluster) -> None:
    """What `up` would do, in nodes and daemons, as `slurmstack plan` tells it.

    Raises:
        NoPreview: it cannot be planned.
    """
    # What programs read is on stdout, and it is the verb's.
    Console(stderr=True).print(text(make(cluster.stack, cluster.project).plan))


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
    place = ("--stack", cluster.stack, "--cwd", str(cluster.project))
    command = ["pulumi", "up", *place, "--suppress-outputs", *words]
    sys.stdout.flush()
    code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if code != 0:
        raise NotDone(f"pulumi up ended with {code}: see above")
