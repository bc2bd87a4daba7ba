"""How a plan comes about: from what the engine would do to what happens to nodes and daemons.

It is told from what the applier obeys (``remote.effects``) and from the table of Slurm's
parameters (``settings/parameters.toml``); this module only puts the two together and into words.
Pure functions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.accounting.slurmdbd import OBJECTS
from components.guards.guards import HAVE_A_GUARD
from components.guards.upgrades import DUMPED
from operations import slurm_files
from operations.planned import KINDS, SLURMCTLD, Change, Daemon, Plan
from operations.preview import State, Step
from remote.bundle import File, Package, Unit
from remote.effects import Deed, Effects, PackageChange, PathChange, ToUnit, effects, unknown
from settings.parameters import Needs, release_of

#: Those who take the cluster's configuration anew when slurmctld does.
_SERVED = ("slurmd.service", "sackd.service")
_KEEP = "jobs keep running"
#: Enough of a SHA-256 to tell two apart by eye.
_SHORT = 12


def plan(
    stack: str, steps: Sequence[Step], before: State, only: Collection[str] | None = None
) -> Plan:
    """The plan of some steps.

    Args:
        stack: its name.
        steps: what the engine would do.
        before: what stands in its state.
        only: nodes to which the plan is confined; None for all.
    """
    nodes = _Nodes(steps, before)
    chosen = [step for step in steps if only is None or nodes.of(step) in only]
    told = {step.name: nodes.effects(step) for step in chosen}
    units = _by_unit(chosen, told, nodes)
    changes = [
        change for step in chosen for change in _changes(step, told[step.name], units, nodes)
    ]
    targets: dict[str, tuple[str, ...]] = {}
    for step in chosen:
        node = nodes.of(step)
        targets[node] = (*targets.get(node, ()), step.urn)
    ordered = {node: targets[node] for node in sorted(targets)}
    reconfigured = _reconfigured(told.values(), units, nodes)
    return Plan(
        stack,
        _grouped(changes),
        _daemons(units),
        reconfigured,
        _drained(chosen, told, nodes),
        tuple(sorted({nodes.of(step) for step in chosen if told[step.name].reboots})),
        ordered,
        any=bool(chosen),
    )


class _Nodes:
    """Which node each step is of, what it holds, and what it is to hold."""

    def __init__(self, steps: Sequence[Step], before: State) -> None:
        self._before = before
        self._hosts = {bundle.node for bundle in before.bundles.values()}
        self._hosts |= {step.new.node for step in steps if step.new is not None}
        #: Node → its roles' bundles, as they are to be.
        self.bundles = dict(before.bundles)
        for step in steps:
            if step.op.startswith("delete"):
                self.bundles.pop(step.name, None)
            elif step.new is not None:
                self.bundles[step.name] = step.new
        self.old = {bundle.node for bundle in before.bundles.values()}
        self.new = {bundle.node for bundle in self.bundles.values()}
        self.new |= {
            self.of(step) for step in steps if not step.known and not step.op.startswith("delete")
        }

    def of(self, step: Step) -> str:
        """The node of a step: of its bundle, else the one whose name its own name begins with."""
        bundle = step.new or step.old
        if bundle is not None:
            return bundle.node
        fitting = [host for host in self._hosts if step.name.startswith(f"{host}-")]
        if fitting:
            return max(fitting, key=len)
        # The applier of a host of which nothing else is known, and what belongs to no host.
        return step.name.rpartition("-")[0] if step.name.endswith("-node") else ""

    def effects(self, step: Step) -> Effects:
        """What a step does, by the applier's rules."""
        if step.op.startswith("delete"):
            return effects(step.old, None, self._installed(step), self._held(step))
        if not step.known:
            return unknown(step.old)
        if step.new is None:
            return Effects()
        held, at_work = self._held(step), self._at_work(step)
        return effects(step.old, step.new, self._installed(step), held, at_work)

    def _at_work(self, step: Step) -> frozenset[str]:
        """Units that the node's other roles have applied."""
        node = self.of(step)
        return frozenset(
            part.name
            for name, bundle in self._before.bundles.items()
            if bundle.node == node and name != step.name
            for part in bundle.parts
            if isinstance(part, Unit)
        )

    def _installed(self, step: Step) -> Mapping[str, str]:
        answer = self._before.answers.get(step.name)
        return {} if answer is None else answer.packages

    def replaced(self, step: Step, units: Collection[str]) -> str | None:
        """The version of the package by which units ran so far, where one of another name comes:
        the packagings of Slurm take each other's place."""
        if step.old is None or step.new is None:
            return None
        now = {part.key for part in step.new.parts if isinstance(part, Package)}
        there = {part.key: part.version for part in step.old.parts if isinstance(part, Package)}
        for unit in step.old.parts:
            if isinstance(unit, Unit) and unit.name in units:
                for key in unit.restart_on:
                    if key in there and key not in now:
                        name = key.removeprefix("package:")
                        return self._installed(step).get(name) or there[key]
        return None

    def _held(self, step: Step) -> frozenset[str]:
        """What the node's other roles hold."""
        node = self.of(step)
        return frozenset(
            part.path if isinstance(part, File) else part.name
            for name, bundle in self.bundles.items()
            if bundle.node == node and name != step.name
            for part in bundle.parts
            if isinstance(part, File | Unit)
        )

    def running(self, *units: str) -> tuple[str, ...]:
        """The nodes that are to have one of these units running."""
        return tuple(
            sorted(
                {
                    bundle.node
                    for bundle in self.bundles.values()
                    for part in bundle.parts
                    if isinstance(part, Unit) and part.name in units and part.running
                }
            )
        )


