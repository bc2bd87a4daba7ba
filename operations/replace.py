"""`slurmstack node replace`: the way back for a machine that was installed anew, or swapped.

All bundles of its hosts are applied once more. The wish is a word in the settings
(``slurmstack:reapply``), which makes another text of each of the host's bundles, so that it is
Pulumi that applies them. On a machine that holds all of it already the applier changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pulumi import automation

from components import history
from operations import drain
from operations.cluster import Cluster
from operations.host_keys import NewKey, new_keys, pin, reached
from operations.operation import operation, refuse_if_taken
from operations.pulumi_lock import refuse_if_locked
from operations.stack import outputs
from operations.stack_file import StackFile
from operations.up import up
from settings.hostlist import fold

#: What the reasons of its drains begin with.
MARK = "replace: "


def replace(
    cluster: Cluster,
    names: Sequence[str],
    reason: str,
    agreed: Callable[[Sequence[NewKey]], bool],
    yes: bool = False,
) -> list[str]:
    """Pin the keys that hosts show now, apply all of their bundles again, give them back to jobs.

    Args:
        cluster: whose.
        names: its hosts.
        reason: why, for the drain meanwhile.
        agreed: whether these keys are the machines': a person has compared them.
        yes: `pulumi up` asks nothing.

    Returns:
        What was done.

    Raises:
        Refused: nothing was changed.
        NotDone: `pulumi up` failed; the same call goes on from there.
    """
    what = f"node replace {fold(names)}"
    refuse_if_taken(cluster.place, what)
    refuse_if_locked(cluster.stack, cluster.project)
    changed = new_keys(reached(names, cluster.settings, cluster.project))
    if changed and not agreed(changed):
        return []
    file, listed = cluster.file(), fold(names)
    finish = f"slurmstack node replace {listed} --stack {cluster.stack}"
    with operation(cluster.place, what, finish) as running:
        pin(changed, cluster.settings, cluster.project)
        for key in changed:
            running.did(f"pinned the key that {key.host.name} shows")
        compute = [name for name in names if name in cluster.settings.compute]
        if compute:
            running.did(f"new jobs are kept from {fold(compute)} meanwhile")
            drain.drain(cluster, compute, f"{MARK}{reason}")
        running.did("settings: slurmstack:reapply")
        wish(names, file)
        up(cluster, yes, targets(names, cluster))
        running.did(f"applied all of {listed} again")
        if compute:
            for deed in drain.give_back(cluster, compute, MARK):
                running.did(deed)
        return running.stands


def wish(names: Iterable[str], file: StackFile) -> None:
    """Write into the stack's file that these hosts, or roles (role@host), are to be applied
    again."""
    for name in names:
        file.set(history.now(), "reapply", name)
    file.save()


def targets(names: Sequence[str], cluster: Cluster) -> list[str]:
    """The URNs of all that is deployed on these hosts, by the inventory's roles."""
    inventory = outputs(cluster.stack, cluster.project).get("inventory", {})
    workspace = automation.LocalWorkspace(work_dir=str(cluster.project))
    exported = workspace.export_stack(cluster.stack)
    bundles = {
        f"{name}-{role}" for name in names for role in inventory.get(name, {}).get("roles", ())
    }
    return [
        resource["urn"]
        for resource in (exported.deployment or {}).get("resources", [])
        if resource["type"] == "command:remote:Command"
        and resource["urn"].rpartition("::")[2] in bundles
    ]
