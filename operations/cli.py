"""The ``slurmstack`` command: what an operator asks and does after day one.

A verb is a module of ``operations/commands`` that has its name, and in it a ``typer.Typer`` named
``commands``: with a callback it is a group of verbs, else it holds the command of that name. Only
the verb that is called is loaded, so that none waits for what another one needs.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from operations import commands


class _Modules(Mapping[str, Any]):
    """Verb → its command, loaded when it is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(module.name for module in pkgutil.iter_modules(commands.__path__)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        app = importlib.import_module(f"{commands.__name__}.{name}").commands
        group = typer.main.get_group(app)
        group.name = name
        return group if app.registered_callback else group.commands[name]


class _Verbs(TyperGroup):
    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.commands = _Modules()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        """The names alone: Typer's own way loads each verb."""
        return list(self.commands)


main = typer.Typer(cls=_Verbs, no_args_is_help=True, help="Operate a cluster of slurmstack.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"slurmstack {version('slurmstack')}")
        raise typer.Exit


@main.callback()
def _root(
    _shown: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Operate a cluster deployed by slurmstack."""