#: (node, unit) → what is done to it.
_Units = dict[tuple[str, str], ToUnit]
_ORDER = list(Deed)


def _by_unit(steps: Iterable[Step], told: Mapping[str, Effects], nodes: _Nodes) -> _Units:
    """All roles of a node together: what is done to each of its units, the most of it."""
    units: _Units = {}
    for step in steps:
        for of_unit in told[step.name].units:
            key = (nodes.of(step), of_unit.unit)
            if key in units:
                one, other = sorted((units[key], of_unit), key=lambda it: _ORDER.index(it.deed))
                because = tuple(dict.fromkeys((*other.because, *one.because)))
                sure = other.sure or (one.sure and one.deed is other.deed)
                of_unit = ToUnit(of_unit.unit, other.deed, because, sure)
            units[key] = of_unit
    return units


def _daemons(units: _Units) -> tuple[Daemon, ...]:
    alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for (node, unit), it in units.items():
        alike[unit, it.deed, it.because, it.sure].append(node)
    found = [Daemon(tuple(sorted(nodes)), *key) for key, nodes in alike.items()]
    return tuple(sorted(found, key=lambda it: (it.unit, it.nodes)))


def _drained(
    steps: Iterable[Step], told: Mapping[str, Effects], nodes: _Nodes
) -> dict[tuple[str, ...], tuple[str, ...]]:
    because: dict[str, dict[str, None]] = defaultdict(dict)
    for step in steps:
        if any(it.unit == SLURMCTLD for it in told[step.name].units):
            # Of slurm.conf, what is not to change under jobs: of a node's line or of all nodes.
            for it in _under_no_job(step, told[step.name]):
                for node in (it.node,) if it.node else nodes.running("slurmd.service"):
                    because[node][f"{it.file} {it.name}"] = None
        else:
            because[nodes.of(step)] |= dict.fromkeys(told[step.name].withdrawn_for)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for node, words in because.items():
        if words:
            alike[tuple(words)].append(node)
    return {tuple(sorted(names)): words for words, names in alike.items()}


def _under_no_job(step: Step, told: Effects) -> Iterator[slurm_files.ParameterChange]:
    """What slurmctld's applier drains nodes for."""
    for path in told.paths:
        if path.path in told.withdrawn_for and slurm_files.known(path.path) and not step.secret:
            for it in slurm_files.changes(path.path, _text(path.old), _text(path.new)):
                if _not_under_jobs(it):
                    yield it


def _not_under_jobs(it: slurm_files.ParameterChange) -> bool:
    return it.needs in (Needs.DRAIN, Needs.STOP) and it.name not in HAVE_A_GUARD


def _reconfigured(told: Iterable[Effects], units: _Units, nodes: _Nodes) -> tuple[str, ...]:
    """The nodes to which slurmctld, taking its files anew, gives them, too."""
    if not any(
        (it.unit, it.deed) == (SLURMCTLD, Deed.RELOADED) for one in told for it in one.units
    ):
        return ()
    touched = {node for (node, unit) in units if unit in _SERVED}
    return tuple(node for node in nodes.running(*_SERVED) if node not in touched)


