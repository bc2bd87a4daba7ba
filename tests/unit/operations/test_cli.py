"""The verbs of `slurmstack`."""

import re
from pathlib import Path

import typer

from operations.cli import main

PROJECT = Path(__file__).parents[3]


def test_every_verb_that_the_docs_show_is_there() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    # In a block of commands or in backticks; elsewhere it is the product's name.
    shown = set(re.findall(r"(?:^ *|`)slurmstack ([a-z]+)\b", text, re.MULTILINE))
    assert shown == set(typer.main.get_command(main).commands)  # type: ignore[attr-defined]
