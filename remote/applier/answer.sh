# What is said at the end. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

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