def _grouped(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The same change of several nodes as one."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for it in changes:
        key = (it.kind, it.what, it.old, it.new, it.needs, it.effect)
        alike.setdefault(key, []).extend(it.nodes)
    grouped = [Change(tuple(sorted({*nodes})), *key) for key, nodes in alike.items()]
    return tuple(sorted(grouped, key=lambda it: (KINDS.index(it.kind), it.what)))


def _changes(step: Step, told: Effects, units: _Units, nodes: _Nodes) -> Iterator[Change]:
    """What a step changes, thing by thing."""
    node = nodes.of(step)
    if node not in nodes.old or node not in nodes.new:
        yield _whole_node(node, step, units, nodes)
    elif step.op.startswith("delete"):
        yield _one(node, "role", f"role {step.name.removeprefix(f'{node}-')}", "removed", told)
    elif not step.known:
        role = step.name.removeprefix(f"{node}-")
        what = f"role {role}: known only once others are applied"
        yield _one(node, "key", what, None, told)
    elif step.old is None and step.new is not None:
        yield _one(node, "role", f"role {step.new.role}", "added", told)
    elif step.new is None or step.old is None:
        yield _of_applier(node, step)
    else:
        yield from _of_role(node, step, told, units, nodes)


def _whole_node(node: str, step: Step, units: _Units, nodes: _Nodes) -> Change:
    comes = node in nodes.new
    word = "added" if comes else "removed"
    deed = Deed.STARTED if comes else Deed.STOPPED
    names = [unit.removesuffix(".service") for (host, unit), it in units.items()
             if host == node and it.deed is deed]  # fmt: skip
    effect = f"{deed}: {', '.join(sorted(names))}" if names else "no daemon"
    return Change((node,), "node", "node", None, word, Needs.NOTHING, effect)


def _of_applier(node: str, step: Step) -> Change:
    """What is no bundle: the applier itself, or a question that the deployment asks."""
    what = "applier of the bundles" if step.name.endswith("-node") else step.name
    return Change((node,) if node else (), "other", what, None, None, Needs.NOTHING, "no daemon")


def _one(node: str, kind: str, what: str, new: str | None, told: Effects) -> Change:
    needs = Needs.RESTART if any(it.deed is not Deed.RELOADED for it in told.units) else (
        Needs.RECONFIGURE if told.units else Needs.NOTHING
    )  # fmt: skip
    return Change((node,), kind, what, None, new, needs, _deeds(told.units))


def _deeds(units: Iterable[ToUnit]) -> str:
    words = [Daemon((), it.unit, it.deed, it.because, it.sure).words for it in units]
    return ", ".join(dict.fromkeys(words)) or "no daemon"


def _of_role(
    node: str, step: Step, told: Effects, units: _Units, nodes: _Nodes
) -> Iterator[Change]:
    """What differs between two bundles of one role."""
    for package in told.packages:
        if package.new is not None:
            yield _package(node, package, step, told, nodes)
    for path in told.paths:
        if slurm_files.known(path.path) and not step.secret:
            yield from _parameters(node, path, units, nodes, path.path in told.withdrawn_for)
        elif path.path == OBJECTS:
            yield from _objects(node, path)
        else:
            yield _file(node, path, told)
    others = {it.unit for it in told.units if not it.because}
    for unit in (it for it in told.units if it.unit in others):
        yield _one(node, "unit", unit.unit, None, Effects(units=(unit,)))
    keys = [key for it in told.units for key in it.because if key.startswith("restart-key ")]
    if not (told.packages or told.paths or others or keys):
        yield _quiet(node, step, told)


def _quiet(node: str, step: Step, told: Effects) -> Change:
    """A role that is applied again without a change of anything that a daemon reads."""
    assert step.new is not None
    if told.commands:
        names = ", ".join(run.command.name for run in told.commands)
        return _one(node, "command", f"command {names}", None, told)
    if "connection" in step.inputs:
        what = f"role {step.new.role}: how the node is reached"
    elif told.others:
        what = f"role {step.new.role}: {', '.join(sorted({key.split()[0] for key in told.others}))}"
    else:
        what = f"role {step.new.role} applied again"
    return _one(node, "role", what, None, told)


def _package(node: str, package: PackageChange, step: Step, told: Effects, nodes: _Nodes) -> Change:
    name, new = package.name, package.new or ""
    restarted = [it for it in told.units if f"package:{name}" in it.because]
    old = package.old or nodes.replaced(step, [it.unit for it in restarted])
    effect = _deeds(restarted)
    needs = Needs.RESTART if restarted else Needs.NOTHING
    if old and any(it.unit == "slurmdbd.service" for it in restarted) and _releases(old, new):
        effect = f"{effect}, conversion of the database"
        if step.new is not None and any(it.key == f"guard {DUMPED}" for it in step.new.parts):
            effect = f"dump of the database, {effect}"
    return Change((node,), "package", name, old or None, new or "newest", needs, effect)


def _releases(old: str, new: str) -> bool:
    """Whether two versions are of different releases of Slurm."""
    try:
        return release_of(old) != release_of(new)
    except ValueError:
        return False


def _file(node: str, path: PathChange, told: Effects) -> Change:
    because = [it for it in told.units if path.path in it.because]
    because += [
        it
        for run in told.commands
        if path.path in run.because
        for it in told.units
        if run.command.key in it.because
    ]
    needs = Needs.NOTHING
    if because:
        restart = any(it.deed is Deed.RESTARTED for it in because)
        needs = Needs.RESTART if restart else Needs.RECONFIGURE
    runs = [run.command.name for run in told.commands if path.path in run.because]
    effect = _deeds(because)
    if runs and not because:
        effect = f"runs {', '.join(runs)}, no daemon"
    kind, new = "file", "changed" if path.old else "new"
    if path.new is None:
        new = "removed"
    elif isinstance(path.new, File) and (found := re.fullmatch(
        r"sha256:([0-9a-f]{64})\n", str(path.new.content)
    )):  # fmt: skip
        kind, new = "key", f"new content, sha256 {found[1][:_SHORT]}…"
    return Change((node,), kind, path.path, None, new, needs, effect)


def _parameters(
    node: str, path: PathChange, units: _Units, nodes: _Nodes, drains: bool
) -> Iterator[Change]:
    """Parameter by parameter, and what each needs by the table; of that, what will happen: nodes
    are drained where the bundle does that for this file, else it is refused while jobs run."""
    for change in slurm_files.changes(path.path, _text(path.old), _text(path.new)):
        reached = (change.node,) if change.node else nodes.running(SLURMCTLD, *_SERVED)
        restarted = [
            daemon
            for daemon in change.restart
            if any(
                unit == f"{daemon}.service" and it.deed is Deed.RESTARTED
                for (host, unit), it in units.items()
                if not change.node or host == change.node or daemon != "slurmd"
            )
        ]
        missed = [daemon for daemon in change.restart if daemon not in restarted
                  and nodes.running(f"{daemon}.service")]  # fmt: skip
        words = []
        if change.needs in (Needs.DRAIN, Needs.STOP):
            drains_for = drains and _not_under_jobs(change)
            words.append("drain first" if drains_for else "no job may be there")
        if restarted:
            words.append(f"restart of {', '.join(restarted)}")
        else:
            words.append("reconfigure")
        if missed:
            words.append(f"{', '.join(missed)} with the next restart")
        if change.needs in (Needs.NOTHING, Needs.RECONFIGURE, Needs.RESTART):
            words.append(_KEEP)
        yield Change(
            reached,
            "parameter",
            f"{change.file} {change.name}",
            change.old,
            change.new if change.new is not None else "not set",
            change.needs,
            ", ".join(words),
        )


def _text(part: object) -> str | None:
    if not isinstance(part, File):
        return None
    content = part.content
    return content if isinstance(content, str) else content.decode(errors="replace")


def _objects(node: str, path: PathChange) -> Iterator[Change]:
    """Accounts, users, QOS and associations that slurmdbd is to hold."""
    old, new = _declared(_text(path.old)), _declared(_text(path.new))
    for key in dict.fromkeys([*old, *new]):
        if key not in old or key not in new:
            word = "added" if key in new else "removed, where it was made here"
            yield _accounting(node, key, None, word)
            continue
        for option in dict.fromkeys([*old[key], *new[key]]):
            was, now = old[key].get(option), new[key].get(option)
            if was != now:
                yield _accounting(node, f"{key} {option}", was, now or "not set")


def _accounting(node: str, what: str, old: str | None, new: str) -> Change:
    effect = f"sacctmgr, no daemon, {_KEEP}"
    return Change((node,), "accounting", what, old, new, Needs.NOTHING, effect)


def _declared(text: str | None) -> dict[str, dict[str, str]]:
    """``kind key`` → option → value, as ``accounting/objects`` has them."""
    found: dict[str, dict[str, str]] = {}
    options: dict[str, str] = {}
    for line in (text or "").splitlines():
        if line.startswith("  "):
            name, _, value = line.strip().partition("=")
            options[name] = value
        elif line.strip() and not line.startswith("#"):
            options = found.setdefault(line.strip(), {})
    return found
