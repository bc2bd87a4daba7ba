#!/bin/sh
# The command `slurmstack` of this checkout; lab/venv.sh links it into .venv/bin.
set -eu
root=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "$root/.venv/bin/python" -P -c '
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("operations", run_name="__main__", alter_sys=True)' "$root" "$@"
