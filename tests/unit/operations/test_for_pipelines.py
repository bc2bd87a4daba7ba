"""The functions that docs/pipeline.md names are there as it names them, typed and described."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "pipeline.md").read_text()
NAMED = re.findall(r"^\| `operations\.(\w+)\.([\w.]+)\((.*?)\)`", PAGE, re.M)


def test_the_page_names_some() -> None:
    assert len(NAMED) > 5


@pytest.mark.parametrize(("module", "name", "words"), NAMED)
def test_a_function(module: str, name: str, words: str) -> None:
    inside: Any = importlib.import_module(f"operations.{module}")
    function = reduce(getattr, name.split("."), inside)
    told = inspect.signature(function)
    listed = [word.partition("=")[0] for word in words.split(", ")]
    assert list(told.parameters)[: len(listed)] == listed
    # What the page leaves out may be left out.
    left_out = list(told.parameters.values())[len(listed) :]
    assert all(one.default is not inspect.Parameter.empty for one in left_out)
    assert told.return_annotation is not inspect.Signature.empty
    assert all(one.annotation is not inspect.Parameter.empty for one in told.parameters.values())
    assert inspect.getdoc(function)
