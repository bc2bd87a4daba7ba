"""Container images beside the hosts and the runtimes that they need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from settings.checks import hosts
from settings.checks.draft import Draft
from settings.containers import Apptainer, EnrootPyxis
from settings.images import Images
from settings.packages import Packages
from settings.problems import Problem
from settings.storage import Share


def host(draft: Draft) -> Iterator[Problem]:
    """Images are built on a host that is there, at a port that nothing else has."""
    images = draft.part("images", Images)
    roles = draft.roles
    if images is None or draft.hosts is None or roles is None:
        return
    path = draft.path("images")
    name = images.host or roles.controller
    yield from hosts.there(draft, f"{path}.host", name)
    packages = draft.part("packages", Packages) or Packages()
    if images.port == packages.port and name == (packages.host or roles.controller):
        yield Problem(f"{path}.port", f"another one than {draft.path('packages')}.port", name)


def runtimes(draft: Draft) -> Iterator[Problem]:
    """What runs a test on nodes is deployed; so many nodes there are."""
    images = draft.part("images", Images)
    if images is None or draft.roles is None:
        return
    enroot = draft.part("enroot_pyxis", EnrootPyxis) is not None
    apptainer = draft.part("apptainer", Apptainer) is not None
    for name, image in images.images.items():
        path = f"{draft.path('images')}.images.{name}"
        for at, test in enumerate(image.tests):
            if not test.nodes:
                continue
            where = f"{path}.tests[{at}].nodes"
            if not (enroot or apptainer):
                expected = f"{draft.path('enrootPyxis')} or {draft.path('apptainer')} beside it"
                yield Problem(where, expected, str(test.nodes))
            if draft.nodes and test.nodes > len(draft.compute):
                expected = f"at most the {len(draft.compute)} compute nodes that there are"
                yield Problem(where, expected, str(test.nodes))


def folder(draft: Draft) -> Iterator[Problem]:
    """The registry has a folder of its own."""
    images = draft.part("images", Images)
    if images is None:
        return
    if images.root.count("/") < 2:
        expected = "a folder of its own, such as /opt/containers"
        yield Problem(f"{draft.path('images')}.root", expected, images.root)


def shares(draft: Draft) -> Iterator[Problem]:
    """Where a share brings the registry to nodes, its server has it at the same path."""
    images = draft.part("images", Images)
    storage: dict[str, Share] = draft.part("storage", dict) or {}
    if images is None or draft.roles is None:
        return
    builder = images.host or draft.roles.controller
    for name, share in storage.items():
        mounted = PurePosixPath(images.root).is_relative_to(share.mounted_at)
        if mounted and share.server == builder and share.path != share.mounted_at:
            expected = f"{share.mounted_at}, where nodes mount it: images are published there"
            yield Problem(f"{draft.path('storage')}.{name}.path", expected, str(share.path))
