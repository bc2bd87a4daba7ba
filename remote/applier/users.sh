# Groups and users. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

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
