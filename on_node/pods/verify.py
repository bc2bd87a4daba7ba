"""Whether a job's results are as they were when it ended, for ``slurmstack job verify``: on the
controller, as root, and with the rights of the results' owner. Ends with 1 where they are not."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

from on_node.pods.results import differences
from on_node.pods.site import site


def main(job: str) -> int:
    """Print what is other, a line each."""
    results = site().results
    if not results:
        print("slurmstack:kubernetesBridge.pods has no results: none are kept")
        return 2
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", job):
        print(f"{job}: no job's number such as 12, or 12.1 of its second run")
        return 2
    folder = Path(results) / job
    try:
        look = folder.lstat()
        if not stat.S_ISDIR(look.st_mode) or look.st_uid == 0:
            print(f"{folder}: no folder of a user's")
            return 2
        os.setgroups([])
        os.setgid(look.st_gid)
        os.setuid(look.st_uid)
        told = differences(folder)
    except OSError as error:
        print(f"{error.filename or folder}: {error.strerror}")
        return 2
    print("\n".join("".join(it if it.isprintable() else "?" for it in line) for line in told))
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
