# Scripts of the bundle: guards, commands, checks; and who is due. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

run_guards() {
    while read -r number name when time; do
        case $when in "$verb" | both) ;; *) continue ;; esac
        (export SLURMSTACK_BUNDLE="$work/bundle"; run_script "$time" "$number") && continue
        status=$?
        show_output
        fail "guard $name" "refused ($(why "$status" "$time")): $(last_line)" \
            'nothing was changed; do what it says and run again'
    done <"$work/guard"
}

# Who is due, from the log of changes since the last whole success: a consumer is due if a path
# of its list changed after it was last done. → lines `daemon-reload`, `command NAME`,
# `restart UNIT`, `reload UNIT` in $work/due
find_due() {
    [ -e "$state/pending" ] || { : >"$work/due"; return; }
    awk '
        function due(consumer, list,   i, n, on) {
            n = split(list, on, ",")
            for (i = 1; i <= n; i++) if (on[i] in changed && changed[on[i]] > done[consumer] + 0) return 1
            return 0
        }
        FILENAME ~ /pending$/ && $1 == "changed" {
            changed[$2] = FNR
            if ($2 ~ /^\/((usr\/)?(local\/)?lib|etc|run)\/systemd\/system\//) unit_file = FNR
            next
        }
        FILENAME ~ /pending$/ { done[$2] = FNR; next }
        FILENAME ~ /command$/ && due("command:" $2, $3) { print "command", $2 }
        FILENAME ~ /unit$/ && due("unit:" $2, $5) { print "restart", $2 }
        FILENAME ~ /unit$/ && due("unit:" $2, $6) { print "reload", $2 }
        END { if (unit_file > done["daemon-reload"] + 0) print "daemon-reload" }' \
        "$state/pending" "$work/command" "$work/unit" >"$work/due"
}

is_due() { grep -qxF -e "$*" "$work/due"; }

# Not synced: if it is lost, something is restarted once too often.
done_with() { [ ! -e "$state/pending" ] || { append_to=$state/pending; must_write append "done $1"; }; }

reload_systemd() {
    is_due daemon-reload || return
    systemctl_step 'daemon-reload' 60 daemon-reload
    done_with daemon-reload
}

# A command runs when something it depends on changed, when its text did, until it succeeds, or when
# its probe finds that what it made is no longer so.
run_commands() { # which: apply or remove
    while read -r number name _ when time units reboots; do
        [ "$when" = "$1" ] || continue
        [ "$1" = remove ] || is_due command "$name" || ! command_done || continue
        rm -f "$state/commands/$name"
        rm -f "$work/facts"
        read_marks "$units" >"$work/marks"
        say "running $name"
        run_script "$time" "$number" || {
            status=$?
            # How far it came nobody knows: what was taken out of use for it is not as it was.
            [ "$1" = remove ] || changed=true
            show_output
            [ "$reboots:$status" = yes:4 ] || {
                found="$(why "$status" "$time"): $(last_line)"
                module_build_failure
                fail "command $name" "$found" 'correct its cause (lines above) and run again'
            }
            rebooted_next=yes
        }
        [ "$1" = remove ] || {
            sha256sum <"$work/block/$number" >"$work/sum"
            [ -e "$work/facts" ] || : >"$work/facts"
            replace_state "facts/$name" "$work/facts"
            replace_state "commands/$name" "$work/sum"
            done_with "command:$name"
        }
        echo "$name" >>"$work/commands"
        did "ran $name"
        tell_marks "$units"
    done <"$work/command"
}

# What tells that systemd, or the daemon itself, began anew: `unit invocation main-process change`.
read_marks() { # units with commas between, or -
    [ "$1" = - ] || echo "$1" | tr ',' '\n' | sort -u | while read -r one; do
        bounded 20 systemctl show -p InvocationID -p MainPID -p StateChangeTimestampMonotonic -- "$one" |
            awk -v unit="$one" -F = '{ value[$1] = $2 }
                END { print unit, value["InvocationID"] "-", value["MainPID"] "-" value["StateChangeTimestampMonotonic"] }'
    done
}

# A command restarts or reloads by itself; which of its daemons it did is for the answer.
tell_marks() { # units with commas between, or -
    [ "$1" != - ] || return 0
    read_marks "$1" | awk 'FILENAME != "-" { invocation[$1] = $2; rest[$1] = $3; next }
        invocation[$1] == "-" || $2 == "-" { next }
        $2 != invocation[$1] { print "restarted", $1; next }
        $3 != rest[$1] { print "reloaded", $1 }' "$work/marks" - >"$work/touched"
    while read -r deed; do did "$deed"; done <"$work/touched"
}

# Whether it ran to its end with this text, and what it made is still so; → found, if not.
command_done() { # beside: name, number
    found='did not run with this text'
    [ "$(sha256sum <"$work/block/$number")" = "$(cat "$state/commands/$name" 2>/dev/null)" ] || return
    probe=$(awk -v name="$name" '$2 == name { print $1 }' "$work/probe")
    [ -n "$probe" ] || return 0
    run_script 60 "$probe" && return
    found="no longer so: $(last_line)"
    say "$name: $found"
    return 1
}

run_checks() {
    : >"$work/facts"
    [ -z "$rebooted_next" ] || return 0
    while read -r number name time; do
        until=$(($(date +%s) + time))
        rm -f "$work/words"
        while
            left=$((until - $(date +%s)))
            [ "$left" -gt 0 ] || left=1
            run_script "$left" "$number"
            status=$?
            [ "$status" != 0 ]
        do
            # The last try is cut off by the end of the time, and may have said nothing by then.
            if grep -q '[^[:space:]]' "$work/out"; then
                cp "$work/out" "$work/words"
            elif [ -e "$work/words" ]; then
                cp "$work/words" "$work/out"
            fi
            [ "$(date +%s)" -lt "$until" ] || {
                show_output
                case $status in 124 | 137) held=$(what_holds) ;; *) held='' ;; esac
                fail "check $name" "not fulfilled within $time s$held: $(last_line)" 'correct the cause (lines above) and run again'
            }
            sleep 1
        done
    done <"$work/check"
}
