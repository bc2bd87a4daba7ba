"""Images: what builds container images on one host, and what keeps copies of them on the others.

The program is on_node/images; `slurmstack image` calls it. What is built, published and fetched is
no part of a bundle: an image that is there stays as it is, whatever the settings become.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import host_baseline, storage
from components.host.mounts import mounted
from components.host.python_programs import python_programs
from components.packages import package_repository
from components.software import pip
from on_node.images.places import CANDIDATES, CONFIGURATION, USER, WORK
from remote.bundle import Bundle, Check, Directory, File, Group, Package, Part, Unit, User
from settings import Settings
from settings.images import Image
from settings.images import Images as Wanted
from templates.rendering import render

ROLE = "images"
LIBRARY = "/usr/local/lib/slurmstack-images"
DEFINITIONS = "/etc/slurmstack/images"
_SERVICE = "slurmstack-images.service"
_SERVICE_FILE = f"/etc/systemd/system/{_SERVICE}"


class Images(HostRole):
    """What one host has for images."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if settings.images is None:
            return
        for name in assembly.hosts:
            if name in keepers(settings) or name in (settings.image_host, assembly.controller):
                roles = (host_baseline.ROLE, storage.ROLE, *package_repository.ROLES)
                cls(name, assembly, images_bundle(name, settings), assembly.on(name, *roles))


def keepers(settings: Settings) -> tuple[str, ...]:
    """Hosts where jobs run and people work: they read images."""
    return tuple(dict.fromkeys((*settings.compute, *settings.login)))


def by_share(node: str, settings: Settings) -> bool:
    """Whether a host sees the registry in a share, so that nothing need be fetched."""
    images = settings.images
    assert images is not None
    shares = mounted(node, settings).values()
    return any(PurePosixPath(images.root).is_relative_to(it.mounted_at) for it in shares)


def fetching(settings: Settings) -> tuple[str, ...]:
    """Hosts that fetch images from the host that builds them."""
    own = settings.image_host
    return tuple(it for it in keepers(settings) if it != own and not by_share(it, settings))


def address(settings: Settings) -> str:
    """Where they fetch them from."""
    images = settings.images
    assert images is not None
    return f"http://{settings.hosts[settings.image_host].address}:{images.port}"


def images_bundle(node: str, settings: Settings) -> Bundle:
    """What a host gets; none of it is an image."""
    images = settings.images
    assert images is not None
    parts: list[Part] = [*python_programs(LIBRARY, "images")]
    if node == settings.image_host:
        parts += _builder(settings, images)
    elif node in fetching(settings):
        parts.append(Directory(images.root, parents=True))
    return Bundle(node, ROLE, parts)


def _builder(settings: Settings, images: Wanted) -> list[Part]:
    parts: list[Part] = [
        Package("squashfs-tools"),
        Group(USER),
        User(USER, None, USER),
        Directory(str(WORK), mode="0700", ephemeral=True),
        Directory("/etc/slurmstack"),
        Directory(DEFINITIONS),
        File(str(CONFIGURATION), json.dumps(told(images), indent=1, sort_keys=True) + "\n"),
    ]
    if any(it.base.suite for it in images.images.values()):
        parts.append(Package("mmdebstrap"))
    if any(it.base.docker for it in images.images.values()):
        parts += [Package("skopeo"), Package("umoci")]
    environments = [it.python for it in images.images.values() if it.python is not None]
    parts += map(Package, sorted(pip.packages(environments)))
    if not _is_shared_folder(settings, images):
        parts.append(Directory(images.root, parents=True))
    if images.writers is not None:
        owner = f"root:{images.writers}"
        parts.append(Directory(f"{images.root}/custom-images", owner=owner, mode="2775"))
    for name, image in images.images.items():
        text = render("images/definition.def", name=name, image=image, root=images.root)
        parts.append(File(f"{DEFINITIONS}/{name}.def", text))
    if fetching(settings):
        parts += _served(settings, images)
    return parts


def _is_shared_folder(settings: Settings, images: Wanted) -> bool:
    """Whether the folder itself is a mount or an export, whose owner another role says."""
    own = settings.image_host
    places = {it.mounted_at for it in mounted(own, settings).values()}
    places |= {it.path or "" for it in settings.storage.values() if it.server == own}
    return images.root in places


def _served(settings: Settings, images: Wanted) -> list[Part]:
    at = settings.hosts[settings.image_host].address
    unit = render("images/images.service", address=at, port=images.port, root=images.root)
    url = f"{address(settings)}/{CANDIDATES}/.served"
    answers = f'test "$(busybox wget -q -O - {url})" = yes'
    return [
        Package("busybox"),
        Directory(f"{images.root}/{CANDIDATES}", ephemeral=True),
        File(f"{images.root}/{CANDIDATES}/.served", "yes\n"),
        File(_SERVICE_FILE, unit),
        Unit(_SERVICE, restart_on=(_SERVICE_FILE,)),
        Check("images-are-served", answers, timeout=20),
    ]


def told(images: Wanted) -> dict[str, Any]:
    """What the program that builds is told."""
    return {
        "root": images.root,
        "limit": None if images.limit is None else images.limit << 20,
        "keep": images.keep,
        "keep_days": images.keep_days,
        "images": {name: _recipe(name, image) for name, image in images.images.items()},
    }


def _recipe(name: str, image: Image) -> dict[str, Any]:
    python = image.python
    folder = "" if python is None or "://" in python.index else python.index
    return {
        "version": image.version,
        "base": _base(image),
        "script": render(
            "images/make.sh",
            name=name,
            image=image,
            source="" if python is None else pip.source(python),
        ),
        "lock": "" if python is None else python.text,
        "wheels": folder,
        "environment": {key: str(value) for key, value in image.environment.items()},
        "labels": image.labels,
        "tests": [
            {"run": it.run, "timeout": it.timeout} for it in image.tests if it.nodes == 0
        ],
    }  # fmt: skip


def _base(image: Image) -> dict[str, str]:
    base = image.base
    if base.tarball is not None:
        return {"url": base.tarball.url, "sha256": base.tarball.sha256}
    return {"suite": base.suite} if base.suite else {"docker": base.docker or ""}
