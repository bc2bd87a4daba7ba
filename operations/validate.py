"""`slurmstack validate`: nodes proven by Slurm jobs of their own, on a reservation of their own.

The reservation takes idle nodes only, so that nobody's job is touched or waits for it longer than a
validation takes. It goes with the command however that ends (``operations.held_nodes``).
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from components import history
from components.health import node_acceptance
from components.keys.jwt_key_pair import TOKEN
from components.rest import slurmrestd
from operations import node_power
from operations.cluster import Cluster
from operations.held_nodes import held, left_behind
from operations.on_node_program import program
from operations.refused import Refused
from operations.validations import (
    LEVELS,
    Level,
    Validation,
    Word,
    keep,
    last,
    outliers,
    paired,
    pairs,
    rounds,
    slower,
    words,
)
from settings.acceptance import Acceptance
from settings.hostlist import expand, fold
from templates.rendering import render

#: Minutes that a reservation stands at most.
_MINUTES: Mapping[Level, int] = {"quick": 10, "full": 60, "burnin": 360}
#: Rounds of pairs: what tells a sick node from one that met a sick one.
_ROUNDS = 3
#: Free on nodes: of all-reduces, and ten further on of pairs.
_PORT = 27431
_MODULES = tuple(
    f"acceptance.{name}"
    for name in ("figures", "versions", "alone", "pairs", "reduced", "__main__")
)


def validate(
    cluster: Cluster,
    names: Sequence[str],
    level: Level,
    patience: float,
    say: Callable[[str], None],
    new_baseline: bool = False,
) -> Validation:
    """Run the tests of a level on nodes.

    Args:
        cluster: whose.
        names: compute nodes.
        level: what is tested.
        patience: seconds that nodes may take to become idle.
        say: told of each step.
        new_baseline: what the nodes showed before counts no longer.

    Raises:
        Refused: nodes are not idle in time, or somebody validates; nothing was run.
    """
    acceptance = cluster.settings.acceptance or Acceptance()
    if left_behind(cluster, say):
        patience = max(patience, 60)
    for node in node_power.switched_off(cluster.place):
        say(f"{node}: a run that was killed had powered it off; switching it on")
        patience = max(patience, 60)
    if not node_power.switch_on(cluster, acceptance.power):
        raise Refused("nodes that a run before had powered off have not come back")
    homeless = [node for node in names if _partition(cluster, [node]) is None]
    if homeless:
        raise Refused(f"{fold(homeless)}: in no partition, so no job can run there")
    _await_idle(cluster, names, patience, say)
    found = Validation(history.now(), history.operator(), level, list(names))
    found.new_baseline = new_baseline
    with held(cluster, names, _MINUTES[level]) as reservation:
        script = _script(cluster, names, level, reservation, acceptance, new_baseline)
        told = cluster.ask(script, "validate", _MINUTES[level] * 60 + 60.0)
        found.words = [*words(told)]
        if level == "burnin":
            found.words.append(_power(cluster, names[-1], reservation, acceptance))
    found.words += paired(pairs(told), names, acceptance.tolerance)
    found.versions = dict(re.findall(r"^version (\S+) (.+)$", told, re.MULTILINE))
    of_nodes: dict[str, dict[str, str]] = defaultdict(dict)
    for line in re.findall(r"^version ([^ |]+\|.+)$", told, re.MULTILINE):
        node, name, text = line.split("|", 2)
        of_nodes[node][name] = text
    found.versions = {it: text for it, text in found.versions.items() if "|" not in it}
    found.of_nodes = dict(of_nodes)
    before = last(cluster.place)
    classes = {name: it.name or it.hosts for name, it in cluster.settings.compute.items()}
    found.words += slower(found, before, acceptance.tolerance)
    found.words += outliers(found, before, classes, acceptance.tolerance)
    keep(cluster.place, found)
    result = f"{len(found.failed)} failed" if found.failed else "all passed"
    history.note(cluster.place, f"validate {fold(list(names))} --level {level}", result, [])
    return found


def _script(
    cluster: Cluster,
    names: Sequence[str],
    level: Level,
    reservation: str,
    acceptance: Acceptance,
    new_baseline: bool,
) -> str:
    settings = cluster.settings
    measured = settings.model_copy(update={"acceptance": acceptance})
    confinement = settings.confinement
    return render(
        "operations/validate.sh",
        reservation=reservation,
        partitions={node: _partition(cluster, [node]) for node in names},
        together=_partition(cluster, names),
        nodes=list(names),
        hostlist=fold(list(names)),
        level=LEVELS.index(level),
        minutes=_MINUTES[level],
        jwt=settings.jwt is not None,
        rest=_rest(cluster),
        accounting=settings.accounting is not None,
        container=settings.job_container is not None,
        containers=settings.enroot_pyxis is not None,
        image=acceptance.image,
        nccl=acceptance.nccl_all_reduce,
        stress=acceptance.stress,
        cgroup=confinement if "cgroup" in settings.slurm.ProctrackType else None,
        gres=_gres(cluster, names),
        addresses={node: settings.hosts[node].address for node in names},
        rounds=rounds(names, _ROUNDS) if len(names) > 1 else [],
        port=_PORT,
        program=program(*_MODULES) if level != "quick" else "",
        verb="fresh" if new_baseline else "node",
        configs={
            node: shlex.quote(json.dumps(node_acceptance.config(node, measured))) for node in names
        },
    )


def _rest(cluster: Cluster) -> dict[str, str] | None:
    """How a job is submitted by the REST API on the controller; None where it has none."""
    rest = cluster.settings.rest
    if rest is None or cluster.settings.jwt is None:
        return None
    own = slurmrestd.certificate(cluster.settings).ca if rest.certificate is None else None
    return {
        "url": slurmrestd.url(cluster.settings),
        "verify": f"--cacert {own}" if own else "--insecure",
        "token": TOKEN,
        "user": slurmrestd.USER,
    }


def _power(cluster: Cluster, node: str, reservation: str, acceptance: Acceptance) -> Word:
    if acceptance.power is None:
        text = "no way to switch a node off: slurmstack:acceptance.power"
        return Word(node_power.TEST, "", "not here", text)
    partition = _partition(cluster, [node]) or ""
    return node_power.lost_and_back(cluster, acceptance.power, node, reservation, partition)


def _partition(cluster: Cluster, names: Sequence[str]) -> str | None:
    """One that has all these nodes, the default one if it can be."""
    partitions = sorted(cluster.settings.partitions.items(), key=lambda it: not it[1].Default)
    for title, partition in partitions:
        if partition.Nodes == "ALL" or {*names} <= {*expand(partition.Nodes)}:
            return title
    return None


def _gres(cluster: Cluster, names: Sequence[str]) -> dict[str, tuple[str, int, bool]]:
    """Node → the GRES to ask for, how many it has, and whether files stand for them, where the
    settings declare GPUs."""
    found = {}
    for name in names:
        for gres in cluster.settings.compute[name].Gres or ():
            if gres.Name == "gpu" and gres.count:
                found[name] = (gres.kind, gres.count, gres.standIn)
    return found


def _await_idle(
    cluster: Cluster, names: Sequence[str], patience: float, say: Callable[[str], None]
) -> None:
    end = time.monotonic() + patience
    told = False
    while True:
        states = cluster.states(list(names))
        busy = [name for name in names if name not in states or states[name].flags != {"IDLE"}]
        if not busy:
            return
        if time.monotonic() >= end:
            flags = {name: states[name].flags for name in busy if name in states}
            shown = "; ".join(
                f"{name}: {'+'.join(sorted(flags.get(name, {'not known'}))).lower()}"
                for name in busy
            )
            raise Refused(
                f"{shown}: only idle nodes are validated, nothing was run; --wait 2h waits"
            )
        if not told:
            say(f"waiting for {fold(busy)} to be idle")
            told = True
        time.sleep(2)
