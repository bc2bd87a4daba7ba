"""Parameters and plugins that the release which is deployed has not, or not any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from settings.checks.draft import Draft
from settings.packages import Packages
from settings.parameters import (
    NODE,
    PARTITION,
    SLURM_CONF,
    SLURMDBD_CONF,
    Parameter,
    Release,
    find,
    plugins,
    release_of,
    written,
)
from settings.problems import Problem
from settings.slurm_value import release_problem

#: Where a setting may hold parameters: what it is called there → the file in the table.
_Place = tuple[str, str, BaseModel]


def parameters(draft: Draft) -> Iterator[Problem]:
    """All of them, where ``slurmstack:packages`` says which version is deployed."""
    packages = draft.part("packages", Packages)
    if packages is None or packages.version is None:
        return
    try:
        release = release_of(packages.version)
    except ValueError:
        return
    for path, file, model in _places(draft):
        for where, parameter, value in _set(path, file, model):
            expected = (
                release_problem(parameter, release)
                or _plugin(parameter, value, release)
                or _words(parameter, value, release)
            )
            if expected:
                yield Problem(where, expected, parameter.name if value is None else str(value))


def _places(draft: Draft) -> Iterator[_Place]:
    parts, project = draft.parts, draft.project
    if "slurm" in parts:
        yield f"{project}:slurm", SLURM_CONF, parts["slurm"]
    for index, node_class in draft.classes:
        yield f"{project}:nodes[{index}]", NODE, node_class
    for title, partition in draft.partitions.items():
        yield f"{project}:partitions.{title}", PARTITION, partition
    if "accounting" in parts:
        path = f"{project}:accounting.slurmdbd"
        yield path, SLURMDBD_CONF, parts["accounting"].slurmdbd
    if "cgroup" in parts:
        yield f"{project}:cgroup", "cgroup.conf", parts["cgroup"]
    if "mpi" in parts:
        yield f"{project}:mpi.conf", "mpi.conf", parts["mpi"].conf
    if "job_container" in parts:
        yield f"{project}:jobContainer", "job_container.conf", parts["job_container"]


def _set(path: str, file: str, model: BaseModel) -> Iterator[tuple[str, Parameter, Any]]:
    """Where a setting stands, its parameter and its value; insisted ones are taken as they are."""
    extra = getattr(model, "extra", {})
    for name in sorted(model.model_fields_set - {"extra"}):
        parameter = find(file, name)
        if parameter is not None:
            yield f"{path}.{name}", parameter, getattr(model, name)
    for name, value in extra.items():
        parameter = find(file, name)
        if parameter is not None and name not in getattr(extra, "insisted", ()):
            yield f"{path}.extra.{name}", parameter, value


def _plugin(parameter: Parameter, value: Any, release: Release) -> str | None:
    if parameter.kind not in ("plugin", "plugins"):
        return None
    known = plugins(parameter.of[0])
    for name in str(value).split(","):
        first, last = known.get(name.rpartition("/")[2], (None, None))
        if not (first or release) <= release <= (last or release):
            names = [
                f"{parameter.of[0]}/{plugin}"
                for plugin, (first, last) in known.items()
                if (first or release) <= release <= (last or release)
            ]
            return f"a plugin that Slurm {written(release)} has: {', '.join(names)}"
    return None


def _words(parameter: Parameter, value: Any, release: Release) -> str | None:
    for word in str(value).split(","):
        first = parameter.words_since.get(word.lstrip("+-"))
        if first is not None and release < first:
            return f"no {word} with Slurm {written(release)}: {written(first)} is the first with it"
    return None
