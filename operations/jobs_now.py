"""What the controller says of jobs, asked for a plan: read only, and bounded in time."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable
from dataclasses import replace

from operations.planned import Plan
from remote.bundle import Bundle, Guard
from remote.contact import ContactError, Reply, run_on_hosts, wait_for
from remote.host import Host

#: Seconds for all that is asked.
_SECONDS = 30.0
#: Guards of the bundles that look and change nothing, whatever they find.
_LOOK_ONLY = ("state-stays", "jobs-stay")
_FIELDS = ("id", "user", "state", "nodes", "partition")
_STATES = "RUNNING,SUSPENDED,COMPLETING,CONFIGURING,STOPPED,SIGNALING,STAGE_OUT"


def asked(plan: Plan, controller: Host, bundles: Iterable[Bundle]) -> Plan:
    """The plan with the jobs that are there now, and with what guards would refuse now.

    Args:
        plan: what would be done.
        controller: where Slurm is asked.
        bundles: what the controller is to get, as far as it changes; no secret ones.
    """
    touched = {node for it in plan.daemons for node in it.nodes}
    drained = {node for nodes in plan.drained for node in nodes}
    script = _squeue(sorted({*plan.reconfigured, *touched, *drained})) + "".join(_guards(bundles))
    if not script:
        return replace(plan, jobs=())
    reply = wait_for(run_on_hosts([controller], script, seconds=_SECONDS))[controller.name]
    if isinstance(reply, ContactError):
        return replace(plan, unasked=str(reply))
    return _read(plan, reply)


def _squeue(nodes: list[str]) -> str:
    """Lines ``job ID USER STATE NODES PARTITION``; all jobs that have one of the nodes."""
    if not nodes:
        return ""
    form = "job|" + "|".join(("%i", "%u", "%T", "%N", "%P"))
    # Names that slurmctld does not know yet would make squeue refuse the whole list.
    return f"""known=$(timeout 10 sinfo -N -h -o %N 2>/dev/null | sort -u)
wanted=$(for name in {shlex.join(nodes)}; do
  echo "$known" | grep -qxF -e "$name" && echo "$name"
done)
[ -z "$wanted" ] || timeout 10 squeue --all -h -t {_STATES} \\
    -w "$(echo "$wanted" | paste -sd,)" -o {shlex.quote(form)} || echo "unasked squeue failed"
"""


def _guards(bundles: Iterable[Bundle]) -> Iterable[str]:
    """Each guard that only looks, run as the applier runs it; its last line where it refuses."""
    for bundle in bundles:
        guards = [
            part for part in bundle.parts if isinstance(part, Guard) and part.name in _LOOK_ONLY
        ]
        if not guards:
            continue
        text = base64.b64encode(bundle.render().encode()).decode()
        yield f"folder=$(mktemp -d) && base64 -d >$folder/bundle <<'END'\n{text}\nEND\n"
        for guard in guards:
            script = base64.b64encode(guard.script.encode()).decode()
            yield (
                f"said=$(echo {script} | base64 -d | SLURMSTACK_BUNDLE=$folder/bundle "
                f"SLURMSTACK_NODE={bundle.node} SLURMSTACK_ROLE={bundle.role} timeout "
                f'{min(guard.timeout, 20)} sh 2>&1) || echo "refused $(echo "$said" | tail -n 1)"\n'
            )
        yield "rm -rf $folder\n"


def _read(plan: Plan, reply: Reply) -> Plan:
    jobs, refused, unasked = [], [], None
    for line in reply.stdout.splitlines():
        kind, _, rest = line.partition(" ")
        if line.startswith("job|"):
            jobs.append(dict(zip(_FIELDS, line.removeprefix("job|").split("|"), strict=False)))
        elif kind == "refused":
            refused.append(rest)
        elif kind == "unasked":
            unasked = rest
    return replace(plan, jobs=tuple(jobs), refused=tuple(refused), unasked=unasked)
