"""`python -m engine …`: the `pulumi` command line of the embedded engine."""

from __future__ import annotations

import sys

from engine.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
