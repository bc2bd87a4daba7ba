"""Programs of ``on_node`` on a host: the modules that they are made of, and the Python for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from remote.bundle import Directory, File, Package, Part

_SOURCES = Path(__file__).parents[2] / "on_node"


def python_programs(library: str, *names: str) -> list[Part]:
    """The parts that put them there; they run as ``python3 -m on_node.NAME`` with the library on
    PYTHONPATH. A path belongs to one role: each has a library of its own. What shares the applier's
    folder (``components.guards``, ``components.diagnosis``) places its programs itself.

    Args:
        library: the folder.
        names: modules and packages of ``on_node``.
    """
    sources = [_SOURCES / "__init__.py", *(it for name in names for it in _of(name))]
    inner = sorted({source.parent.relative_to(_SOURCES.parent) for source in sources})
    return [
        Package("python3"),
        *(Directory(folder) for folder in (library, *(f"{library}/{it}" for it in inner))),
        *(
            File(f"{library}/{source.relative_to(_SOURCES.parent)}", source.read_text())
            for source in sources
        ),
    ]


def _of(name: str) -> Iterator[Path]:
    package = _SOURCES / name
    if package.is_dir():
        yield from sorted(package.rglob("*.py"))
    else:
        yield package.with_suffix(".py")
