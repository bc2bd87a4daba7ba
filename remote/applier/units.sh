# Units of systemd. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

systemctl_step() { # step, seconds, arguments…
    unit_step=$1 unit_time=$2
    shift 2
    bounded "$unit_time" systemctl "$@" >"$work/out" 2>&1 && return
    status=$?
    [ "$unit_step" != daemon-reload ] || { show_output; fail "$unit_step" "$(why "$status" "$unit_time"): $(last_line)" 'see systemctl status on the node'; }
    unit_failure "$1 $(why "$status" "$unit_time")"
}

unit_failure() { # what was found; beside: unit
    found="$1: $(last_line)"
    bounded 20 journalctl -u "$unit" -n 20 --no-pager -o cat >"$work/out" 2>&1
    show_output
    put_back
    fail "unit $unit" "$found${returned:+; put back the last version of$returned}" \
        "see the journal above (journalctl -u $unit), correct the cause and run again"
}

# What the unit was to take up and could not gives way to the version before: a daemon that goes on
# must not find it at its next start, and one that fell gets its last chance. The next run writes
# the new version again.
put_back() { # beside: unit, time; sets returned
    returned=''
    [ -e "$state/pending" ] || return 0
    awk -v unit="$unit" 'FILENAME ~ /pending$/ { if ($1 == "changed") changed[$2]; next }
        $2 == unit { n = split($5 "," $6, on, ","); for (i = 1; i <= n; i++) if (on[i] in changed && on[i] ~ /^\//) print on[i] }' \
        "$state/pending" "$work/unit" | sort -u >"$work/put-back"
    replace_state staging "$work/put-back"
    while read -r path; do
        [ -f "$state/previous$path" ] || continue
        temporary_name "$root$path"
        must_write cp -a "$state/previous$path" "$temporary"
        must_write sync "$temporary"
        must_write mv -fT "$temporary" "$root$path"
        returned="$returned $path"
    done <"$work/put-back"
    [ -z "$returned" ] || bounded 20 systemctl is-active -q "$unit" ||
        bounded "$time" systemctl restart "$unit" >/dev/null 2>&1 || :
}

# → $work/states: `unit load-state active-state unit-file-state`, one line for each of the bundle
read_unit_states() {
    awk '{ print $2 }' "$work/unit" | xargs -r timeout 30 systemctl show \
        -p LoadState -p ActiveState -p UnitFileState -- >"$work/shown" 2>"$work/out" ||
        fail units "systemctl show: $(last_line)" 'is systemd running on this node?'
    awk 'BEGIN { RS = ""; FS = "\n" }
        {
            split("", value)
            for (i = 1; i <= NF; i++) { at = index($i, "="); value[substr($i, 1, at - 1)] = substr($i, at + 1) }
            print value["LoadState"] "," value["ActiveState"] "," value["UnitFileState"]
        }' "$work/shown" | paste -d' ' "$work/unit" - | awk '{ print $2, $8 }' | tr ',' ' ' >"$work/states"
}

apply_units() {
    [ -s "$work/unit" ] || return
    read_unit_states
    exec 4<"$work/states"
    while read -r number unit enabled running _ _ time; do
        read -r _ load active enablement <&4
        apply_unit
    done <"$work/unit"
    exec 4<&-
    wait_for_units
}

apply_unit() {
    keys=$work/block/$number.keys
    [ -e "$keys" ] || : >"$keys"
    case $load:$enabled:$running in
        not-found:*enabled* | not-found:*running*)
            : >"$work/out"
            fail "unit $unit" 'not found on the node' 'name the package that has it in the bundle, or correct its name' ;;
        masked:*enabled* | masked:*running*)
            fail "unit $unit" 'is masked' "systemctl unmask $unit, if it is to run here" ;;
    esac
    case $enabled:$enablement in
        enabled:disabled)
            remember "enabled $unit"
            systemctl_step "unit $unit" "$time" enable "$unit"; did "enabled $unit" ;;
        disabled:enabled) systemctl_step "unit $unit" "$time" disable "$unit"; did "disabled $unit" ;;
    esac
    case $running:$active in
        stopped:active | stopped:activating | stopped:reloading)
            systemctl_step "unit $unit" "$time" stop "$unit"; did "stopped $unit" ;;
        running:inactive | running:failed | running:deactivating)
            remember "started $unit"
            [ "$active" != failed ] || bounded 20 systemctl reset-failed "$unit" 2>/dev/null
            systemctl_step "unit $unit" "$time" start "$unit"; did "started $unit" ;;
        *:active | *:reloading | *:activating)
            if is_due restart "$unit" || keys_changed; then
                systemctl_step "unit $unit" "$time" restart "$unit"; did "restarted $unit"
            elif is_due reload "$unit"; then
                reload_unit
            fi ;;
    esac
    replace_state "keys/$unit" "$keys"
    done_with "unit:$unit"
}

# The first time, keys only matter if the unit runs with files that have just changed.
keys_changed() {
    if [ -e "$state/keys/$unit" ]; then
        ! cmp -s "$keys" "$state/keys/$unit"
    else
        [ -s "$keys" ] && is_due reload "$unit"
    fi
}

reload_unit() {
    if [ -e "$work/block/$number.reload" ]; then
        run_script "$time" "$number.reload" || { status=$?; unit_failure "reload $(why "$status" "$time")"; }
        show_output
    else
        systemctl_step "unit $unit" "$time" reload "$unit"
    fi
    did "reloaded $unit"
}

# Those that are to run do run now; systemd may still be at it (an automatic restart).
wait_for_units() {
    began=$(date +%s)
    while :; do
        read_unit_states
        waiting=''
        exec 4<"$work/states"
        while read -r _ unit _ running _ _ time; do
            read -r _ _ active _ <&4
            case $running:$active in
                running:activating | running:reloading | running:deactivating)
                    [ $(($(date +%s) - began)) -lt "$time" ] || unit_failure "still $active after $time s"
                    waiting=yes ;;
                running:active | stopped:* | -:*) ;;
                *) : >"$work/out"; unit_failure "is $active" ;;
            esac
        done <"$work/unit"
        exec 4<&-
        [ -n "$waiting" ] || return 0
        sleep 1
    done
}
