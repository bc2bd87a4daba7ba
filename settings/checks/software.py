"""Software of users beside the site's own modules."""

from __future__ import annotations

from collections.abc import Iterator

from settings.checks.draft import Draft
from settings.modules import Modules
from settings.problems import Problem
from settings.software import Software


def modules(draft: Draft) -> Iterator[Problem]:
    """There is a tree of modules, and nothing is in it twice."""
    software: dict[str, Software] = draft.part("software", dict) or {}
    path = draft.path("software")
    if not software:
        return
    found = draft.part("modules", Modules)
    if found is None:
        if draft.raw.get("modules") is None:
            yield Problem(path, f"{draft.path('modules')} beside it, {{}} at least", "none")
        return
    for name in sorted({*software} & {*found.tree}):
        yield Problem(f"{path}.{name}", f"no such module in {draft.path('modules')}.tree", name)
    defaults = [name for name, it in (*found.tree.items(), *software.items()) if it.default]
    for name in (it for it in software if software[it].default):
        if others := [it for it in defaults if it != name and _title(it) == _title(name)]:
            yield Problem(
                f"{path}.{name}.default", f"one default of {_title(name)}", ", ".join(others)
            )


def packages(draft: Draft) -> Iterator[Problem]:
    """A package comes from one place, at one version."""
    software: dict[str, Software] = draft.part("software", dict) or {}
    path = draft.path("software")
    files: dict[str, tuple[str, str]] = {}
    for name, entry in software.items():
        for at, file in enumerate(entry.package_files):
            where = f"{path}.{name}.packageFiles[{at}]"
            before = files.setdefault(file.package, (name, file.version))
            if before[1] != file.version:
                expected = f"{file.package} {before[1]}, as in {before[0]}: a host has it once"
                yield Problem(where, expected, file.version)
    for name, entry in software.items():
        for at, package in enumerate(entry.packages):
            if package in files and files[package][0] != name:
                expected = f"it once: {files[package][0]} brings its package file"
                yield Problem(f"{path}.{name}.packages[{at}]", expected, package)


def _title(name: str) -> str:
    return name.split("/")[0]
