"""`python -m engine …`: the `pulumi` command line of the embedded engine."""

from __future__ import annotations

import gc
import sys

from engine import VERSION


def main(argv: list[str]) -> int:
    if argv == ["version"]:
        # The SDK asks before each of its commands; nothing needs loading to answer.
        print(f"v{VERSION}")
        return 0
    # As in the program's process.
    gc.set_threshold(50_000)
    from engine.cli import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
