# Units of systemd. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

systemctl_step() { # step, seconds, arguments…
    unit_step=$1 unit_time=$2 step_began=$(date +%s)
    shift 2
    case $1 in
        # A start that is wanted is none of those that systemd counts against a daemon that falls.
        start | restart | try-restart) bounded 20 systemctl reset-failed "$unit" >/dev/null 2>&1 ;;
    esac
    bounded "$unit_time" systemctl "$@" >"$work/out" 2>&1 && return
    status=$?
    [ "$unit_step" != daemon-reload ] || { show_output; fail "$unit_step" "$(why "$status" "$unit_time"): $(last_line)" 'see systemctl status on the node'; }
    unit_failure "$1 $(why "$status" "$unit_time")"
}

unit_failure() { # what was found; beside: unit, step_began
    cp "$work/out" "$work/told"
    bounded 20 journalctl -u "$unit" --since "@${step_began:-0}" -n 40 --no-pager -o cat >"$work/out" 2>&1
    show_output
    words=$(reason "$work/told")
    [ -n "$words" ] || words=$(reason "$work/out")
    [ -n "$words" ] || words=$(grep -v '^[[:space:]]*$' "$work/told" | head -n 1 | withhold_secrets)
    found="$1${words:+: $words}"
    put_back
    fail "unit $unit" "$found${returned:+; put back the last version of$returned}" \
        "see the journal above (journalctl -u $unit), correct the cause and run again"
}

# Of all that was said, what says why: the last lines that speak of an error, else the very last; but
# neither what systemd reports of the unit nor what systemctl advises.
reason() { # file
    grep -v -e '^[[:space:]]*$' -e "^$unit: " -e '^Job for ' -e '^See "systemctl' -e '^To force a start' -e '^followed by ' \
        -e '^\(Start\|Stopp\|Reload\)\(ing\|ed\) ' -e '^Failed to \(start\|reload\) ' -e '^-- ' "$1" | withhold_secrets | awk '
        seen[$0]++ { next }
        { last = $0 }
        tolower($0) ~ /withheld|error|fatal|fail|invalid|cannot|can.t|could not|unable|unknown|denied|refuse|no such|not found|bad |in use|expected/ { chosen[++n] = $0 }
        END {
            if (!n) print last
            for (i = n > 3 ? n - 2 : 1; i <= n; i++) printf "%s%s", chosen[i], i < n ? " | " : "\n"
        }'
}

# What the unit was to take up and could not gives way to the version before: a daemon that goes on
# must not find it at its next start, and one that fell gets its last chance. The next run writes
# the new version again.
put_back() { # beside: unit, time, status; sets returned
    returned=''
    [ -e "$state/pending" ] || return 0
    # By the environment: -v takes the \x2d in the name of a mount for a hyphen.
    unit=$unit awk 'BEGIN { unit = ENVIRON["unit"] } FILENAME ~ /pending$/ { if ($1 == "changed") changed[$2]; next }
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
    [ -n "$returned" ] || return 0
    # What returned is taken up as the new ones were: by a start, where it was begun with them or fell.
    anew=yes
    grep -qsxF -e "$unit" "$work/begun-anew" || ! bounded 20 systemctl is-active -q "$unit" || anew=no
    [ "$anew" = no ] || {
        bounded 20 systemctl reset-failed "$unit" >/dev/null 2>&1
        bounded "$time" systemctl restart "$unit" >/dev/null 2>&1 || :
    }
    # One that has refused them by itself has told nobody.
    grep -qsxF -e "$unit" "$work/others-told" || return 0
    [ "$anew" = yes ] || [ "${status:-}" = 3 ] || return 0
    number=$(unit=$unit awk '$2 == ENVIRON["unit"] { print $1 }' "$work/unit")
    (export SLURMSTACK_RETURNED=yes; run_script "$time" "$number.reload") ||
        returned="$returned, which could not be taken up again ($(last_line))"
}

# → $work/states: `unit load-state active-state unit-file-state sub-state restarts result`, one line
# for each of the bundle; restarts are systemd's own, since the last wanted start.
read_unit_states() {
    awk '{ print $2 }' "$work/unit" | xargs -r -d '\n' timeout 30 systemctl show \
        -p LoadState -p ActiveState -p UnitFileState -p SubState -p NRestarts -p Result -p NeedDaemonReload -- >"$work/shown" 2>"$work/out" ||
        fail units "systemctl show: $(last_line)" 'is systemd running on this node?'
    awk 'BEGIN { RS = ""; FS = "\n" }
        {
            split("", value)
            for (i = 1; i <= NF; i++) { at = index($i, "="); value[substr($i, 1, at - 1)] = substr($i, at + 1) }
            n = split("LoadState ActiveState UnitFileState SubState NRestarts Result", name, " ")
            line = ""
            for (i = 1; i <= n; i++) line = line " " (value[name[i]] == "" ? "-" : value[name[i]])
            print line
        }' "$work/shown" | paste -d' ' "$work/unit" - | awk '{ print $2, $8, $9, $10, $11, $12, $13 }' >"$work/states"
}

apply_units() {
    [ -s "$work/unit" ] || return
    read_unit_states
    # Of a package that says nothing to systemd, or by hand: a start would take the old unit file.
    ! grep -q '^NeedDaemonReload=yes' "$work/shown" || {
        systemctl_step 'daemon-reload' 60 daemon-reload
        read_unit_states
    }
    exec 4<"$work/states"
    while read -r number unit enabled running restart_on _ time; do
        read -r _ load active enablement _ <&4
        apply_unit
    done <"$work/unit"
    exec 4<&-
    [ -n "$rebooted_next" ] || wait_for_units
}

