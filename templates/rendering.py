"""Templates to text: what lands on nodes, by pure functions of what the settings say."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, **values: Any) -> str:
    """The text of ``templates/TEMPLATE.j2``.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    return _environment().get_template(f"{template}.j2").render(**values)
