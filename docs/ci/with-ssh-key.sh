#!/bin/sh
# Runs a command with an SSH agent that holds the key in $SLURMSTACK_SSH_KEY. The agent ends at most
# ten seconds after the command, however that ends.
# The key is in no file, no command line and not in the command's environment.
# Usage: sh docs/ci/with-ssh-key.sh COMMAND…
set -eu
[ -n "${SLURMSTACK_SSH_KEY:-}" ] || {
    echo "with-ssh-key: SLURMSTACK_SSH_KEY is empty: give this job the secret of that name" >&2
    exit 1
}
# shellcheck disable=SC2016  # the shell below the agent expands them
exec ssh-agent sh -c '
    printf "%s\n" "$SLURMSTACK_SSH_KEY" | ssh-add -q - || exit 1
    unset SLURMSTACK_SSH_KEY
    exec "$@"
' sh "$@"
