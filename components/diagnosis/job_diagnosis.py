"""JobDiagnosis: what jobs leave behind when they end, and the command that says why one failed.

The program is on_node/diagnosis: one copy for the nodes and for `slurmstack diagnose`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import host_baseline
from on_node.diagnosis import links
from remote.bundle import Bundle, Directory, File, Package
from settings import Settings
from settings.scripts import JobProgram
from templates.rendering import render

ROLE = "diagnosis"
COMMAND = "diagnose_training_failure.py"
#: Read by the epilog.
CONFIGURATION = "/etc/slurmstack/diagnosis.json"
_LIBRARY = "/usr/local/lib/slurmstack"
_SOURCES = Path(__file__).parents[2] / "on_node"


class JobDiagnosis(HostRole):
    """The program on one host. Nothing waits for it: an epilog that does not find it ends well."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if settings.diagnosis is None:
            return
        users = {*settings.compute, *settings.login, settings.roles.controller}
        for name in assembly.hosts:
            if name in users:
                needs = assembly.on(name, host_baseline.ROLE)
                cls(name, assembly, diagnosis_bundle(name, settings), needs)


def diagnosis_bundle(node: str, settings: Settings) -> Bundle:
    """What every host gets on which jobs run or users work."""
    diagnosis = settings.diagnosis
    assert diagnosis is not None
    sources = sorted((_SOURCES / "diagnosis").rglob("*.py"))
    folders = sorted({str(source.parent.relative_to(_SOURCES)) for source in sources})
    told = {
        "keepDays": diagnosis.keep_days,
        "keepMegabytes": diagnosis.keep_megabytes,
        "slurmdLog": settings.slurm.SlurmdLogFile.replace("%n", node).replace("%h", node),
    }
    return Bundle(
        node,
        ROLE,
        [
            Package("python3"),
            *(Directory(f"{_LIBRARY}/on_node/{folder}", parents=True) for folder in folders),
            *(
                File(f"{_LIBRARY}/on_node/{source.relative_to(_SOURCES)}", source.read_text())
                for source in sources
            ),
            Directory("/etc/slurmstack"),
            File(CONFIGURATION, json.dumps(told, indent=2, sort_keys=True) + "\n"),
            Directory(diagnosis.command_folder, parents=True),
            File(
                f"{diagnosis.command_folder}/{COMMAND}",
                render("diagnosis/command.py", library=_LIBRARY),
                mode="0755",
            ),
        ],
    )


def with_jobs(settings: Settings) -> Iterator[JobProgram]:
    """The epilog, before the site's own: that may tidy up what tells of the failure. The prolog
    keeps counters for it to compare with."""
    if settings.diagnosis is not None:
        before = render("diagnosis/prolog.sh", folder=links.FOLDER, patterns=links.PATTERNS)
        yield JobProgram("Prolog", "diagnosis", before)
        text = render("diagnosis/epilog.sh", library=_LIBRARY)
        yield JobProgram("Epilog", "diagnosis", text)
