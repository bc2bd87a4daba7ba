#!/bin/sh
# slurmstack applier: makes this node what a bundle on stdin says (`apply`), or takes it back
# (`remove`). What a bundle is, what is kept where and why: remote/README.md.
#
# Rules that hold throughout:
#  - Nothing is changed before the whole bundle is understood, and what is intended is on disk
#    before it is done, so that the next run can finish what a crash interrupted.
#  - Paths and names are of a narrow set of characters (checked in `parse`), so lists of them
#    may be split on white space; file contents are only ever passed from file to file.
#  - A function that cannot go on calls `fail`; the EXIT trap cleans up.
#
# Some functions are only named (trap, must_write), and dpkg-query's formats have a $ of their own:
# shellcheck disable=SC2016,SC2329
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
run=$root/run/slurmstack base=$root/var/lib/slurmstack work=$run/work
policy=$root/usr/sbin/policy-rc.d
lock_wait=${SLURMSTACK_LOCK_WAIT:-1800} package_time=${SLURMSTACK_PACKAGE_TIME:-1800}
verb=${1:-} node=$(uname -n) role=- state='' lock_held='' changed=false

# ---------------------------------------------------------------- speaking and failing

say() { printf '%s\n' "$node: $role: $*" >&2 2>/dev/null || :; }

did() { changed=true; printf '%s\n' "$*" >>"$work/actions"; say "$*"; }

fail() { # step, what was found, remedy
    printf 'slurmstack: %s: %s: %s; %s\n' "$node" "$1" "$2" "$3" >&3
    exit 1
}

# Text from outside (journal, scripts, apt) may quote a file that others must not read.
withhold_secrets() { # <text
    : >"$work/secrets"
    while read -r number path owner mode; do
        case $mode in *[1-7]) ;; *) tr -d '\000' <"$work/block/$number" >>"$work/secrets" ;; esac
    done <"$work/file"
    awk 'phase == 1 {
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

last_line() { grep -v '^[[:space:]]*$' "$work/out" | tail -n 1 | withhold_secrets; }

bounded() { # seconds, command…; ends in time, cannot keep the lock, sees no bundle
    (umask 022; exec timeout -k 10 "$@" </dev/null 3>&- 9>&-)
}

run_script() { # seconds, block; output in $work/out
    SLURMSTACK_FACTS=$work/facts SLURMSTACK_NODE=$node SLURMSTACK_ROLE=$role \
        bounded "$1" sh "$work/block/$2" >"$work/out" 2>&1
}

why() { # exit status, seconds
    case $1 in 124 | 137) echo "not done after $2 s" ;; *) echo "exit $1" ;; esac
}

must_write() { # command…; a failed write is nearly always a full disk
    "$@" 2>"$work/out" && return
    fail "${step:-state}" "cannot write: $(last_line)" \
        "free space on the file system (df -h $base), or make it writable, and run again"
}

clean_up() {
    [ -n "$lock_held" ] || return
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
    flock -w "$lock_wait" 9 || fail lock \
        "held for more than $lock_wait s by $(cat "$run/holder" 2>/dev/null || echo another run)" \
        'wait until it has ended and run again'
    lock_held=yes
    printf 'process %s\n' "$$" >"$run/holder"
    rm -rf "$work" # of a run that was killed
    mkdir -p "$work/block" || fail lock "cannot create $work" "free space on $run"
    restore_policy
}

