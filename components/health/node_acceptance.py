"""NodeAcceptance: what measures a compute node, and keeps on it what was found.

The program is on_node/acceptance: one copy for the gates of `pulumi up` and `slurmstack validate`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import host_baseline
from components.host.mounts import mounted
from components.host.python_programs import python_programs
from components.packages import package_repository
from on_node.acceptance.__main__ import CONFIG, KEPT
from remote.bundle import Bundle, Directory, File, Package
from settings import Settings

ROLE = "acceptance"
_LIBRARY = "/usr/local/lib/slurmstack-acceptance"
#: What a node runs that is to prove itself; its last line says what is against it.
GATE = f"PYTHONPATH={_LIBRARY} python3 -m on_node.acceptance gate"


class NodeAcceptance(HostRole):
    """The program on one compute node, there before slurmd may need it."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if settings.acceptance is None:
            return
        for name in settings.compute_nodes:
            needs = assembly.on(name, host_baseline.ROLE, *package_repository.ROLES)
            cls(name, assembly, acceptance_bundle(name, settings), needs)


def gates(settings: Settings) -> tuple[str, ...]:
    """When a node is measured before it is given to jobs."""
    return settings.acceptance.gate if settings.acceptance is not None else ()


def acceptance_bundle(node: str, settings: Settings) -> Bundle:
    """What a compute node gets."""
    acceptance = settings.acceptance
    assert acceptance is not None
    configuration = config(node, settings) if node in settings.compute else {}
    return Bundle(
        node,
        ROLE,
        [
            *python_programs(_LIBRARY, "acceptance"),
            *map(Package, acceptance.packages),
            *(Package(file.package, file.version) for file in acceptance.package_files),
            Directory(str(Path(CONFIG).parent)),
            Directory(str(KEPT.parent), ephemeral=True),
            File(CONFIG, json.dumps(configuration, indent=1, sort_keys=True) + "\n"),
        ],
    )


def config(node: str, settings: Settings) -> dict[str, Any]:
    """How a node is measured, and what it must show."""
    acceptance = settings.acceptance
    assert acceptance is not None
    shares = mounted(node, settings).values()
    # What is measured is written, too.
    mounts = {it.mounted_at for it in shares if "ro" not in it.mount_options}
    return {
        "stream": acceptance.stream,
        "hpl": acceptance.hpl,
        "hplSize": acceptance.hpl_size,
        "storage": sorted({*acceptance.storage, *mounts}),
        "storageSize": acceptance.storage_size,
        "tolerance": acceptance.tolerance,
        "least": acceptance.least.get(settings.compute[node].name or "", {}),
    }
