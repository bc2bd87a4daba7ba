# Taking the node out of use before a change that its work must not meet, and giving it back. Part of
# the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# What is about to change that a unit is not to meet at work → $work/withdraw-for, a line each. A
# unit that no role has applied yet has no work.
find_withdrawal() {
    : >"$work/withdraw-for"
    [ -s "$work/withdraw" ] || return 0
    find_differences
    find_missing_packages
    {
        awk '{ print $2 }' "$work/todo"
        sed 's/^\([^ ]*\) .*/package:\1/' "$work/missing"
        [ ! -e "$state/pending" ] || sed -n 's/^changed //p' "$state/pending"
    } | sort -u >"$work/changing"
    while read -r number unit on; do
        [ -e "$state/keys/$unit" ] || continue
        # A unit that asks for it no more.
        [ "$on" != - ] || [ -e "$work/block/$number.drain" ] || continue
        echo "$on" | tr ',' '\n' | sort -u | comm -12 - "$work/changing" >>"$work/withdraw-for"
        # A line that was a restart-key before, or is one now, says nothing new.
        cat "$work/block/$number.keys" "$work/block/$number.drain" 2>/dev/null | sort -u >"$work/keys-now"
        cat "$state/keys/$unit" "$state/keys/$unit.drain" 2>/dev/null | sort -u >"$work/keys-before"
        {
            sort -u "$work/block/$number.drain" 2>/dev/null | comm -23 - "$work/keys-before"
            sort -u "$state/keys/$unit.drain" 2>/dev/null | comm -23 - "$work/keys-now"
        } >>"$work/withdraw-for"
    done <"$work/drain"
    read -r _ _ _ on unit <"$work/withdraw"
    [ "$on" = - ] || ! applied_by_others "$unit" ||
        echo "$on" | tr ',' '\n' | sort -u | comm -12 - "$work/changing" >>"$work/withdraw-for"
}

applied_by_others() { # unit
    unit=$1 awk '$2 == "unit" && $3 == ENVIRON["unit"] { print $1 }' "$work/others" >"$work/holders"
    while read -r other; do [ ! -e "$base/$other/keys/$1" ] || return 0; done <"$work/holders"
    return 1
}

service() { # out, back, unchanged or failed
    # No shell of its own: killed, this one must leave nothing that holds its lock.
    read -r service_number _ service_time _ <"$work/withdraw"
    SLURMSTACK_SERVICE=$1 SLURMSTACK_PROCESS=$$ SLURMSTACK_BUNDLE=$work/bundle
    export SLURMSTACK_SERVICE SLURMSTACK_PROCESS SLURMSTACK_BUNDLE
    run_script "$service_time" "$service_number"
}

withdraw() {
    withdrawn=''
    find_withdrawal
    [ -s "$work/withdraw" ] || return 0
    read -r _ name _ <"$work/withdraw"
    # Of a run that was killed, or failed: given back when this one has done its work.
    [ ! -e "$state/withdrawn" ] || withdrawn=before
    [ -s "$work/withdraw-for" ] || return 0
    step=state
    replace_state withdrawn "$work/withdraw-for"
    withdrawn=${withdrawn:-now}
    reasons=$(tr '\n' ' ' <"$work/withdraw-for")
    say "withdrawing for $reasons"
    echo withdrawing >>"$run/holder" # it may take long: others wait
    status=0
    service out || status=$?
    [ "$status" != 4 ] || {
        # It need not.
        sed -i '/^withdrawing$/d' "$run/holder"
        [ "$withdrawn" = before ] || { withdrawn=''; must_write rm -f "$state/withdrawn"; }
        return 0
    }
    [ "$status" = 0 ] || {
        show_output
        fail "withdraw $name" "refused (exit $status): $(last_line)" \
            'nothing was changed; do what it says and run again'
    }
    sed -i '/^withdrawing$/d' "$run/holder"
    echo "withdrew for ${reasons% }" >>"$work/actions"
}

give_back() {
    [ -n "$withdrawn" ] || return 0
    service back || {
        status=$?
        [ "$status" != 4 ] || {
            # Another role does, when more has been done.
            withdrawn=''
            must_write rm -f "$state/withdrawn"
            return
        }
        show_output
        fail "withdraw $name" "not given back (exit $status): $(last_line)" \
            'correct the cause (lines above) and run again'
    }
    withdrawn=''
    must_write rm -f "$state/withdrawn"
    did "gave back"
}

# A run that fails says so, and whether nothing has changed since the node was withdrawn.
after_failure() {
    [ -n "${withdrawn:-}" ] || return 0
    ! packages_changed || changed=true
    if [ "$withdrawn:$changed" = now:false ]; then
        service unchanged && rm -f "$state/withdrawn"
    else
        service failed
    fi
    show_output
}