# Splits the bundle into a list for each kind and a file for each block, or says what is wrong.
parse() {
    timeout 60 cat >"$work/bundle" ||
        fail bundle 'could not be read from stdin' "free space on $run and run again"
    awk -v work="$work" '
    function bad(why) { printf "line %d: %s\n", NR, why; failed = 1; exit 1 }
    function path(p) {
        if (p !~ /^\/[A-Za-z0-9._\/@:%+=~-]+$/ || (p "/") ~ /\/\.?\.?\//)
            bad("not a plain absolute path: " p)
        return p
    }
    function own_path(p) { once("path", path(p)); held[p]; return p }
    function name(n) { if (n !~ /^[A-Za-z0-9_][A-Za-z0-9._@:+-]*$/) bad("not a name: " n); return n }
    function owner(o) { if (o !~ /^[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+$/) bad("not owner:group: " o); return o }
    function mode(m) { if (m !~ /^[0-7][0-7][0-7][0-7]$/) bad("not a mode of four digits: " m); return m }
    function number(n) { if (n !~ /^(-|[0-9]+)$/) bad("not a number: " n); return n }
    function one_of(w, all) { if (!index(" " all " ", " " w " ")) bad(w " is none of: " all); return w }
    function once(kind, what) { if ((kind, what) in seen) bad("twice: " what); seen[kind, what] }
    function fields(low, high) { if (NF < low || NF > high) bad("wrong number of words: " $1) }
    function attributes(first, allowed,   i, key) {
        split("", value)
        for (i = first; i <= NF; i++) {
            key = $i; sub(/=.*/, "", key)
            if (!index(" " allowed " ", " " key " ") || key == $i) bad("not understood: " $i)
            value[key] = substr($i, length(key) + 2)
        }
    }
    function attribute(key, otherwise) { return key in value && value[key] != "" ? value[key] : otherwise }
    function seconds(otherwise,   s) {
        s = attribute("timeout", otherwise)
        if (s !~ /^[1-9][0-9]*$/) bad("not a number of seconds: " s)
        return s
    }
    function triggers(key) { wanted[NR " " key] = attribute(key, ""); return attribute(key, "-") }
    function put(kind, line) { print line >(work "/" kind) }
    function claim(kind, what) { put("claims", kind " " what) }
    function block() { out = work "/block/" NR; printf "" >out }
    BEGIN {
        kinds = split("claims guard package group user directory file link absent command unit check", kind)
        for (i = 1; i <= kinds; i++) printf "" >(work "/" kind[i])
    }
    ended { bad("text after the end") }
    NR == 1 { if ($0 != "slurmstack-bundle 1") bad("not a bundle of version 1"); next }
    out && in_unit && /^  restart-key ./ { print substr($0, 15) >(out ".keys"); next }
    out && in_unit && /^  reload ./ { print substr($0, 10) >(out ".reload"); next }
    out && in_unit && /^( |$)/ { bad("not understood in a unit: " $0) }
    out && /^(  |$)/ { print substr($0, 3) >out; next }
    /^( |$)/ { bad("a line of a block that no line before it opens") }
    out { close(out); close(out ".keys"); close(out ".reload"); out = ""; in_unit = 0 }
    $1 == "node" && NF == 2 { once("the word", "node"); print name($2) >(work "/node"); next }
    $1 == "role" && NF == 2 {
        once("the word", "role")
        if ($2 !~ /^[a-z0-9][a-z0-9-]*$/) bad("not a role: " $2)
        print $2 >(work "/role"); next
    }
    $1 == "guard" {
        fields(2, 4); once("guard", name($2)); attributes(3, "timeout when"); block()
        put("guard", NR " " $2 " " one_of(attribute("when", "apply"), "apply remove both") " " seconds(30)); next
    }
    $1 == "package" {
        fields(2, 3); once("package", $2); held["package:" $2]
        if ($2 !~ /^[a-z0-9][a-z0-9+.-]+$/) bad("not a package: " $2)
        if (NF == 3 && $3 !~ /^[0-9A-Za-z][A-Za-z0-9.+:~-]*$/) bad("not a version: " $3)
        put("package", $2 " " (NF == 3 ? $3 : "-")); claim("package", $2); next
    }
    $1 == "group" { fields(2, 3); once("group", name($2)); put("group", $2 " " number(NF == 3 ? $3 : "-")); next }
    $1 == "user" {
        fields(6, 6); once("user", name($2)); name($4)
        if ($5 != "-") path($5); if ($6 != "-") path($6)
        put("user", $2 " " number($3) " " $4 " " $5 " " $6); next
    }
    $1 == "directory" {
        fields(4, 5); if (NF == 5) one_of($5, "ephemeral")
        put("directory", own_path($2) " " owner($3) " " mode($4) " " (NF == 5 ? $5 : "-"))
        claim("directory", $2); next
    }
    $1 == "file" || $1 == "file-base64" {
        fields(4, 4); block()
        put("file", NR " " own_path($2) " " owner($3) " " mode($4)); claim("path", $2)
        if ($1 == "file-base64") print NR >(work "/encoded"); next
    }
    $1 == "link" { fields(3, 3); if ($3 !~ /^[A-Za-z0-9._\/@:%+=~-]+$/) bad("not a target: " $3)
        put("link", own_path($2) " " $3); claim("path", $2); next }
    $1 == "absent" { fields(2, 2); put("absent", own_path($2)); claim("path", $2); next }
    $1 == "command" {
        fields(2, 5); once("command", name($2)); attributes(3, "on timeout when"); block()
        put("command", NR " " $2 " " triggers("on") " " one_of(attribute("when", "apply"), "apply remove") " " seconds(600))
        next
    }
    $1 == "unit" {
        fields(4, 7); once("unit", name($2)); attributes(5, "restart-on reload-on timeout"); block(); in_unit = 1
        if ($2 !~ /\.(service|socket|timer|target|mount|path)$/) bad("not a unit: " $2)
        put("unit", NR " " $2 " " one_of($3, "enabled disabled -") " " one_of($4, "running stopped -") \
            " " triggers("restart-on") " " triggers("reload-on") " " seconds(90)); claim("unit", $2); next
    }
    $1 == "check" { fields(2, 3); once("check", name($2)); attributes(3, "timeout"); block()
        put("check", NR " " $2 " " seconds(60)); next }
    $0 == "end" { ended = 1; next }
    { bad("not understood: " $1) }
    END {
        if (failed) exit 1
        if (!ended) bad("the bundle ends before its last line (was the connection cut?)")
        if (!(("the word", "node") in seen && ("the word", "role") in seen)) bad("no node or role")
        for (w in wanted) {
            n = split(wanted[w], on, ",")
            for (i = 1; i <= n; i++) if (!(on[i] in held)) bad(substr(w, index(w, " ") + 1) "=" on[i] " is not in this bundle")
        }
    }' "$work/bundle" >"$work/out" 2>&1 || {
        read -r node <"$work/node" 2>/dev/null
        fail bundle "not understood, nothing was changed: $(head -n 1 "$work/out")" \
            'correct the bundle, or update the applier of this node (role node)'
    }
    read -r node <"$work/node"
    read -r role <"$work/role"
    state=$base/$role
    printf 'process %s (%s of role %s)\n' "$$" "$verb" "$role" >"$run/holder"
    [ ! -e "$work/encoded" ] || while read -r number; do
        base64 -d "$work/block/$number" >"$work/decoded" 2>/dev/null ||
            fail bundle "line $number: not base64, nothing was changed" 'correct the bundle'
        mv "$work/decoded" "$work/block/$number"
    done <"$work/encoded"
}

# What other roles on this node hold, as lines `role kind name`.
read_other_roles() {
    : >"$work/others"
    set +f
    for manifest in "$base"/*/manifest; do
        other=${manifest%/manifest} other=${other##*/}
        [ "$other" = "$role" ] || [ ! -e "$manifest" ] || sed "s/^/$other /" "$manifest" >>"$work/others"
    done
    set -f
    awk 'FILENAME == ARGV[1] { if ($2 == "path") holder[$3] = $1; next }
        $1 == "path" && $2 in holder { print $2 " is held by role " holder[$2]; exit }' \
        "$work/others" "$work/claims" >"$work/out"
    [ ! -s "$work/out" ] || [ "$verb" = remove ] ||
        fail bundle "$(cat "$work/out"), nothing was changed" 'leave each path to one role, and run again once that role has let it go'
}

