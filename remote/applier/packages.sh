# Packages. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

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

# With those that dpkg has not come to the end of.
list_present() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' |
        awk '$1 != "not-installed" && $1 != "config-files" { print $2 }' | sort -u
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
    module_build_failure
    case $(cat "$work/out") in
        *'/make.log'*) remedy='no kernel module was built: see make.log on the node; correct its cause, or set the version before back, and run again' ;;
        *'No space left'* | *'enough free space'*) remedy='free space on / and /var and run again' ;;
        *'Failed to fetch'* | *'Could not resolve'* | *'Could not connect'*)
            remedy='see that the node reaches its package mirror (apt-get update) and run again' ;;
        *'held packages'*) remedy='see apt-mark showhold and the lines above' ;;
        *) remedy='see the lines above, correct it on the node (apt-get install -f) and run again' ;;
    esac
    fail "$1" "${found:-failed with exit $status}" "$remedy"
}

# A kernel module that DKMS could not build: its own words, and the compiler's (dkms(8)).
module_build_failure() { # adds to found
    log=$(sed -n 's/^.*[Cc]onsult \(\/[^ ]*\/make\.log\).*/\1/p' "$work/out" | head -n 1)
    [ -n "$log" ] || return 0
    words=$(grep -m 1 '^Error! ' "$work/out")
    # What a compiler says at its very end (`all warnings being treated as errors`) is no cause.
    reason=$(grep -E '(^|[ :])error: ' "$root$log" 2>/dev/null | tail -n 1)
    [ -n "$reason" ] || reason=$(grep -iE 'error|not found|no such file' "$root$log" 2>/dev/null | grep -v '^make' | tail -n 1)
    found="$words ($log${reason:+: $reason}); $found"
}

update_package_lists() {
    say 'updating package lists'
    apt_get 'package lists' update || package_failure 'package lists'
    lists_updated=yes
}

packages_are() { dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' 2>/dev/null | sha256sum; }

# Whether the run has changed any, also where it did not come to its end.
packages_changed() { [ -n "${packages_were:-}" ] && [ "$packages_were" != "$(packages_are)" ]; }

apply_packages() {
    note_new_packages
    cut -d' ' -f1 "$work/package" >"$work/asked-for"
    drop_unfinished_packages
    [ -s "$work/package" ] || return
    find_missing_packages
    [ -s "$work/missing" ] || return
    append_state pending "$(sed 's/^\([^ ]*\) .*/changed package:\1/' "$work/missing")"
    forbid_daemon_starts
    packages_were=$(packages_are)
    list_present >"$work/before"
    replace_state packages-before "$work/before"
    find_replaced_packages
    finish_interrupted_dpkg
    find_missing_packages
    [ ! -s "$work/missing" ] || install_missing
    note_new_packages
    restore_policy
    find_missing_packages
    [ ! -s "$work/missing" ] || fail 'packages' "apt-get was content, but not installed: $(tr '\n' ' ' <"$work/missing")" \
        'name real packages (not virtual ones) at versions that can stand together'
}

# Packages that are to have another version than the one that is there → $work/replaced.
find_replaced_packages() {
    cut -d' ' -f1 "$work/missing" | xargs -r dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' 2>/dev/null |
        awk 'FILENAME != "-" { if ($2 != "-") wanted[$1] = $2; next }
            $1 != "not-installed" && $1 != "config-files" && ($2 in wanted) && $3 != wanted[$2] { print $2 }' "$work/missing" - |
        sort -u >"$work/replaced"
}

finish_interrupted_dpkg() {
    [ -z "$(ls -A "$root/var/lib/dpkg/updates" 2>/dev/null)" ] &&
        ! dpkg-query -W -f '${db:Status-Status}\n' | grep -qE '^(unpacked|half-|triggers-)' && return
    package_tool 'dpkg --configure -a' dpkg --force-confold --force-confdef --configure -a || {
        # What cannot be configured gives way to another version of it, if that is what is wanted.
        find_newer_packages
        unfinished_packages | grep -qvxF -f "$work/replaced" && package_failure 'dpkg --configure -a'
        say "$(unfinished_packages | tr '\n' ' ')cannot be configured, and is to be replaced"
        return 0
    }
    did 'finished an interrupted package installation'
}

# Unfinished ones that are wanted at any version: what the sources offer by now → $work/replaced.
find_newer_packages() {
    awk '$2 == "-" { print $1 }' "$work/missing" 2>/dev/null | sort >"$work/any-version"
    unfinished_packages | comm -12 - "$work/any-version" >"$work/stuck"
    [ -s "$work/stuck" ] || return 0
    cp "$work/out" "$work/words"
    # Where no source answers, what dpkg said is still what is wrong.
    apt_get 'package lists' update || :
    cp "$work/words" "$work/out"
    xargs -r timeout 60 apt-cache policy <"$work/stuck" 2>/dev/null | awk '
        /^[^ ].*:$/ { name = substr($1, 1, length($1) - 1) }
        $1 == "Installed:" { installed = $2 }
        $1 == "Candidate:" && $2 != "(none)" && $2 != installed { print name }' >>"$work/replaced"
}

# What came with this role, could not be configured, and is asked for by nobody any more goes: dpkg
# would try it again, in vain, before whatever is installed later. Beside: $work/asked-for.
drop_unfinished_packages() {
    [ -e "$state/unfinished" ] || return 0
    unfinished_packages >"$work/unfinished"
    awk '$2 == "package" { print $3 }' "$work/others" | sort -u - "$work/asked-for" >"$work/claimed"
    sed -n 's/^package //p' "$state/created" | sort -u | comm -12 - "$work/unfinished" | comm -23 - "$work/claimed" >"$work/purge"
    if [ -s "$work/purge" ]; then
        # dpkg, which takes nothing else with them.
        # shellcheck disable=SC2046 # a list of package names
        package_tool packages dpkg --purge -- $(cat "$work/purge") || package_failure packages
        did "purged $(tr '\n' ' ' <"$work/purge")"
    fi
    note_unfinished_packages
}

# Whether any that came with this role is unfinished.
note_unfinished_packages() {
    sed -n 's/^package //p' "$state/created" | sort -u >"$work/ours"
    unfinished_packages | comm -12 - "$work/ours" >"$work/unfinished"
    if [ -s "$work/unfinished" ]; then replace_state unfinished "$work/unfinished"; else must_write rm -f "$state/unfinished"; fi
}

unfinished_packages() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^\(unpacked\|half-[a-z]*\|triggers-[a-z]*\) //p' | sort
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
    list_present | comm -13 "$state/packages-before" - | sed 's/^/package /' >"$work/new"
    cat "$state/created" "$work/new" | awk '!seen[$0]++' >"$work/created"
    replace_state created "$work/created"
    note_unfinished_packages
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
