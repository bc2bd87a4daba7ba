"""`python -m operations`: the `slurmstack` command line."""

from operations.cli import main

main(prog_name="slurmstack")