held_by_others() { cut -d' ' -f2- "$work/others" | grep -qxF -e "$1 $2"; } # kind, name

open_state() {
    step=state
    must_write mkdir -p "$state/original" "$state/previous" "$state/commands" "$state/facts" "$state/keys"
    [ -e "$state/created" ] || must_write touch "$state/created"
    [ -e "$state/manifest" ] || must_write touch "$state/manifest"
    drop_staged
    # Until the end, this role holds both what it held before and what it is to hold.
    sort -u "$work/claims" >"$work/claims.sorted"
    sort -u "$work/claims" "$state/manifest" >"$work/claims.both"
    replace_state manifest "$work/claims.both"
    comm -13 "$work/claims.sorted" "$work/claims.both" >"$work/dropped"
}

replace_state() { # name in the state folder, new content
    cmp -s "$2" "$state/$1" && return
    must_write cp "$2" "$state/$1.new"
    must_write sync "$state/$1.new"
    must_write mv -f "$state/$1.new" "$state/$1"
}

append_state() { # name in the state folder, line
    append_to="$state/$1"
    must_write append "$2"
    must_write sync "$append_to"
}

append() { printf '%s\n' "$1" >>"$append_to"; }

remember() { grep -qxF -e "$1" "$state/created" || append_state created "$1"; }

forget() {
    grep -vxF -e "$1" "$state/created" >"$work/created"
    replace_state created "$work/created"
}

run_guards() {
    while read -r number name when time; do
        case $when in "$verb" | both) ;; *) continue ;; esac
        run_script "$time" "$number" && continue
        status=$?
        show_output
        fail "guard $name" "refused ($(why "$status" "$time")): $(last_line)" \
            'nothing was changed; do what it says and run again'
    done <"$work/guard"
}

# ---------------------------------------------------------------- users and packages

