"""Decisions are found: each is in the index by its title, under its own number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_decision_is_in_the_index(page: Path) -> None:
    heading = page.read_text().partition("\n")[0]
    number, title = re.fullmatch(r"# (\d+)\. (.+)", heading).groups()  # type: ignore[union-attr]
    assert page.name.startswith(f"{int(number):04}-")
    assert f"\n- [{number}. {title}]({page.name})\n" in (FOLDER / "README.md").read_text()
