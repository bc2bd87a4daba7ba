"""Scripts that are placed, against what else names them."""

from __future__ import annotations

from collections.abc import Iterator

from settings.checks.draft import Draft
from settings.problems import Problem
from settings.scripts import LUA, given, interpreter, script_text


def placed(draft: Draft) -> Iterator[Problem]:
    """A script is placed or named, not both, and the kernel can run it."""
    slurm, scripts = draft.slurm, draft.parts.get("scripts", {})
    for name, file in scripts.items():
        where = draft.path(f"scripts.{name}")
        if name in LUA:
            plugins = given(slurm, LUA[name])
            if plugins is not None and "lua" not in plugins.split(","):
                path = draft.path(f"slurm.extra.{LUA[name]}")
                yield Problem(path, f"lua among it, for {where}", plugins)
            continue
        if given(slurm, name) is not None:
            yield Problem(where, f"{name} here or in {draft.path('slurm')}, not in both", "both")
        for parameter, key in (
            ("HealthCheckProgram", "healthCheck"),
            ("TaskProlog", "jobEnvironment"),
        ):
            if name == parameter and key in draft.raw:
                yield Problem(where, f"no {name} beside {draft.path(key)}, which gives it", "both")
        if interpreter(script_text(file)) is None:
            yield Problem(where, "a script whose first line is such as #!/bin/sh", file)