apply_users() {
    while read -r name gid; do
        step="group $name" present=$(bounded 20 getent group "$name" | cut -d: -f3)
        case $present in
            "$gid") continue ;;
            '') ;;
            *) [ "$gid" = - ] && continue
                fail "$step" "exists with gid $present, not $gid" "groupmod -g $gid $name, and give its files to it" ;;
        esac
        if [ "$gid" = - ]; then set --; else set -- -g "$gid"; fi
        bounded 60 groupadd --system "$@" "$name" >"$work/out" 2>&1 ||
            fail "$step" "groupadd: $(last_line)" 'correct it on the node and run again'
        did "created group $name"
    done <"$work/group"
    while read -r name uid group home shell; do
        step="user $name" present=$(bounded 20 getent passwd "$name")
        gid=$(bounded 20 getent group "$group" | cut -d: -f3)
        [ -n "$gid" ] || fail "$step" "its group $group does not exist" 'declare the group in the bundle'
        if [ -z "$present" ]; then
            set -- useradd --system -M -g "$group"
            [ "$uid" = - ] || set -- "$@" -u "$uid"
            [ "$home" = - ] || set -- "$@" -d "$home"
            [ "$shell" = - ] || set -- "$@" -s "$shell"
            deed="created user $name"
        else
            IFS=: read -r _ _ number primary _ directory login <<END
$present
END
            [ "$uid" = - ] || [ "$uid" = "$number" ] || fail "$step" "exists with uid $number, not $uid" \
                "usermod -u $uid $name while it runs nothing, and give its files to it"
            set -- usermod
            [ "$gid" = "$primary" ] || set -- "$@" -g "$group"
            [ "$home" = - ] || [ "$home" = "$directory" ] || set -- "$@" -d "$home"
            [ "$shell" = - ] || [ "$shell" = "$login" ] || set -- "$@" -s "$shell"
            [ $# -gt 1 ] || continue
            deed="changed user $name"
        fi
        bounded 60 "$@" "$name" >"$work/out" 2>&1 ||
            fail "$step" "$1: $(last_line)" 'correct it on the node and run again'
        did "$deed"
    done <"$work/user"
}

# Packages of the bundle that are not installed, whole and at the wanted version → $work/missing.
find_missing_packages() {
    cut -d' ' -f1 "$work/package" | xargs -r dpkg-query -W \
        -f '${db:Status-Status} ${Package} ${Version}\n' 2>/dev/null |
        awk '$1 == "installed" { print $2, $3 }' >"$work/versions"
    awk 'FILENAME == ARGV[1] { version[$1] = version[$1] " " $2 " "; next }
        !($1 in version) || ($2 != "-" && !index(version[$1], " " $2 " "))' \
        "$work/versions" "$work/package" >"$work/missing"
}

list_installed() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' | awk '$1 == "installed" { print $2 }' | sort -u
}

# Of the missing packages, those that apt's lists do not offer → $work/unavailable.
find_unavailable_packages() {
    cut -d' ' -f1 "$work/missing" | xargs -r timeout 60 apt-cache policy 2>/dev/null | awk '
        /^[^ ].*:$/ { name = substr($1, 1, length($1) - 1); table = 0 }
        $1 == "Candidate:" && $2 != "(none)" { print name, "-" }
        /^  Version table:/ { table = 1; next }
        table && /^ (\*\*\*|   ) [^ ]/ { print name, $(NF - 1) }' >"$work/offered"
    awk 'FILENAME == ARGV[1] { offered[$1, $2]; all[$1] = $2 == "-" ? all[$1] : all[$1] " " $2; next }
        !(($1, $2) in offered) { print $1 ($2 == "-" ? "" : " " $2 " (there is:" (all[$1] ? all[$1] : " none") ")") }' \
        "$work/offered" "$work/missing" >"$work/unavailable"
}

# apt-get and dpkg; waits for their locks, and tells the usual troubles apart.
package_tool() { # step, command…
    step=$1
    shift
    until=$(($(date +%s) + ${SLURMSTACK_DPKG_WAIT:-300}))
    while :; do
        bounded "$package_time" "$@" >"$work/out" 2>&1 && return
        status=$?
        lock=$(grep -E 'Could not get lock|lock was locked by|Unable to (acquire|lock)' "$work/out" | head -n 1)
        [ -n "$lock" ] || break
        if [ "$(date +%s)" -ge "$until" ]; then
            holder=$(echo "$lock" | sed -n 's/.*process \(with pid \)\{0,1\}\([0-9][0-9]*\).*/\2/p')
            command=$(cat "/proc/${holder:-none}/comm" 2>/dev/null)
            fail "$step" "dpkg is locked${holder:+ by process $holder}${command:+ ($command)}: $lock" \
                'wait until it has ended, or end it, and run again'
        fi
        sleep 1
    done
    return "$status"
}

apt_get() { # step, arguments…
    tool_step=$1
    shift
    package_tool "$tool_step" apt-get -y -q -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
        -o Dpkg::Options::=--force-confdef -o "DPkg::Lock::Timeout=${SLURMSTACK_DPKG_WAIT:-300}" "$@"
}

