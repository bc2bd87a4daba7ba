"""docs/effects.md: what each change needs, printed from what the applier and the plan obey.

``python -m tests.unit.test_effects_page`` writes it anew.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from remote.bundle import Command, Unit, Withdrawal
from remote.reading import is_bundle, read
from settings.parameters import Needs, files, needs_of, table
from tests.unit.components.test_bundles import settings
from tests.unit.components.test_cluster import commands, deployed, plain

PAGE = Path(__file__).parents[2] / "docs" / "effects.md"
HEAD = """\
# What a change needs

Printed from `settings/parameters.toml` and from the bundles of all components, which the applier
and [`slurmstack plan`](plan.md) obey; a test holds the page against them. Write it anew with
`python -m tests.unit.test_effects_page`.

`nothing`: no daemon is touched. `reconfigure`: `scontrol reconfigure`, which starts the daemons
anew and falls back to the running ones. `restart`: of the daemons named; jobs keep running.
`drain`: no job may be there that it would end, on the node in whose line it stands, else on any;
such nodes are [drained first](rollouts.md#drained-first), or with `drain: never` the change is
refused while one is. `stop`: everything stopped, and what daemons keep moved or
made anew.
"""
UNITS = """
## Daemons and other units

As the components have them with everything switched on. A unit that does not run, and is to, is
started; one that leaves its bundle is stopped. A reload of slurmctld is `scontrol reconfigure`,
which reaches slurmd and sackd, too. What stands here without a path is a parameter, or a file that
slurmctld serves.

| unit | role | restarted when these change | reloaded by | nodes [drained](rollouts.md) for |
|---|---|---|---|---|"""
COMMANDS = """
## Commands

They run when their own text changes, too.

| command | role | runs when these change | restarts | reloads |
|---|---|---|---|---|"""


def bundles() -> list[str]:
    made, _ = deployed(**settings())
    texts = (plain(inputs.get("stdin", "")) for inputs in commands(made).values())
    return sorted(text for text in texts if is_bundle(text))


def of_files() -> Iterator[str]:
    yield "## Files of Slurm\n\n| file | a change needs | restarted with it |\n|---|---|---|"
    for file in files():
        needs, restart = needs_of(file, "")
        yield f"| `{file}` | {needs} | {', '.join(restart)} |"
    yield "\nParameters that need something else than the rest of their file:\n"
    yield "| file | parameter | a change needs | restarted with it |\n|---|---|---|---|"
    for file in files():
        alike: dict[tuple[Needs, tuple[str, ...]], list[str]] = defaultdict(list)
        for it in table(file).values():
            if it.until is None and (it.needs, it.restart) != needs_of(file, ""):
                alike[it.needs, it.restart].append(f"`{it.name}`")
            for way, then in (("lowered", it.lowered), ("raised", it.raised)):
                if then is not None:
                    alike[then, it.restart].append(f"`{it.name}` {way}")
        for (needs, restart), those in sorted(alike.items(), key=lambda item: str(item[0])):
            yield f"| `{file}` | {', '.join(those)} | {needs} | {', '.join(restart)} |"


def of_parts() -> Iterator[str]:
    """Each unit once for each way in which nodes have it."""
    units: set[tuple[str, ...]] = set()
    runs: set[tuple[str, ...]] = set()
    for text in bundles():
        bundle = read(text)
        for part in bundle.parts:
            if isinstance(part, Unit):
                keys = {key.partition("=")[0] for key in part.restart_keys}
                drains = {key.partition("=")[0] for key in part.drain_keys}
                lists: tuple[Sequence[str], ...] = (
                    [*part.restart_on, *sorted(keys)],
                    part.reload_on,
                    [*part.drain_on, *sorted(drains)],
                )
                units.add((part.name, bundle.role, *(_list(names) for names in lists)))
            elif isinstance(part, Withdrawal) and part.unit is not None:
                units.add((part.unit, bundle.role, "", "", _list(part.on)))
            elif isinstance(part, Command) and part.when == "apply":
                runs.add((part.name, bundle.role, _list(part.on), _list(part.restarts),
                          _list(part.reloads)))  # fmt: skip
    yield UNITS
    yield from (f"| {' | '.join((f'`{name}`', *rest))} |" for name, *rest in sorted(units))
    yield COMMANDS
    yield from (f"| {' | '.join((f'`{name}`', *rest))} |" for name, *rest in sorted(runs))


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def page() -> str:
    return "\n".join([HEAD, *of_files(), *of_parts()]) + "\n"


def test_the_page_is_of_what_is_obeyed() -> None:
    assert PAGE.read_text() == page(), "python -m tests.unit.test_effects_page writes it anew"


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    PAGE.write_text(page())
