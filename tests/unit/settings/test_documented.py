"""Every setting is described in docs/settings.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in models(argument)]


def keys(model: type[BaseModel]) -> list[str]:
    found = []
    for name, info in model.model_fields.items():
        inner = models(info.annotation)
        if name not in {"munge_key"}:
            found += [key for one in inner for key in keys(one)]
        found.append(info.alias or name)
    return found


@pytest.mark.parametrize("key", sorted(set(keys(Settings))))
def test_documented(key: str) -> None:
    assert f"`{key}`" in PAGE or f"`slurmstack:{key}`" in PAGE