package_failure() { # step
    show_output
    found=$(grep -m 1 'No space left' "$work/out" || grep -m 1 -E '^(E|dpkg): ' "$work/out")
    case $(cat "$work/out") in
        *'No space left'* | *'enough free space'*) remedy='free space on / and /var and run again' ;;
        *'Failed to fetch'* | *'Could not resolve'* | *'Could not connect'*)
            remedy='see that the node reaches its package mirror (apt-get update) and run again' ;;
        *'held packages'*) remedy='see apt-mark showhold and the lines above' ;;
        *) remedy='see the lines above, correct it on the node (apt-get install -f) and run again' ;;
    esac
    fail "$1" "${found:-failed with exit $status}" "$remedy"
}

update_package_lists() {
    say 'updating package lists'
    apt_get 'package lists' update || package_failure 'package lists'
    lists_updated=yes
}

apply_packages() {
    note_new_packages
    [ -s "$work/package" ] || return
    find_missing_packages
    [ -s "$work/missing" ] || return
    append_state pending "$(sed 's/^\([^ ]*\) .*/changed package:\1/' "$work/missing")"
    forbid_daemon_starts
    list_installed >"$work/before"
    replace_state packages-before "$work/before"
    finish_interrupted_dpkg
    find_missing_packages
    [ ! -s "$work/missing" ] || install_missing
    note_new_packages
    restore_policy
    find_missing_packages
    [ ! -s "$work/missing" ] || fail 'packages' "apt-get was content, but not installed: $(tr '\n' ' ' <"$work/missing")" \
        'name real packages (not virtual ones) at versions that can stand together'
}

finish_interrupted_dpkg() {
    [ -z "$(ls -A "$root/var/lib/dpkg/updates" 2>/dev/null)" ] &&
        ! dpkg-query -W -f '${db:Status-Status}\n' | grep -qE '^(unpacked|half-|triggers-)' && return
    package_tool 'dpkg --configure -a' dpkg --force-confold --force-confdef --configure -a ||
        package_failure 'dpkg --configure -a'
    did 'finished an interrupted package installation'
}

install_missing() {
    lists_updated=''
    find_unavailable_packages
    if [ -s "$work/unavailable" ]; then
        update_package_lists
        find_unavailable_packages
        [ ! -s "$work/unavailable" ] || fail "package $(head -n 1 "$work/unavailable")" \
            "not in the package lists of this node: $(tr '\n' ' ' <"$work/unavailable")" \
            'correct its name or version, or give the node a package source that has it'
    fi
    specs=$(awk '{ print $1 ($2 == "-" ? "" : "=" $2) }' "$work/missing" | tr '\n' ' ')
    say "installing $specs"
    # shellcheck disable=SC2086 # a list of package names
    set -- install --no-install-recommends --allow-downgrades -- $specs
    apt_get packages "$@" || {
        # Lists may be older than what the mirror holds now.
        if [ -n "$lists_updated" ] || ! grep -q 'Failed to fetch' "$work/out"; then package_failure packages; fi
        update_package_lists
        apt_get packages "$@" || package_failure packages
    }
    did "installed $specs"
}

# Which packages came with the installation, asked for or not: exactly these go with the role.
note_new_packages() {
    [ -n "$state" ] && [ -e "$state/packages-before" ] || return 0
    list_installed | comm -13 "$state/packages-before" - | sed 's/^/package /' >"$work/new"
    cat "$state/created" "$work/new" | awk '!seen[$0]++' >"$work/created"
    replace_state created "$work/created"
    must_write rm "$state/packages-before"
}

# No daemon may start before its configuration is there. The policy only speaks while this very
# run is alive; after a crash it lets everything pass to the one it stands in front of.
forbid_daemon_starts() {
    step='package policy'
    [ ! -e "$policy" ] || must_write mv -f "$policy" "$policy.before-slurmstack"
    must_write mkdir -p "${policy%/*}"
    cat >"$work/policy" <<END || fail "$step" 'cannot write' "free space on $run"
#!/bin/sh
# slurmstack: forbids package scripts to start daemons while process $$ installs packages
kill -0 $$ 2>/dev/null && grep -q '^process $$ ' '$run/holder' 2>/dev/null && exit 101
[ ! -x '$policy.before-slurmstack' ] || exec '$policy.before-slurmstack' "\$@"
exit 0
END
    must_write chmod 0755 "$work/policy"
    must_write cp -p "$work/policy" "$policy.slurmstack-new"
    must_write mv -f "$policy.slurmstack-new" "$policy"
}

restore_policy() {
    [ ! -e "$policy.slurmstack-new" ] || rm -f "$policy.slurmstack-new"
    [ ! -e "$policy" ] || ! grep -q '^# slurmstack:' "$policy" || rm -f "$policy"
    [ ! -e "$policy.before-slurmstack" ] || mv -f "$policy.before-slurmstack" "$policy"
}

