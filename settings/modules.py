"""Environment modules: ``slurmstack:modules``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from settings.base import Model, Path, matching

ModuleName = Annotated[
    str,
    matching(r"[A-Za-z0-9_.+-]+/[A-Za-z0-9_.+-]+", "a module and its version, such as fabric/1.0"),
]


class Module(Model):
    """One module of the tree: what it changes when it is loaded."""

    description: str
    set_env: dict[str, str | int] = Field(default_factory=dict)
    prepend_path: dict[str, str] = Field(default_factory=dict)
    #: Modules loaded with it.
    depends_on: tuple[str, ...] = ()
    #: It is the version that `module load NAME` takes.
    default: bool = False


class Modules(Model):
    """``slurmstack:modules``: Lmod and a tree of modules on compute and login nodes."""

    path: Path = "/opt/modulefiles"
    #: Further trees, such as one on a shared file system.
    further_paths: tuple[Path, ...] = ()
    tree: dict[ModuleName, Module] = Field(default_factory=dict)
