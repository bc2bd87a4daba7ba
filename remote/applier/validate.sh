# Reading what is about to be put in place. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# Files have a reader, and it reads them before they are in place: what it refuses changes nothing.
validate() {
    awk 'FILENAME == ARGV[1] { changes[$2]; next }
        { n = split($3, on, ","); for (i = 1; i <= n; i++) if (on[i] in changes) { print; next } }' \
        "$work/todo" "$work/validate" >"$work/to-validate"
    awk '$1 == "file" && $2 ~ /^\/((usr\/)?(local\/)?lib|etc|run)\/systemd\/system\// { print $2 }' \
        "$work/todo" >"$work/unit-files"
    [ -s "$work/to-validate" ] || [ -s "$work/unit-files" ] || return 0
    lay_out_staged
    while read -r number name _ time; do
        run_script "$time" "$number" && continue
        refused "validate $name" "$(why "$?" "$time")"
    done <"$work/to-validate"
    [ ! -s "$work/unit-files" ] || validate_unit_files
}

# All files and links of the bundle as they are to be, in a tree of their own, and links to what else
# stays in their folders: a reader finds beside each file the others that go with it.
lay_out_staged() {
    step='staged files'
    umask 022 # a reader may be another user's, and copies the tree; where it stands is root's alone
    while read -r number path owner mode; do
        must_write mkdir -p "$staged${path%/*}"
        must_write cp "$work/block/$number" "$staged$path"
        set_owner "$owner" "$staged$path"
        must_write chmod "$mode" "$staged$path"
    done <"$work/file"
    while read -r path target; do
        must_write mkdir -p "$staged${path%/*}"
        must_write ln -s "$target" "$staged$path"
    done <"$work/link"
    cat "$work/file" "$work/link" | sed 's|^[0-9]* *\(/[^ ]*\)/[^ ]*.*|\1|' | sort -u | while read -r folder; do
        # What is there already is what is to be: ln leaves it.
        find "$root$folder" -mindepth 1 -maxdepth 1 ! -name '.*.slurmstack-new' \
            -exec ln -s -t "$staged$folder" -- {} + 2>/dev/null || :
    done
    awk -v staged="$staged" '$1 == "absent" || $1 == "drop" { print staged $2 }' "$work/todo" | xargs -r -d '\n' rm -f
    umask 077
}

refused() { # step, how it ended; the reader's words in $work/out
    show_output
    words=$(grep -v '^[[:space:]]*$' "$work/out" | head -n 5 | withhold_secrets | awk '{ printf "%s%s", sep, $0; sep = " | " }')
    fail "$1" "refused: ${words:-$2, without a word}" \
        'nothing was put in place; correct the settings that this comes from and run again'
}

# systemd warns of a line that it does not understand and goes on without it. What it says of other
# units, or of programs that are yet to come, is no matter here.
validate_unit_files() {
    command -v systemd-analyze >/dev/null || return 0
    set --
    while read -r path; do
        case ${path%/*} in
            *.d) unit=${path%.d/*}; set -- "$@" "${unit##*/}" ;;
            *) set -- "$@" "$staged$path" ;;
        esac
    done <"$work/unit-files"
    SYSTEMD_UNIT_PATH="$staged/etc/systemd/system:$staged/usr/local/lib/systemd/system:" \
        bounded 60 systemd-analyze verify --man=no --recursive-errors=no -- "$@" >"$work/read" 2>&1
    sed 's|.*/||; s|$|: |' "$work/unit-files" >"$work/own-units"
    sed "s|^|$staged|" "$work/unit-files" >>"$work/own-units"
    awk 'FILENAME == ARGV[1] { own[$1]; next }
        { file = $1; sub(/:.*/, "", file) }
        file in own || ($1 in own && !/is not executable/)' "$work/own-units" "$work/read" |
        awk '!seen[$0]++' >"$work/out"
    [ ! -s "$work/out" ] || refused 'validate units'
}
