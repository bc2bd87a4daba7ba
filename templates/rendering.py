"""Templates to text: what lands on nodes, by pure functions of what the settings say."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
#: Pulumi shows a line of a changed file up to its 150th character.
_LINE = 120


def continued(value: str) -> str:
    """A value of slurm.conf that is longer than a line, broken at its commas.

    Slurm takes off the backslash and goes on with the next line, blanks at its beginning included.
    """
    lines = [""]
    for part in re.split(r"(?<=,)(?![^\[]*\])", value):
        if lines[-1] and len(lines[-1]) + len(part) > _LINE:
            lines.append("")
        lines[-1] += part
    return "\\\n".join(lines)


def lua(value: object) -> str:
    """A string of Lua, which module files are written in: bytes above ASCII stand as they are, and
    what would end or change the string is escaped (JSON's ``\\u0026`` is none of Lua's)."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    return '"{}"'.format(
        "".join(
            escapes.get(letter) or (f"\\{ord(letter):03d}" if ord(letter) < 32 else letter)
            for letter in str(value)
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["continued"] = continued
    environment.filters["lua"] = lua
    return environment


def program(path: str) -> str:
    """A program that lands on nodes as it stands in ``templates/``."""
    return (FOLDER / path).read_text(encoding="utf-8")


def render(template: str, **values: Any) -> str:
    """The text of ``templates/TEMPLATE.j2``.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    return _environment().get_template(f"{template}.j2").render(**values)
