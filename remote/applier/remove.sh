# The way back: of what a newer bundle leaves out, and of a whole role. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# What this role remembers of a thing that others hold, too (that it made or started it, or its mode
# before) is for one of them to remember: whoever goes last takes it back.
leave() { # kind, name
    name=$2 awk '$1 ~ /^(directory|mode|started|enabled)$/ && $NF == ENVIRON["name"]' "$state/created" >"$work/left"
    append_to=$base/$(kind=$1 name=$2 awk '$2 == ENVIRON["kind"] && $3 == ENVIRON["name"] { print $1; exit }' "$work/others")/created
    while read -r line; do
        grep -qxF -e "$line" "$append_to" || must_write append "$line"
        must_write sync "$append_to"
        forget "$line"
    done <"$work/left"
}

stop_unit() { # unit: stop and disable what this role started and enabled
    unit=$1 time=90
    if held_by_others unit "$unit"; then
        leave unit "$unit"
        return
    fi
    if grep -qxF -e "started $unit" "$state/created"; then
        if bounded 20 systemctl is-active -q "$unit"; then systemctl_step "unit $unit" "$time" stop "$unit"; did "stopped $unit"; fi
        forget "started $unit"
    fi
    if grep -qxF -e "enabled $unit" "$state/created"; then
        if bounded 20 systemctl is-enabled -q "$unit" 2>/dev/null; then systemctl_step "unit $unit" "$time" disable "$unit"; did "disabled $unit"; fi
        forget "enabled $unit"
    fi
}

drop_units() {
    sed -n 's/^unit //p' "$work/dropped" >"$work/dropped-units"
    while read -r unit; do stop_unit "$unit"; rm -f "$state/keys/$unit" "$state/keys/$unit.drain"; done <"$work/dropped-units"
}

# What is no longer asked for counts as never done: it may come back to a node that has changed.
drop_commands() {
    awk '$4 == "apply" { print $2 }' "$work/command" | sort >"$work/asked-for"
    find "$state/commands" "$state/facts" -mindepth 1 -printf '%f\n' | sort -u | comm -23 - "$work/asked-for" >"$work/dropped-commands"
    while read -r name; do
        must_write rm -f "$state/commands/$name" "$state/facts/$name"
    done <"$work/dropped-commands"
}

drop_directories() {
    sed -n 's/^directory //p' "$work/dropped" | sort -r >"$work/dropped-directories"
    while read -r path; do remove_directory "$path" -; done <"$work/dropped-directories"
}

remove_directory() { # path, - or ephemeral
    step="directory $1"
    if held_by_others directory "$1"; then
        leave directory "$1"
        return
    fi
    if grep -qxF -e "directory $1" "$state/created"; then
        if [ "$2" = ephemeral ]; then
            must_write rm -rf --one-file-system "$root$1"
            did "removed $1"
        elif rmdir "$root$1" 2>/dev/null; then
            did "removed $1"
        fi
        forget "directory $1"
    else
        path=$1 awk '$1 == "mode" && $4 == ENVIRON["path"] { print $2, $3 }' "$state/created" >"$work/mode"
        while read -r mode owner; do
            [ ! -d "$root$1" ] || { set_owner "$owner" "$root$1"; must_write chmod "$mode" "$root$1"; did "restored $1"; }
            forget "mode $mode $owner $1"
        done <"$work/mode"
    fi
}

# What came with this role's packages goes, except what anything that stays still needs: apt
# itself says what that is. What is kept so is left to the next role that goes.
remove_packages() {
    note_new_packages
    : >"$work/asked-for"
    drop_unfinished_packages
    # One that neither asked for any nor brought any leaves all others as they were needed.
    grep -q '^package ' "$state/manifest" "$state/created" || return 0
    { sed -n 's/^package //p' "$state/created"; cat "$base/kept-packages" 2>/dev/null; } | sort -u >"$work/candidates"
    [ -s "$work/candidates" ] || return
    list_installed | comm -12 - "$work/candidates" >"$work/ours"
    awk '$2 == "package" { print $3 }' "$work/others" | sort -u >"$work/claimed"
    comm -23 "$work/ours" "$work/claimed" >"$work/free"
    : >"$work/replaced"
    finish_interrupted_dpkg
    if [ -s "$work/free" ]; then
        list_installed | comm -12 - "$work/claimed" >"$work/stays"
        mark manual "$work/stays"
        mark auto "$work/free"
        apt_get packages -s -o APT::AutoRemove::RecommendsImportant=false -o APT::AutoRemove::SuggestsImportant=false \
            autoremove || package_failure packages
        awk '$1 == "Remv" || $1 == "Purg" { print $2 }' "$work/out" | sort -u | comm -12 - "$work/free" >"$work/purge"
        if [ -s "$work/purge" ]; then
            # shellcheck disable=SC2046 # a list of package names
            apt_get packages purge -- $(cat "$work/purge") || package_failure packages
            did "purged $(tr '\n' ' ' <"$work/purge")"
        fi
    fi
    list_installed | comm -12 - "$work/ours" >"$work/kept"
    if [ -s "$work/kept" ]; then
        must_write cp "$work/kept" "$base/kept-packages.new"
        must_write mv -f "$base/kept-packages.new" "$base/kept-packages"
    else
        rm -f "$base/kept-packages"
    fi
}

mark() { # auto or manual, file with names
    xargs -r timeout 60 apt-mark "$1" -- <"$2" >"$work/out" 2>&1 || { status=$?; package_failure packages; }
}

# What ran before this role came goes on, with the files it had then.
restart_what_goes_on() {
    awk 'FILENAME == ARGV[1] { back[$1]; next }
        { n = split($5 "," $6, on, ","); for (i = 1; i <= n; i++) if (on[i] in back) { print $2, $7; next } }' \
        "$work/to-take-back" "$work/unit" >"$work/going-on"
    while read -r unit time; do
        held_by_others unit "$unit" && continue
        bounded 20 systemctl is-active -q "$unit" || continue
        systemctl_step "unit $unit" "$time" try-restart "$unit"; did "restarted $unit"
    done <"$work/going-on"
}

remove() {
    [ -d "$state" ] || { answer; return; }
    : >"$work/claims"
    run_guards
    find_silent_mounts
    open_state
    run_commands remove
    sed -n -e 's/^started //p' -e 's/^enabled //p' "$state/created" | sort -u >"$work/touched-units"
    awk '{ print $2 }' "$work/unit" | tac | cat - "$work/touched-units" | awk '!seen[$0]++' >"$work/to-stop"
    while read -r unit; do stop_unit "$unit"; done <"$work/to-stop"
    { sed -n 's/^path //p' "$state/created"; (cd "$state/original" && find . ! -type d | sed 's/^\.//'); } | sort -ur >"$work/to-take-back"
    replace_state staging "$work/to-take-back"
    while read -r path; do step="file $path"; take_back "$path"; done <"$work/to-take-back"
    remove_packages
    sed -n -e 's/^directory //p' -e 's/^mode [^ ]* [^ ]* //p' "$state/created" | sort -r >"$work/folders"
    while read -r path; do
        remove_directory "$path" "$(path=$path awk '$1 == ENVIRON["path"] { print $4 }' "$work/directory")"
    done <"$work/folders"
    if [ -s "$work/unit" ] || grep -q '/systemd/system/' "$work/to-take-back"; then
        systemctl_step daemon-reload 60 daemon-reload
    fi
    restart_what_goes_on
    mv "$state" "$base/.removed" && rm -rf "$base/.removed"
    : >"$work/file"
    : >"$work/command"
    answer
}
