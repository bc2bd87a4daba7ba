# The verbs. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

apply() {
    run_guards
    find_silent_mounts
    open_state
    withdraw
    apply_users
    drop_units
    drop_commands
    apply_packages
    apply_directories
    apply_files
    find_due
    reload_systemd
    run_commands apply
    apply_units
    run_checks
    give_back
    drop_directories
    replace_state manifest "$work/claims.sorted"
    keep_applied
    rm -f "$state/pending"
    hash_files >"$work/hashes"
    answer
}

main() {
    case $verb in apply | remove | compare) ;; *) fail usage "'$verb' is none of apply, remove, compare" 'apply <bundle' ;; esac
    may_chown=yes
    [ "$(id -u)" = 0 ] || {
        [ -n "$root" ] || fail start "runs as $(id -un), not as root" 'connect as root'
        may_chown=no
    }
    [ "$verb" != compare ] || compare_all
    trap clean_up EXIT
    trap 'fail "${step:-start}" "stopped by a signal at a clean point" "run again to finish"' INT TERM
    take_lock
    parse
    echo 2>/dev/null >"$run/run-$role" || : # for who asks at the end whether it was begun
    printf 'process %s (%s of role %s)\n' "$$" "$verb" "$role" >"$run/holder"
    read_other_roles
    case $verb in apply) apply ;; remove) remove ;; esac
}

main
exit
# end of applier
