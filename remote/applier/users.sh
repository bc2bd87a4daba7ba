# Groups and users. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# What is other than wanted → found; nothing where all is as it should be.
look_at_group() { # beside: name, gid
    found='' present=$(bounded 20 getent group "$name" | cut -d: -f3)
    case $present in
        '') found=missing ;;
        "$gid") ;;
        *) [ "$gid" = - ] || found="exists with gid $present, not $gid" ;;
    esac
}

# → found, changes: what usermod is to be told; fixed: a number, which no run changes.
look_at_user() { # beside: name, uid, group, home, shell
    found='' changes='' fixed='' present=$(bounded 20 getent passwd "$name")
    [ -n "$present" ] || { found=missing; return; }
    IFS=: read -r _ _ number primary _ directory login <<END
$present
END
    [ "$uid" = - ] || [ "$uid" = "$number" ] || {
        found="exists with uid $number, not $uid" fixed=yes
        return
    }
    other_group=$(bounded 20 getent group "$group" | cut -d: -f3)
    [ "$other_group" = "$primary" ] || user_differs -g "$group" "group $primary, not $group"
    [ "$home" = - ] || [ "$home" = "$directory" ] || user_differs -d "$home" "home $directory, not $home"
    [ "$shell" = - ] || [ "$shell" = "$login" ] || user_differs -s "$shell" "shell $login, not $shell"
}

user_differs() { changes="$changes $1 $2" found="${found:+$found, }$3"; } # option, value, words

apply_users() {
    while read -r name gid; do
        step="group $name"
        look_at_group
        case $found in
            '') continue ;;
            missing) ;;
            *) fail "$step" "$found" "groupmod -g $gid $name, and give its files to it" ;;
        esac
        if [ "$gid" = - ]; then set --; else set -- -g "$gid"; fi
        bounded 60 groupadd --system "$@" "$name" >"$work/out" 2>&1 ||
            fail "$step" "groupadd: $(last_line)" 'correct it on the node and run again'
        did "created group $name"
    done <"$work/group"
    while read -r name uid group home shell; do
        step="user $name"
        bounded 20 getent group "$group" >"$work/out" ||
            fail "$step" "its group $group does not exist" 'declare the group in the bundle'
        look_at_user
        [ -n "$found" ] || continue
        [ -z "$fixed" ] || fail "$step" "$found" \
            "usermod -u $uid $name while it runs nothing, and give its files to it"
        if [ "$found" = missing ]; then
            set -- useradd --system -M -g "$group"
            [ "$uid" = - ] || set -- "$@" -u "$uid"
            [ "$home" = - ] || set -- "$@" -d "$home"
            [ "$shell" = - ] || set -- "$@" -s "$shell"
            deed="created user $name"
        else
            # shellcheck disable=SC2086 # options and plain names
            set -- usermod $changes
            deed="changed user $name"
        fi
        bounded 60 "$@" "$name" >"$work/out" 2>&1 ||
            fail "$step" "$1: $(last_line)" 'correct it on the node and run again'
        did "$deed"
    done <"$work/user"
}
