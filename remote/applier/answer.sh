# What is said at the end. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# A line for each thing, its kind first; framed, since start-up files of the login shell may print
# what they like before and after. Read by answer.py.
answer() {
    set --
    while read -r _ name _; do
        [ ! -s "$state/facts/$name" ] || set -- "$@" "$state/facts/$name"
    done <"$work/command"
    touch "$work/actions" "$work/commands" "$work/facts" "$work/versions" "$work/states" "$work/hashes" "$work/todo"
    {
        printf '\nslurmstack-answer 1\ntime %s\nnode %s\nrole %s\nchanged %s\n' \
            "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$node" "$role" "$changed"
        awk 'FILENAME ~ /todo$/ { touched[$2]; next } { print "file", $1, $2 in touched ? "changed" : "same", $2 }' \
            "$work/todo" "$work/hashes"
        sed 's/^/package /' "$work/versions"
        awk '{ print "unit", $1, $3 }' "$work/states"
        sed 's/^/command /' "$work/commands"
        sed 's/^/action /' "$work/actions"
        cat "$@" "$work/facts" | sed -n '/[^ \t]/s/^/fact /p'
        echo 'slurmstack-answer end'
    } >"$work/answer"
    cat "$work/answer"
}
