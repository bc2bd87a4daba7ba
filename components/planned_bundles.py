"""What the plan of a change is told of bundles: what the engine does not show of them.

An engine shows of a secret bundle that it changes, no more, and the embedded one hides lines of a
secret wherever else they stand. So where `slurmstack plan` names a folder in the environment, a
preview leaves each bundle there, secret ones with hashes in the place of what they say
(``remote.effects.sealed``). Nothing is written in a real run, and nothing where nobody asks.
"""

from __future__ import annotations

import os
from pathlib import Path

import pulumi

from remote.bundle import Bundle
from remote.effects import sealed

#: The folder's name, in the environment of the program.
FOLDER = "SLURMSTACK_PLANNED_BUNDLES"
#: What the name of a sealed one ends in.
SEALED = ".sealed"


def leave(bundle: Bundle, text: str, secret: bool) -> None:
    """Leave a bundle for the plan that this preview is for.

    Args:
        bundle: what is to be deployed.
        text: what the node is to be sent.
        secret: it holds a key.
    """
    folder = os.environ.get(FOLDER)
    if folder and pulumi.runtime.is_dry_run():
        file = Path(folder) / f"{bundle.node}-{bundle.role}{SEALED if secret else ''}"
        file.write_text(sealed(bundle).render() if secret else text)
