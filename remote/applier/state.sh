# What a role keeps on the disk. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

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

# The bundle with hashes in the place of contents, and without what only applying needs: what the
# machine can be compared with, and no secret.
keep_applied() {
    awk 'FILENAME ~ /wanted$/ { sub(/.*\//, "", $2); sum[$2] = $1; next }
        /^( |$)/ { if (kept) print; next }
        { kept = 0 }
        $1 == "guard" || $1 == "validate" || $1 == "check" || $1 == "reapply" { next }
        $1 == "file" || $1 == "file-base64" { $1 = "file-sha256"; print; print "  " sum[FNR]; next }
        { kept = 1; print }' "$work/wanted" "$work/bundle" >"$work/applied"
    replace_state applied "$work/applied"
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
