"""Programs of ``on_node`` on a host: the modules that they are made of, and the Python for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from remote.bundle import Directory, File, Package, Part

_SOURCES = Path(__file__).parents[2] / "on_node"


def python_programs(library: str, *names: str) -> list[Part]:
    """The parts that put them there; they run as ``python3 -m on_node.NAME`` with the library on
    PYTHONPATH. A path belongs to one role: each has a library of its own.

    Args:
        library: the folder.
        names: modules and packages of ``on_node``.
    """
    sources = sorted({_SOURCES / "__init__.py", *(it for name in names for it in _of(name))})
    folders = sorted({source.parent.relative_to(_SOURCES.parent) for source in sources})
    return [
        Package("python3"),
        *(Directory(f"{library}/{folder}", parents=True) for folder in folders),
        *(
            File(f"{library}/{source.relative_to(_SOURCES.parent)}", source.read_text())
            for source in sources
        ),
    ]


def _of(name: str) -> Iterator[Path]:
    package = _SOURCES / name
    if package.is_dir():
        yield from package.rglob("*.py")
    else:
        yield package.with_suffix(".py")
