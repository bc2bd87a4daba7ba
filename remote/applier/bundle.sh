# What the bundle says: read and checked. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# Splits the bundle into a list for each kind and a file for each block, or says what is wrong.
parse() {
    timeout 60 cat >"$work/bundle" ||
        fail bundle 'could not be read from stdin' "free space on $run and run again"
    awk -v work="$work" -v verb="$verb" '
    function bad(why) { printf "line %d: %s\n", NR, why; failed = 1; exit 1 }
    function path(p) {
        if (p !~ /^\/[A-Za-z0-9._\/@:%+=~\\-]+$/ || (p "/") ~ /\/\.?\.?\//)
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
    function units(list,   i, n, one) {
        gsub(/^,+|,+$/, "", list); n = split(list, one, ",")
        for (i = 1; i <= n; i++) unit(one[i])
        return n ? list : "-"
    }
    function unit(u) {
        if (u !~ /^[A-Za-z0-9_][A-Za-z0-9._@:+\\-]*\.(service|socket|timer|target|mount|path)$/) bad("not a unit: " u)
    }
    function put(kind, line) { print line >(work "/" kind) }
    function claim(kind, what) { put("claims", kind " " what) }
    function block() { out = work "/block/" NR; printf "" >out }
    BEGIN {
        kinds = split("claims withdraw drain guard package group user directory file link absent validate probe command unit check", kind)
        for (i = 1; i <= kinds; i++) printf "" >(work "/" kind[i])
    }
    ended { bad("text after the end") }
    NR == 1 { if ($0 != "slurmstack-bundle 1") bad("not a bundle of version 1"); next }
    out && in_unit && /^  restart-key ./ { print substr($0, 15) >(out ".keys"); next }
    out && in_unit && /^  drain-key ./ { print substr($0, 13) >(out ".drain"); next }
    out && in_unit && /^  reload ./ { print substr($0, 10) >(out ".reload"); next }
    out && in_unit && /^( |$)/ { bad("not understood in a unit: " $0) }
    out && /^(  |$)/ { print substr($0, 3) >out; next }
    /^( |$)/ { bad("a line of a block that no line before it opens") }
    out { close(out); close(out ".keys"); close(out ".drain"); close(out ".reload"); out = ""; in_unit = 0 }
    $1 == "node" && NF == 2 { once("the word", "node"); print name($2) >(work "/node"); next }
    $1 == "role" && NF == 2 {
        once("the word", "role")
        if ($2 !~ /^[a-z0-9][a-z0-9-]*$/) bad("not a role: " $2)
        print $2 >(work "/role"); next
    }
    # Makes another text of the same bundle, and asks for nothing more.
    $1 == "reapply" && NF == 2 { once("the word", "reapply"); name($2); next }
    $1 == "guard" {
        fields(2, 4); once("guard", name($2)); attributes(3, "timeout when"); block()
        put("guard", NR " " $2 " " one_of(attribute("when", "apply"), "apply remove both") " " seconds(30)); next
    }
    $1 == "withdraw" {
        fields(2, 5); once("the word", "withdraw"); name($2); attributes(3, "on unit timeout"); block()
        if (("on" in value) != ("unit" in value)) bad("on= and unit= stand together")
        if ("unit" in value) unit(value["unit"])
        put("withdraw", NR " " $2 " " seconds(3600) " " triggers("on") " " attribute("unit", "-")); next
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
        fields(4, 6)
        for (i = 5; i <= NF; i++) once("word of directory " $2, one_of($i, "ephemeral parents"))
        put("directory", own_path($2) " " owner($3) " " mode($4) " " \
            (/ ephemeral( |$)/ ? "ephemeral" : "-") " " (/ parents( |$)/ ? "parents" : "-"))
        claim("directory", $2); next
    }
    # Of a content only its hash is known: enough to compare, and for nothing else.
    $1 == "file-sha256" && verb != "compare" { bad("a hash in the place of a content") }
    $1 == "file" || $1 == "file-base64" || $1 == "file-sha256" {
        fields(4, 5); if (NF == 5) one_of($5, "lasting"); block()
        put("file", NR " " own_path($2) " " owner($3) " " mode($4)); claim(NF == 5 ? "lasting" : "path", $2)
        if ($1 == "file-base64") print NR >(work "/encoded")
        if ($1 == "file-sha256") print NR >(work "/hashed")
        next
    }
    $1 == "link" { fields(3, 3); if ($3 !~ /^[A-Za-z0-9._\/@:%+=~-]+$/) bad("not a target: " $3)
        put("link", own_path($2) " " $3); claim("path", $2); next }
    $1 == "absent" { fields(2, 2); put("absent", own_path($2)); claim("path", $2); next }
    $1 == "validate" {
        fields(3, 4); once("validate", name($2)); attributes(3, "on timeout"); block()
        put("validate", NR " " $2 " " triggers("on") " " seconds(60)); next
    }
    $1 == "probe" { fields(2, 2); once("probe", name($2)); block(); put("probe", NR " " $2); next }
    $1 == "command" {
        fields(2, 8); once("command", name($2)); attributes(3, "on timeout when restarts reloads reboots"); block()
        one_of(attribute("reboots", "yes"), "yes")
        put("command", NR " " $2 " " triggers("on") " " one_of(attribute("when", "apply"), "apply remove") " " \
            seconds(600) " " units(attribute("restarts", "") "," attribute("reloads", "")) " " attribute("reboots", "-"))
        next
    }
    $1 == "unit" {
        fields(4, 8); once("unit", $2); attributes(5, "restart-on reload-on drain-on timeout"); block(); in_unit = 1; unit($2)
        put("unit", NR " " $2 " " one_of($3, "enabled disabled -") " " one_of($4, "running stopped -") \
            " " triggers("restart-on") " " triggers("reload-on") " " seconds(90)); claim("unit", $2)
        put("drain", NR " " $2 " " triggers("drain-on")); next
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