# ---------------------------------------------------------------- directories, files, links

apply_directories() {
    while read -r path owner mode _; do
        target=$root$path step="directory $path"
        if [ ! -d "$target" ]; then
            [ ! -e "$target" ] && [ ! -L "$target" ] ||
                fail "$step" 'is there, but not as a directory' 'move it away and run again'
            remember "directory $path"
            must_write mkdir "$target"
        else
            # shellcheck disable=SC2046 # five words
            set -- $(stat -L -c '%a %U %G %u %g' "$target")
            owner_matches "$owner" "$2:$3" "$4:$5" && [ $((0$1)) -eq $((0$mode)) ] && continue
            grep -q -e "^directory $path\$" -e "^mode [^ ]* [^ ]* $path\$" "$state/created" ||
                append_state created "mode $1 $4:$5 $path"
        fi
        set_owner "$owner" "$target"
        must_write chmod "$mode" "$target"
        did "directory $path"
    done <"$work/directory"
}

owner_matches() { # wanted, by name, by number
    [ "$may_chown" = no ] || [ "$1" = "$2" ] || [ "$1" = "$3" ]
}

set_owner() { # owner:group, path
    [ "$may_chown" = no ] && return
    chown -h "$1" "$2" 2>"$work/out" ||
        fail "$step" "owner $1 cannot be set: $(last_line)" 'declare the user and group, or the package that makes them'
}

# Files, links and paths to be absent that are not as they should be → $work/todo, as lines
# `kind path block owner mode`; links point to what stands in the place of the block.
find_differences() {
    : >"$work/todo"
    awk -v root="$root" '{ print root $2 }' "$work/file" | xargs -r stat -c '%A %a %U:%G %u:%g %n' \
        >"$work/stat" 2>/dev/null
    hash_files >"$work/hashes"
    awk -v work="$work" '{ print work "/block/" $1 }' "$work/file" | xargs -r sha256sum >"$work/wanted" ||
        fail files 'cannot be read back' "free space on $run"
    awk -v root="$root" -v chown="$may_chown" -v n="$((${#root} + 1))" '
        FILENAME ~ /stat$/ { path = substr($5, n); mode[path] = $2; owner[path] = $3; number[path] = $4; next }
        FILENAME ~ /hashes$/ { hash[$2] = $1; next }
        FILENAME ~ /wanted$/ { sub(/.*\//, "", $2); wanted[$2] = $1; next }
        {
            want = $4; sub(/^0+/, "", want); if (want == "") want = "0"
            if (hash[$2] != wanted[$1] || mode[$2] != want || (chown != "no" && owner[$2] != $3 && number[$2] != $3))
                print "file", $2, $1, $3, $4
        }' "$work/stat" "$work/hashes" "$work/wanted" "$work/file" >>"$work/todo"
    while read -r path to; do
        [ -L "$root$path" ] && [ "$(readlink "$root$path")" = "$to" ] || echo "link $path $to - -" >>"$work/todo"
    done <"$work/link"
    while read -r path; do
        [ ! -e "$root$path" ] && [ ! -L "$root$path" ] || echo "absent $path - - -" >>"$work/todo"
    done <"$work/absent"
}

# `sha256 path` of each regular file of the bundle that is there, as read from the disk.
hash_files() {
    awk -v root="$root" '{ print root $2 }' "$work/file" | while read -r target; do
        [ -L "$target" ] || [ ! -f "$target" ] || echo "$target"
    done | xargs -r sha256sum | awk -v n="$((${#root} + 1))" '{ print $1, substr($2, n) }'
}

temporary_name() { temporary=${1%/*}/.${1##*/}.slurmstack-new; } # target

# First everything is written beside its place and the old version kept, so that a full disk
# stops the run while nothing has changed; then all is renamed at once.
apply_files() {
    find_differences
    while read -r kind name; do
        [ "$kind" != path ] || held_by_others path "$name" || echo "drop $name - - -" >>"$work/todo"
    done <"$work/dropped"
    [ -s "$work/todo" ] || return
    awk '{ print $2 }' "$work/todo" >"$work/staging"
    replace_state staging "$work/staging"
    : >"$work/sync"
    : >"$work/remember"
    while read -r kind path number owner mode; do
        [ "$kind" = drop ] || stage "$kind" "$root$path"
    done <"$work/todo"
    step=files
    must_write xargs -r sync <"$work/sync"
    [ ! -s "$work/remember" ] || append_state created "$(cat "$work/remember")"
    append_state pending "$(awk '{ print "changed " $2 }' "$work/todo")"
    while read -r kind path _; do
        step="$kind $path"
        case $kind in
            absent) must_write rm -f "$root$path"; did "removed $path" ;;
            drop) take_back "$path" ;;
            *) temporary_name "$root$path"; must_write mv -fT "$temporary" "$root$path"; did "wrote $path" ;;
        esac
    done <"$work/todo"
    awk -v root="$root" '{ sub(/\/[^\/]*$/, "", $2); d = root $2; print d == "" ? "/" : d }' "$work/todo" |
        sort -u | while read -r folder; do [ ! -d "$folder" ] || echo "$folder"; done | xargs -r sync
    rm -f "$state/staging"
}

