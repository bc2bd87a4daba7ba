"""Modules of ``on_node`` that travel to a host, so that they run there as they are here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

_SOURCES = Path(__file__).parents[1] / "on_node"


def program(*names: str, words: Sequence[str] | None = None) -> str:
    """Modules as one text for python3 that leaves no file behind.

    Args:
        names: such as ``diagnosis.rule``, each after those that it imports; ``main`` of the last
            one is called.
        words: with these; left out, with those of the command line.
    """
    sources = {name: _source(name).read_text(encoding="utf-8") for name in names}
    called = "sys.argv[1:]" if words is None else f"json.loads({_text(list(words))})"
    return f"""import json, sys, types
for name, text in json.loads({_text(sources)}).items():
    name = "on_node." + name
    for dot in (at for at, letter in enumerate(name) if letter == "."):
        sys.modules.setdefault(name[:dot], types.ModuleType(name[:dot]))
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name + ".py", "exec"), module.__dict__)
sys.exit(module.main({called}))"""


def _source(name: str) -> Path:
    path = _SOURCES / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")


def _text(value: object) -> str:
    """A value as JSON, as a string of Python."""
    return json.dumps(json.dumps(value))
