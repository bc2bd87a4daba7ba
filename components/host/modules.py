"""Modules of Lmod: the files of a tree, and that a user's login shell loads them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from components.host.lua import lua_is_read
from remote.bundle import Directory, File, Package, Part
from settings.modules import Module, Modules
from templates.rendering import render

#: Lmod's start file reads this one instead of the package's own, where it is there.
MODULES_PATH = "/etc/lmod/.modulespath"


def modules(found: Modules) -> list[Part]:
    """Lmod, where it looks, and the site's tree."""
    return [
        Package("lmod"),
        Directory("/etc/lmod"),
        Directory(found.path, parents=True),
        File(
            MODULES_PATH,
            render("host/modulespath", paths=[found.path, *found.further_paths]),
        ),
        *module_files(found.path, found.tree),
    ]


def module_files(
    path: str, tree: Mapping[str, Module], environments: Mapping[str, str] = MappingProxyType({})
) -> list[Part]:
    """The files of modules below a tree that is there.

    Args:
        path: the tree.
        tree: NAME/VERSION → module.
        environments: those that bring a Python environment → the link to it.
    """
    defaults = {name for name, module in tree.items() if module.default}
    parts: list[Part] = [
        *(Directory(f"{path}/{name}") for name in sorted({it.split("/")[0] for it in tree})),
        *(
            File(
                f"{path}/{name}.lua",
                render(
                    "host/module.lua",
                    name=name,
                    module=module,
                    environment=environments.get(name),
                ),
            )
            for name, module in sorted(tree.items())
        ),
        *(
            File(
                f"{path}/{name.split('/')[0]}/.modulerc.lua",
                render("host/modulerc.lua", name=name),
            )
            for name in sorted(defaults)
        ),
    ]
    files = tuple(part.path for part in parts if isinstance(part, File))
    return [*parts, *([lua_is_read(files)] if files else [])]