stage() { # kind, target; beside: path, number, owner, mode
    step="$1 $path" folder=${2%/*}
    [ -d "${folder:-/}" ] ||
        fail "$step" "its directory ${path%/*} does not exist" 'declare the directory in the bundle'
    [ -L "$2" ] || [ ! -d "$2" ] || fail "$step" 'is a directory' 'move it away and run again'
    temporary_name "$2"
    must_write rm -f "$temporary"
    case $1 in
        file)
            must_write write_new "$work/block/$number" "$temporary"
            set_owner "$owner" "$temporary"
            must_write chmod "$mode" "$temporary"
            echo "$temporary" >>"$work/sync"
            ;;
        link) must_write ln -s "$number" "$temporary" ;;
    esac
    keep_previous "$2"
}

write_new() { (set -C; cat "$1" >"$2"); } # noclobber: never through a link put there meanwhile

# What stood there last is kept in previous/; what stood there before slurmstack in original/.
keep_previous() { # target
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then
        grep -qxF -e "path $path" "$state/created" || echo "path $path" >>"$work/remember"
    else
        keep "$1" "$state/previous$path"
        grep -qxF -e "path $path" "$state/created" || [ -e "$state/original$path" ] ||
            [ -L "$state/original$path" ] || keep "$1" "$state/original$path"
    fi
}

keep() { # from, to
    must_write mkdir -p "${2%/*}"
    must_write rm -f "$2.new"
    must_write cp -a "$1" "$2.new"
    [ -L "$2.new" ] || must_write sync "$2.new"
    must_write mv -fT "$2.new" "$2"
}

drop_staged() {
    [ -n "$state" ] && [ -e "$state/staging" ] || return 0
    while read -r path; do temporary_name "$root$path"; rm -f "$temporary"; done <"$state/staging"
    rm -f "$state/staging"
}

# The way back for one path: what stood there before slurmstack, or nothing.
take_back() { # path
    temporary_name "$root$1"
    if [ -e "$state/original$1" ] || [ -L "$state/original$1" ]; then
        must_write rm -f "$temporary"
        must_write cp -a "$state/original$1" "$temporary"
        must_write mv -fT "$temporary" "$root$1"
        rm -f "$state/original$1"
        did "restored $1"
    elif grep -qxF -e "path $1" "$state/created"; then
        if [ -e "$root$1" ] || [ -L "$root$1" ]; then
            must_write rm -f "$root$1"
            did "removed $1"
        fi
        forget "path $1"
    fi
}

# ---------------------------------------------------------------- commands, units, checks

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
        FILENAME ~ /unit$/ && due("unit:" $2, $5) { print "restart", $2; next }
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

# A command runs when something it depends on changed, when its text did, or until it succeeds.
run_commands() { # which: apply or remove
    while read -r number name _ when time; do
        [ "$when" = "$1" ] || continue
        sum=$(sha256sum <"$work/block/$number")
        [ "$1" = remove ] || is_due command "$name" || [ "$sum" != "$(cat "$state/commands/$name" 2>/dev/null)" ] || continue
        rm -f "$state/commands/$name"
        rm -f "$work/facts"
        say "running $name"
        run_script "$time" "$number" || {
            status=$?
            show_output
            fail "command $name" "$(why "$status" "$time"): $(last_line)" 'correct its cause (lines above) and run again'
        }
        [ "$1" = remove ] || {
            echo "$sum" >"$work/sum"
            [ -e "$work/facts" ] || : >"$work/facts"
            replace_state "facts/$name" "$work/facts"
            replace_state "commands/$name" "$work/sum"
            done_with "command:$name"
        }
        echo "$name" >>"$work/commands"
        did "ran $name"
    done <"$work/command"
}

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

run_checks() {
    : >"$work/facts"
    while read -r number name time; do
        until=$(($(date +%s) + time))
        while left=$((until - $(date +%s))); [ "$left" -gt 0 ] || left=1; ! run_script "$left" "$number"; do
            [ "$(date +%s)" -lt "$until" ] || {
                show_output
                fail "check $name" "not fulfilled within $time s: $(last_line)" 'correct the cause (lines above) and run again'
            }
            sleep 1
        done
    done <"$work/check"
}

# ---------------------------------------------------------------- the answer

answer() {
    set --
    while read -r _ name _; do
        [ ! -s "$state/facts/$name" ] || set -- "$@" "$state/facts/$name"
    done <"$work/command"
    touch "$work/actions" "$work/commands" "$work/facts" "$work/versions" "$work/states" "$work/hashes" "$work/todo"
    cat "$@" "$work/facts" >"$work/all-facts"
    awk -v node="$node" -v role="$role" -v changed="$changed" -v work="$work" '
        function quoted(s,   i, c, r) {
            r = ""
            for (i = 1; i <= length(s); i++) {
                c = substr(s, i, 1)
                if (c == "\"" || c == "\\") c = "\\" c
                else if (c < " ") c = sprintf("\\u%04x", code[c])
                r = r c
            }
            return "\"" r "\""
        }
        function next_line(name,   more) { more = (getline line <(work "/" name)) > 0; split(line, word, " "); return more }
        function member(key, value) { json = json (first ? "" : ", ") quoted(key) ": " value; first = 0 }
        function list(name,   r) { r = ""; while (next_line(name)) r = r (r == "" ? "" : ", ") quoted(line); return "[" r "]" }
        BEGIN {
            for (i = 1; i < 32; i++) code[sprintf("%c", i)] = i
            while (next_line("todo")) touched[word[2]] = 1
            first = 1; json = ""
            while (next_line("hashes")) member(word[2], "{\"sha256\": " quoted(word[1]) ", \"changed\": " \
                (word[2] in touched ? "true" : "false") "}")
            files = json
            first = 1; json = ""
            while (next_line("versions")) member(word[1], quoted(word[2]))
            packages = json
            first = 1; json = ""
            while (next_line("states")) member(word[1], quoted(word[3]))
            units = json
            while (next_line("all-facts")) if (word[1] != "") {
                key = word[1]; sub(/^[ \t]*[^ \t]+[ \t]*/, "", line)
                if (!(key in fact)) order[++facts] = key
                fact[key] = line
            }
            first = 1; json = ""
            for (i = 1; i <= facts; i++) member(order[i], quoted(fact[order[i]]))
            printf "{\"node\": %s, \"role\": %s, \"changed\": %s, \"files\": {%s}, \"packages\": {%s}, \"units\": {%s}, ", \
                quoted(node), quoted(role), changed, files, packages, units
            printf "\"commands\": %s, \"actions\": %s, \"facts\": {%s}}\n", list("commands"), list("actions"), json
        }'
}