# What is to be done about a unit → enable: enable, disable; turn: start, stop, restart, reload; or
# unfit: why nothing can be.
look_at_unit() { # beside: unit, number, restart_on, load, enabled, enablement, running, active
    enable='' turn='' unfit=''
    read_keys
    case $load:$enabled:$running in
        not-found:*enabled* | not-found:*running*) unfit='not found on the node'; return ;;
        masked:*enabled* | masked:*running*) unfit='is masked'; return ;;
    esac
    case $enabled:$enablement in
        enabled:disabled) enable=enable ;;
        disabled:enabled) enable=disable ;;
    esac
    case $running:$active in
        stopped:active | stopped:activating | stopped:reloading) turn=stop ;;
        running:inactive | running:failed | running:deactivating) turn=start ;;
        *:active | *:reloading | *:activating)
            if is_due restart "$unit" || keys_changed; then turn=restart; elif is_due reload "$unit"; then turn=reload; fi ;;
    esac
}

begin_anew() { # start or restart; beside: unit, time
    echo "$unit" >>"$work/begun-anew"
    systemctl_step "unit $unit" "$time" "$1" "$unit"
}

# A way of its own to take up files tells others of them, too, which a start does not.
tell_others() { # beside: unit, number
    ! is_due reload "$unit" || [ ! -e "$work/block/$number.reload" ] || reload_unit
}

apply_unit() {
    look_at_unit
    case $load:$unfit in
        *:) ;;
        masked:*) fail "unit $unit" "$unfit" "systemctl unmask $unit, if it is to run here" ;;
        *)
            : >"$work/out"
            fail "unit $unit" "$unfit" 'name the package that has it in the bundle, or correct its name' ;;
    esac
    case $enable in
        enable)
            remember "enabled $unit"
            systemctl_step "unit $unit" "$time" enable "$unit"; did "enabled $unit" ;;
        disable) systemctl_step "unit $unit" "$time" disable "$unit"; did "disabled $unit" ;;
    esac
    # The boot starts what is enabled, with all that is there now.
    [ -z "$rebooted_next" ] || turn=''
    case $turn in
        stop) systemctl_step "unit $unit" "$time" stop "$unit"; did "stopped $unit" ;;
        start)
            first=yes
            ! grep -qxF -e "started $unit" "$state/created" || first=''
            remember "started $unit"
            begin_anew start; did "started $unit"
            [ -n "$first" ] || tell_others ;;
        restart)
            begin_anew restart; did "restarted $unit"
            tell_others ;;
        reload) reload_unit ;;
    esac
    replace_state "keys/$unit" "$keys"
    keep_drain_keys
    done_with "unit:$unit"
}

# What the unit is to run with → $work/keys: the bundle's keys, and the versions of the packages that
# it waits for. Another role may have brought a new version along while the old daemon still runs.
read_keys() { # beside: number, restart_on
    keys=$work/keys
    touch "$work/block/$number.keys" "$work/versions"
    {
        cat "$work/block/$number.keys"
        echo "$restart_on" | tr ',' '\n' | sed -n 's/^package://p' | awk 'FILENAME == "-" { named[$1]; next }
            $1 in named { print "package", $1, $2 }' - "$work/versions"
    } | sort >"$keys"
}

keep_drain_keys() { # beside: number, unit
    if [ -e "$work/block/$number.drain" ]; then
        sort -u "$work/block/$number.drain" >"$work/drain-keys"
        replace_state "keys/$unit.drain" "$work/drain-keys"
    else
        rm -f "$state/keys/$unit.drain"
    fi
}

# The first time, keys only matter if the unit runs with files that have just changed.
keys_changed() {
    if [ ! -e "$state/keys/$unit" ]; then
        [ -s "$work/block/$number.keys" ] && is_due reload "$unit"
    elif grep -q '^package ' "$state/keys/$unit" || ! grep -q '^package ' "$keys"; then
        ! sort "$state/keys/$unit" | cmp -s - "$keys"
    else
        # An earlier applier kept no versions: one that was not noted has not changed, and what was
        # kept in its place is no key any more.
        sort "$state/keys/$unit" >"$work/kept-keys"
        [ -n "$(grep -v '^package ' "$keys" | comm -13 "$work/kept-keys" -)" ]
    fi
}

reload_unit() {
    if [ -e "$work/block/$number.reload" ]; then
        echo "$unit" >>"$work/others-told"
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
            read -r _ _ active _ sub restarts result <&4
            : >"$work/out"
            case $running:$active:$sub:$result in
                running:activating:auto-restart*)
                    [ "$restarts" -lt 3 ] || unit_failure "ends after each start, $restarts times by now" ;;
                running:failed:*:start-limit-hit) unit_failure 'ends after each start, so that systemd gave up' ;;
            esac
            case $running:$active in
                running:activating | running:reloading | running:deactivating)
                    [ $(($(date +%s) - began)) -lt "$time" ] || unit_failure "still $active after $time s"
                    waiting=yes ;;
                running:active | stopped:* | -:*) ;;
                *) unit_failure "is $active" ;;
            esac
        done <"$work/unit"
        exec 4<&-
        [ -n "$waiting" ] || return 0
        sleep 1
    done
}
