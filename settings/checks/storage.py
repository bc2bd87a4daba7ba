"""Shared file systems: what each type needs, who serves and mounts them, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from settings.checks.draft import Draft
from settings.hostlist import expand
from settings.problems import Problem
from settings.storage import Share

#: Keys that say how a host of ours exports a directory.
_OF_A_SERVER = ("server", "path", "owner", "mode", "export_options")
#: Keys of cephfs.
_OF_CEPH = ("name", "secret_file")


def _shares(draft: Draft) -> dict[str, Share]:
    return draft.part("storage", dict) or {}


def _given(share: Share, key: str) -> Any:
    """None where it is left out."""
    return getattr(share, key) if key in share.model_fields_set else None


def hosts(draft: Draft) -> Iterator[Problem]:
    """Servers and clients of shares are hosts."""
    known, path = draft.hosts, draft.path("storage")
    if known is None:
        return
    for name, share in _shares(draft).items():
        for client in expand(share.clients) if share.clients != "ALL" else ():
            if client not in known:
                yield Problem(f"{path}.{name}.clients", "hosts of slurmstack:hosts", client)
        if share.server is None:
            continue
        if share.server in draft.compute:
            yield Problem(f"{path}.{name}.server", "a host that runs no jobs", share.server)
        if share.server in known and known[share.server].lost:
            yield Problem(f"{path}.{name}.server", "a host that is not lost", share.server)


def sources(draft: Draft) -> Iterator[Problem]:
    """A share has what its type is mounted from, and nothing that would be passed over."""
    for name, share in _shares(draft).items():
        path = f"{draft.path('storage')}.{name}"
        wanted = share.file_system.source
        if wanted is None:
            needed, foreign = ["server", "path"], ["source", "module", *_OF_CEPH]
        else:
            needed, foreign = ["source", "mount"], [*_OF_A_SERVER]
            foreign += _OF_CEPH if share.type != "cephfs" else ()
            foreign += ["module"] if share.type == "bind" else []
        for key in needed:
            if getattr(share, key) is None:
                yield Problem(f"{path}.{key}", f"a value, since type is {share.type}", "nothing")
        for key in foreign:
            if (value := _given(share, key)) is not None:
                said = ", ".join(value) if isinstance(value, tuple) else str(value)
                label = Share.model_fields[key].alias or key
                yield Problem(f"{path}.{label}", f"nothing, since type is {share.type}", said)
        if wanted is not None and share.source is not None:
            yield from _source(f"{path}.source", share, *wanted)


def _source(path: str, share: Share, pattern: str, words: str) -> Iterator[Problem]:
    assert share.source is not None
    if not re.fullmatch(pattern, share.source):
        yield Problem(path, words, repr(share.source))
    elif share.type == "bind" and share.source.rstrip("/") == share.mounted_at:
        yield Problem(path, "another folder than where it is mounted", share.source)


def places(draft: Draft) -> Iterator[Problem]:
    """Each share has a place of its own."""
    taken: dict[str, str] = {}
    for name, share in _shares(draft).items():
        place = share.mounted_at
        if not place:
            continue  # reported already
        if place in taken:
            yield Problem(
                f"{draft.path('storage')}.{name}.mount",
                "each place once",
                f"{place}, already of {taken[place]}",
            )
        taken.setdefault(place, name)


def package_files(draft: Draft) -> Iterator[Problem]:
    """Package files are of packages that their share names: others would be served, and used by
    nobody."""
    for name, share in _shares(draft).items():
        path = f"{draft.path('storage')}.{name}"
        for at, file in enumerate(share.package_files):
            if file.package not in share.client_packages:
                named = ", ".join(share.client_packages) or "none"
                expected = f"a package file of a package of {path}.packages ({named})"
                yield Problem(f"{path}.packageFiles[{at}]", expected, file.package)
