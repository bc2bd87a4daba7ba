#!/bin/sh
# slurmstack applier: makes this node what a bundle on stdin says (`apply`), or takes it back
# (`remove`), or says what is other than bundles say (`compare`). What a bundle is, what is kept
# where and why: remote/README.md. In the project it is a file for each step (remote/applier/); it
# travels as one, so that all of it is replaced at once.
#
# Rules that hold throughout:
#  - Nothing is changed before the whole bundle is understood, and what is intended is on disk
#    before it is done, so that the next run can finish what a crash interrupted.
#  - Paths and names are of a narrow set of characters (checked in `parse`), so lists of them
#    may be split on white space; file contents are only ever passed from file to file.
#  - A function that cannot go on calls `fail`; the EXIT trap cleans up.
#
# Some functions are only named (trap, must_write), dpkg-query's formats have a $ of their own, and
# what is set in one file of the applier is used in others:
# shellcheck disable=SC2016,SC2034,SC2154,SC2329
set -uf
umask 077
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1
export PATH LC_ALL DEBIAN_FRONTEND APT_LISTCHANGES_FRONTEND NEEDRESTART_SUSPEND
# A broken connection must not stop the work: children ignore the hang-up too, but have the
# usual SIGPIPE (an ignored one confuses package scripts); their output goes to files anyway.
trap '' HUP
trap : PIPE
exec 3>&2 # where errors go, also out of a step whose output is being caught

root=${SLURMSTACK_ROOT:-}
run=$root/run/slurmstack base=$root/var/lib/slurmstack work=$run/work staged=$run/work/staged
policy=$root/usr/sbin/policy-rc.d
lock_wait=${SLURMSTACK_LOCK_WAIT:-1800} package_time=${SLURMSTACK_PACKAGE_TIME:-1800}
mount_time=${SLURMSTACK_MOUNT_TIME:-10}
verb=${1:-} node=$(uname -n) role=- state='' lock_held='' changed=false rebooted_next=''

# ---------------------------------------------------------------- speaking and failing

say() { printf '%s\n' "$node: $role: $*" >&2 2>/dev/null || :; }

did() { changed=true; printf '%s\n' "$*" >>"$work/actions"; say "$*"; }

fail() { # step, what was found, remedy; kept for whoever asks at the end of the whole run
    said=$(printf 'slurmstack: %s: %s: %s; %s' "$node" "$1" "$2" "$3")
    printf '%s\n' "$said" >&3
    [ -z "$state" ] || printf '%s\n' "$said" 2>/dev/null >"$run/run-$role" || :
    exit 1
}

# Text from outside (journal, scripts, apt) may quote a file that others must not read.
withhold_secrets() { # <text
    : >"$work/secrets"
    while read -r number path owner mode; do
        case $mode in *[1-7]) ;; *) tr -d '\000' <"$work/block/$number" >>"$work/secrets" ;; esac
    done <"$work/file"
    # A staged file is called by the name that it is to have.
    sed "s|$staged/|/|g" | awk 'phase == 1 {
            gsub(/^[ \t]+|[ \t\r]+$/, "")
            if (length($0) >= 6) secret[$0]
            key = tolower($0); value = $0
            if (sub(/[=:].*/, "", key) && key ~ /pass|secret|token|key/) {
                sub(/^[^=:]*[=:][ \t]*/, "", value)
                if (value != "") secret[value]
            }
            next
        }
        {
            for (s in secret) if (index($0, s)) { print "(withheld: quotes a protected file)"; next }
            print
        }' phase=1 "$work/secrets" phase=2 -
}

show_output() { tail -n 20 "$work/out" | withhold_secrets | sed 's/^/    /' >&2; }

# What ends in the sign that follows it in `fail` would show it twice.
last_line() {
    grep -v '^[[:space:]]*$' "$work/out" | tail -n 1 | sed 's/[;[:space:]]*$//' | withhold_secrets
}

bounded() { # seconds, command…; ends in time, cannot keep the lock, sees no bundle
    (umask 022; exec timeout -k 10 "$@" </dev/null 3>&- 9>&-)
}

run_script() { # seconds, block; output in $work/out
    SLURMSTACK_FACTS=$work/facts SLURMSTACK_NODE=$node SLURMSTACK_ROLE=$role SLURMSTACK_STAGED=$staged \
        bounded "$1" sh "$work/block/$2" >"$work/out" 2>&1
}

why() { # exit status, seconds
    case $1 in 124 | 137) echo "not done after $2 s$(what_holds)" ;; *) echo "exit $1" ;; esac
}

must_write() { # command…; a failed write is nearly always a full disk
    "$@" 2>"$work/out" && return
    fail "${step:-state}" "cannot write: $(last_line)" \
        "free space on the file system (df -h $base), or make it writable, and run again"
}

clean_up() {
    [ -n "$lock_held" ] || return
    after_failure
    drop_staged
    note_new_packages # now, so that nothing installed later by others is taken for this role's
    restore_policy
    rm -rf "$work" "$run/holder"
}

# ---------------------------------------------------------------- beginning

take_lock() {
    mkdir -p "$run"
    true >>"$run/lock" || fail lock "cannot write $run" 'see that /run is mounted and writable'
    exec 9>>"$run/lock"
    drained=''
    until flock -w "$lock_wait" 9; do
        # Once a node is drained, its run has its whole time again.
        grep -qxF withdrawing "$run/holder" 2>/dev/null && { drained=yes; continue; }
        [ -z "$drained" ] || { drained=''; continue; }
        fail lock \
            "held for more than $lock_wait s by $(cat "$run/holder" 2>/dev/null || echo another run)" \
            'wait until it has ended and run again'
    done
    lock_held=yes
    printf 'process %s\n' "$$" >"$run/holder"
    rm -rf "$work" # of a run that was killed
    mkdir -p "$work/block" || fail lock "cannot create $work" "free space on $run"
    restore_policy
}
