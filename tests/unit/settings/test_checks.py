"""Checks between settings are all registered, and pass over what is wrong by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

from settings import checks, parse
from settings.checks.draft import Draft
from settings.problems import SettingsError
from tests.unit.settings.test_settings import lab


def of_drafts() -> Iterator[object]:
    for module in pkgutil.iter_modules(checks.__path__, "settings.checks."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                parameters = inspect.signature(value).parameters.values()
                if [parameter.annotation for parameter in parameters] == [Draft.__name__]:
                    yield value


def test_every_check_is_run() -> None:
    assert sorted(map(repr, of_drafts())) == sorted(map(repr, checks.CHECKS))


@pytest.mark.parametrize("key", ["hosts", "roles", "nodes", "partitions", "slurm", "packages"])
def test_what_is_wrong_by_itself_is_reported_once(key: str) -> None:
    """A share with a client, so that hosts that cannot be read would be missed there, too."""
    storage = {"home": {"server": "ctl", "path": "/home", "clients": "cn01"}}
    with pytest.raises(SettingsError) as caught:
        parse({**lab(), "storage": storage, key: 1.5})
    assert {problem.path for problem in caught.value.problems} == {f"slurmstack:{key}"}
