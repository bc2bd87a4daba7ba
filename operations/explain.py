"""What a setting is: of Slurm's parameters by the table of them, of ours by their page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from operations.refused import Refused
from settings import NodeClass, Settings
from settings.accounting import Slurmdbd
from settings.gres import Gres
from settings.jobs import Cgroup, JobContainer
from settings.model import Partition
from settings.parameters import (
    NODE,
    PARTITION,
    SLURM_CONF,
    SLURMDBD_CONF,
    Needs,
    Parameter,
    default,
    files,
    find,
    nearest,
    table,
    written,
)
from settings.slurm_conf import SlurmConf

_PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
#: What a change needs, in an operator's words.
_EFFECT = {
    Needs.NOTHING: "nothing",
    Needs.RECONFIGURE: "a reconfigure, running jobs go on",
    Needs.RESTART: "a restart, running jobs go on",
    Needs.DRAIN: "nodes without jobs: refused while jobs run",
    Needs.STOP: "everything stopped, and what daemons keep taken care of: refused while jobs run",
}
#: File → where its parameters are written in the stack's file, and the model of that; those that
#: the model does not list are in its `extra`, where it has one.
_PLACES: Mapping[str, tuple[str, type[BaseModel]]] = {
    SLURM_CONF: ("slurmstack:slurm", SlurmConf),
    NODE: ("slurmstack:nodes[]", NodeClass),
    PARTITION: ("slurmstack:partitions.NAME", Partition),
    SLURMDBD_CONF: ("slurmstack:accounting.slurmdbd", Slurmdbd),
    "cgroup.conf": ("slurmstack:cgroup", Cgroup),
    "gres.conf": ("slurmstack:nodes[].Gres[]", Gres),
    "job_container.conf": ("slurmstack:jobContainer", JobContainer),
}
#: An example where neither the table nor Slurm's default gives one.
_EXAMPLES = {
    "bool": "yes", "time": "1-00:00:00", "int16": "1", "int32": "1", "int64": "1", "float": "1.0",
    "path": "/srv/slurm", "paths": "/srv/slurm", "program": "/opt/site/script", "ports": "6817",
    "range": "12000-12999", "level": "debug",
}  # fmt: skip


@dataclass(frozen=True)
class Explained:
    """One thing of that name. Empty fields are not known, or there is none."""

    name: str
    file: str
    set_by: str
    kind: str
    daemons: str
    needs: str
    slurm_default: str
    our_default: str = ""
    now: str = ""
    example: str = ""
    note: str = ""


def explain(name: str, settings: Settings | None = None) -> list[Explained] | str:
    """A parameter of Slurm in each file that has it, or the page's words on a setting of ours.

    Args:
        name: ``MessageTimeout``, ``slurm.conf:MessageTimeout``, ``slurmstack:rest``, ``rest.port``.
        settings: a stack's, to tell its value.

    Raises:
        Refused: nothing has this name: the nearest one.
    """
    file, _, bare = name.rpartition(":")
    if file in ("", *files()):
        bare = bare.rpartition(".")[2] if bare.startswith("slurm.") else bare
        found = [it for place in ((file,) if file else files()) if (it := find(place, bare))]
        if found:
            return [_parameter(it, settings) for it in found]
    if file in ("", "slurmstack"):
        told = _of_page(bare)
        if told is not None:
            return told
    known = {it.name for place in files() for it in table(place).values()} | set(_sections())
    near = nearest(bare, known)
    raise Refused(f"{name}: no such setting" + (f"; did you mean {near}?" if near else ""))


def _parameter(it: Parameter, settings: Settings | None) -> Explained:
    own = default(it)
    place, field = _place(it)
    words = f" of {', '.join(it.of)}" if it.of else ""
    value = it.example or own or (it.of[0] if it.of else _EXAMPLES.get(it.kind, "VALUE"))
    value = re.sub(r" (sec|min|usec|ms|nodes/min|percent)$", "", value)
    notes = [it.note, f"since {written(it.since)}" if it.since else ""]
    notes.append(f"until {written(it.until)}" if it.until else "")
    return Explained(
        name=it.name,
        file=_file(it.file),
        set_by=place,
        kind=f"{it.kind}{words}",
        daemons=_daemons(it),
        needs=_EFFECT[it.needs] + (f"; restarted: {', '.join(it.restart)}" if it.restart else ""),
        slurm_default={None: "not known here", "": "none"}.get(own, own or ""),
        our_default=_our_default(field),
        now=_now(it, settings),
        example=f"{it.name}: {value}",
        note="; ".join(filter(None, notes)),
    )


def _our_default(field: FieldInfo | None) -> str:
    if field is None or field.is_required() or not field.default:
        return ""
    return str(field.default)


def _place(it: Parameter) -> tuple[str, FieldInfo | None]:
    """Where it is written in the stack's file, and the field for it."""
    place, model = _PLACES.get(it.file, ("", BaseModel))
    field = model.model_fields.get(it.name)
    if field is None and "extra" not in model.model_fields:
        return "none: it follows from other settings", None
    return f"{place}.{'extra.' if field is None else ''}{it.name}", field


def _file(file: str) -> str:
    name, _, line = file.partition(" ")
    return f"{name}, on {line} lines" if line else name


def _daemons(it: Parameter) -> str:
    """Who runs by it: those that a change restarts, else those that a reconfigure tells."""
    if it.restart:
        return ", ".join(it.restart)
    return "slurmdbd" if it.file == SLURMDBD_CONF else "slurmctld, slurmd"


def _now(it: Parameter, settings: Settings | None) -> str:
    if settings is None or it.file != SLURM_CONF:
        return ""
    extra = {key.lower(): value for key, value in settings.slurm.extra.items()}
    value = getattr(settings.slurm, it.name, None) or extra.get(it.name.lower())
    return str(value) if value is not None else "not set: Slurm's own default"


def _sections() -> Mapping[str, str]:
    """Key → its section of the page."""
    parts = re.split(r"^## `slurmstack:(\w+)`\n", _PAGE.read_text(), flags=re.MULTILINE)
    return {
        key: text.split("\n## ")[0].strip()
        for key, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _of_page(path: str) -> str | None:
    """What the page says of a key, or of one below it: ``rest``, ``rest.port``."""
    key, *below = re.split(r"\.|\[[^\]]*\]\.?", path)
    section = _sections().get(key)
    if section is None:
        return None
    if not any(below):
        return f"slurmstack:{key}\n\n{section}"
    rows = list(_rows(section, below[-1]))
    return f"slurmstack:{path}\n\n" + "\n".join(rows) if rows else None


def _rows(section: str, name: str) -> Iterator[str]:
    """The rows of tables that are about a key."""
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and f"`{name}`" in cells[0]:
            yield f"{cells[1]}" + (f"\nDefault: {cells[2]}" if len(cells) > 2 and cells[2] else "")
