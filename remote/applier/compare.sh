# Looking, and changing nothing: what is other than bundles say. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# Any number of bundles, one after the other; a section of the one answer for each. No lock is taken
# and nothing is written but a work folder in memory, which a killed run leaves to the next.
compare_all() {
    scratch=$root/dev/shm/slurmstack-compare
    set +f
    for left in "$scratch".*; do
        [ ! -d "$left" ] || kill -0 "${left##*.}" 2>/dev/null || rm -rf "$left"
    done
    set -f
    scratch=$scratch.$$
    mkdir "$scratch" 2>/dev/null || fail compare "cannot create $scratch" 'see that /dev/shm is mounted and has room'
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 1' INT TERM HUP
    timeout 60 awk -v folder="$scratch" '
        $0 == "slurmstack-bundle 1" { close(file); file = folder "/bundle." ++n }
        { if (!n) { file = folder "/bundle." ++n } print >file }
        END { print n + 0 >(folder "/number") }' || fail compare 'could not be read from stdin' 'run again'
    read -r number <"$scratch/number"
    printf '\nslurmstack-answer 1\ntime %s\nnode %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$node"
    index=0 status=0
    while [ "$index" -lt "$number" ]; do
        index=$((index + 1)) work=$scratch/work
        mkdir "$work" "$work/block"
        # What cannot be read or asked of one role leaves the others be.
        (compare) <"$scratch/bundle.$index" 3>"$scratch/failure" >/dev/null 2>&1 || status=1
        printf 'role %s\n' "$(cat "$work/role" 2>/dev/null || echo -)"
        cat "$work/differences" 2>/dev/null
        sed 's/^slurmstack: [^:]*: /failed /' "$scratch/failure"
        rm -rf "$work" "$scratch/bundle.$index"
    done
    echo 'slurmstack-answer end'
    exit "$status"
}

compare() {
    staged=$work/staged
    : >"$work/differences"
    parse
    read_other_roles
    find_silent_mounts
    compare_role
    compare_users
    compare_packages
    compare_directories
    compare_files
    find_due
    compare_commands
    compare_units
}

differs() { printf 'differs %s %s %s\n' "$1" "$2" "$3" >>"$work/differences"; } # kind, name, words

# What the applier keeps of the role: whether it was applied here, and came to its end.
compare_role() {
    [ -e "$state/manifest" ] || { differs role "$role" 'was not applied to this machine'; return; }
    [ ! -e "$state/pending" ] || differs role "$role" 'was applied, but not to the end'
    sort -u "$work/claims" >"$work/claims.sorted"
    sort -u "$state/manifest" >"$work/held"
    comm -13 "$work/claims.sorted" "$work/held" >"$work/dropped"
    while read -r kind name; do
        differs role "$role" "holds $kind $name, which is not in the bundle"
    done <"$work/dropped"
}

compare_users() {
    while read -r name gid; do
        look_at_group
        [ -z "$found" ] || differs group "$name" "$found"
    done <"$work/group"
    while read -r name uid group home shell; do
        look_at_user
        [ -z "$found" ] || differs user "$name" "$found"
    done <"$work/user"
}

compare_packages() {
    find_missing_packages
    awk 'FILENAME == ARGV[1] { version[$1] = version[$1] (version[$1] == "" ? "" : " ") $2; next }
        { print "differs package", $1, !($1 in version) ? "missing" : version[$1] ", not " $2 }' \
        "$work/versions" "$work/missing" >>"$work/differences"
}

compare_directories() {
    while read -r path owner mode _; do
        look_at_directory
        [ -z "$found" ] || differs directory "$path" "$found"
    done <"$work/directory"
}

compare_files() {
    find_differences
    while read -r kind path number owner mode found; do
        case $kind in
            file)
                differs file "$path" "$(echo "$found" | sed "s/mode=\([0-7]*\)/mode \1, not $mode/
                    s/owner=\([^,]*\)/owner \1, not $owner/; s/no-regular-file/is no regular file/; s/,\([a-z]\)/, \1/g")"
                case $found in content*) show_difference ;; esac
                ;;
            link)
                if [ -L "$root$path" ]; then found="points to $(readlink "$root$path"), not $number"
                elif [ -e "$root$path" ]; then found='is no link'
                else found=missing; fi
                differs link "$path" "$found"
                ;;
            absent) differs absent "$path" 'is there' ;;
        esac
    done <"$work/todo"
}

# Lines of a file that everybody may read, before and after; of no other is a word told.
show_difference() { # beside: path, number, mode
    [ ! -e "$work/hashed" ] || ! grep -qx "$number" "$work/hashed" || return 0
    is=$(stat -c '%a' "$root$path")
    case $mode:$is in *[1-7]:*[1-7]) ;; *) return ;; esac
    diff -u --label deployed --label "$node" "$work/block/$number" "$root$path" 2>/dev/null | tr -d '\000' |
        head -n 200 | withhold_secrets | sed 's/^/  /' >>"$work/differences"
}

compare_commands() {
    while read -r number name _ when _; do
        [ "$when" = apply ] || continue
        command_done || differs command "$name" "$found"
    done <"$work/command"
}

compare_units() {
    [ -s "$work/unit" ] || return 0
    read_unit_states
    exec 4<"$work/states"
    while read -r number unit enabled running restart_on _; do
        read -r _ load active enablement _ <&4
        look_at_unit
        [ -z "$unfit" ] || { differs unit "$unit" "$unfit"; continue; }
        found=''
        case $enable in ?*) found="$enablement, not $enabled" ;; esac
        case $turn in
            start | stop) found="${found:+$found, }$active, not $running" ;;
            restart | reload) found="${found:+$found, }runs with what was there before: a $turn is due" ;;
        esac
        case $active in active | reloading) older_than ;; esac
        [ -z "$found" ] || differs unit "$unit" "$found"
    done <"$work/unit"
    exec 4<&-
}

# Whether what runs is older than what it should run: its files, its program, its unit.
older_than() { # beside: unit, restart_on; adds to found
    bounded 20 systemctl show -p MainPID -p NeedDaemonReload -p ActiveEnterTimestamp -- "$unit" >"$work/shown"
    since=$(sed -n 's/^ActiveEnterTimestamp=//p' "$work/shown")
    pid=$(sed -n 's/^MainPID=//p' "$work/shown")
    older=''
    [ -z "$since" ] || since=$(date -d "$since" +%s)
    for path in $(echo "$restart_on" | tr ',' ' '); do
        case $path in /*) ;; *) continue ;; esac
        changed=$(stat -c %Y "$root$path" 2>/dev/null)
        [ -z "$since" ] || [ "${changed:-0}" -le "$since" ] || older="${older:+$older, }$path"
    done
    case $(readlink "$root/proc/$pid/exe") in *' (deleted)') older="${older:+$older, }its program" ;; esac
    ! grep -q '^NeedDaemonReload=yes' "$work/shown" || older="${older:+$older, }its unit file"
    [ -z "$older" ] || found="${found:+$found, }is older than $older"
}
