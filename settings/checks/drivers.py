"""What checks of drivers have in common: which nodes, what packages, and when they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from settings.artifact import PackageFile
from settings.checks.draft import Draft
from settings.hostlist import expand, fold
from settings.problems import Problem
from settings.rollout import Rollout


def compute_nodes(draft: Draft, path: str, hosts: str | None) -> Iterator[Problem]:
    """Hosts of a host list that are no compute nodes."""
    compute = {name for node_class in draft.nodes for name in node_class.names}
    others = [name for name in expand(hosts) if name not in compute] if hosts else []
    if others and draft.nodes:
        yield Problem(path, "compute nodes of slurmstack:nodes", fold(others))


def changed_drained(draft: Draft, key: str, what: str = "driver") -> Iterator[Problem]:
    """Settings by which a driver, or what else is named, would change under jobs."""
    rollout = draft.part("rollout", Rollout)
    if rollout is not None and rollout.drain == "never":
        yield Problem(
            draft.path("rollout.drain"),
            f"asNeeded or always beside slurmstack:{key}: no {what} changes under jobs",
            "never",
        )


def package_files(
    path: str, files: Sequence[PackageFile], versions: Mapping[str, str]
) -> Iterator[Problem]:
    """Package files that nothing names, or that are of another version than named."""
    for at, file in enumerate(files):
        where = f"{path}.packageFiles[{at}]"
        wanted = versions.get(file.package)
        if wanted is None:
            expected = "a package file of one of " + ", ".join(sorted(versions))
            yield Problem(where, expected, file.package)
        elif wanted.partition(":")[2] not in ("", file.version) or (
            ":" not in wanted and wanted != file.version
        ):
            yield Problem(where, f"{file.package} {wanted}, as in the settings", file.version)
