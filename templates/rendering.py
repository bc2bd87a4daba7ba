"""Templates to text: what lands on nodes, by pure functions of what the settings say."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

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


class _Compiled(FileSystemBytecodeCache):
    """Templates as they were compiled before: a tenth of the processor time of a preview. What
    cannot be kept is compiled again."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


def _compiled(folder: Path) -> _Compiled | None:
    """Beside Python's own, and only where that is wanted. A folder for each state of this file and
    each Jinja: constants are computed when a template is compiled, by the filters of then."""
    made_by = Path(__file__).read_bytes() + jinja2.__version__.encode()
    place = folder / "__pycache__" / f"jinja-{hashlib.sha256(made_by).hexdigest()[:12]}"
    if sys.dont_write_bytecode:
        return None
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return _Compiled(str(place))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        bytecode_cache=_compiled(FOLDER),
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