# ---------------------------------------------------------------- the way back

stop_unit() { # unit: stop and disable what this role started and enabled
    unit=$1 time=90
    if held_by_others unit "$unit"; then return; fi
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
    while read -r unit; do stop_unit "$unit"; rm -f "$state/keys/$unit"; done <"$work/dropped-units"
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
    if held_by_others directory "$1"; then return; fi
    step="directory $1"
    if grep -qxF -e "directory $1" "$state/created"; then
        if [ "$2" = ephemeral ]; then
            must_write rm -rf --one-file-system "$root$1"
            did "removed $1"
        elif rmdir "$root$1" 2>/dev/null; then
            did "removed $1"
        fi
        forget "directory $1"
    else
        sed -n "s|^mode \([^ ]*\) \([^ ]*\) $1\$|\1 \2|p" "$state/created" >"$work/mode"
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
    { sed -n 's/^package //p' "$state/created"; cat "$base/kept-packages" 2>/dev/null; } | sort -u >"$work/candidates"
    [ -s "$work/candidates" ] || return
    list_installed | comm -12 - "$work/candidates" >"$work/ours"
    awk '$2 == "package" { print $3 }' "$work/others" | sort -u >"$work/claimed"
    comm -23 "$work/ours" "$work/claimed" >"$work/free"
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

# ---------------------------------------------------------------- the two verbs

apply() {
    run_guards
    open_state
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
    drop_directories
    replace_state manifest "$work/claims.sorted"
    rm -f "$state/pending"
    hash_files >"$work/hashes"
    answer
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
        remove_directory "$path" "$(awk -v path="$path" '$1 == path { print $4 }' "$work/directory")"
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

main() {
    case $verb in apply | remove) ;; *) fail usage "'$verb' is neither apply nor remove" 'apply <bundle' ;; esac
    may_chown=yes
    [ "$(id -u)" = 0 ] || {
        [ -n "$root" ] || fail start "runs as $(id -un), not as root" 'connect as root'
        may_chown=no
    }
    trap clean_up EXIT
    trap 'fail "${step:-start}" "stopped by a signal at a clean point" "run again to finish"' INT TERM
    take_lock
    parse
    read_other_roles
    case $verb in apply) apply ;; remove) remove ;; esac
}

main
exit
# end of applier
