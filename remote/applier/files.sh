# Directories, files, links and paths that must be absent. Part of the applier (README.md): joined by commands.py.
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC2329

# A mount whose server is silent holds whoever looks below it, and a shell could not leave then. So each
# mount below which paths of the bundle lie is asked first, but those that have no server.
find_silent_mounts() {
    cat "$work/directory" "$work/link" "$work/absent" 2>/dev/null | awk '{ print $1 }' >"$work/paths"
    awk '{ print $2 }' "$work/file" >>"$work/paths"
    served_mounts | awk -v root="$root" '
        FILENAME != "-" { path[root $1 "/"]; next }
        { at = $1 == "/" ? "/" : $1 "/"; for (p in path) if (index(p, at) == 1) { print $1; next } }' \
        "$work/paths" - >"$work/mounts"
    while read -r where; do
        mount_answers "$where" || fail "mount $where" "does not answer for $mount_time s" \
            'bring its server back, or unmount it (umount -l) where nobody needs it, and run again'
    done <"$work/mounts"
}

# All but local disks, memory and what is the kernel's own.
served_mounts() {
    awk '
        { for (dash = 7; dash <= NF && $dash != "-"; dash++); type = $(dash + 1) }
        type ~ /^(ext[234]|xfs|btrfs|zfs|bcachefs|f2fs|vfat|overlay|tmpfs|ramfs|devtmpfs|squashfs|erofs)$/ { next }
        type ~ /^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|efivarfs|fusectl|hugetlbfs|mqueue|nsfs|proc|pstore|rpc_pipefs|securityfs|sysfs|tracefs)$/ { next }
        { print $5 }' /proc/self/mountinfo | sort -u
}

# Of a script that was not done in time: one that does not answer, in words, or nothing.
what_holds() {
    served_mounts | while read -r where; do
        mount_answers "$where" || { printf ', and %s does not answer' "$where"; break; }
    done
}

# Who asks is left behind where even the kernel cannot end it.
mount_answers() { # mount point
    rm -f "$work/mount-answer"
    { timeout -k 1 "$mount_time" stat -f -- "$1"; echo $? >"$work/mount-answer"; } </dev/null >/dev/null 2>&1 3>&- 9>&- &
    until=$(($(date +%s) + mount_time + 3))
    while [ ! -s "$work/mount-answer" ] && [ "$(date +%s)" -lt "$until" ]; do sleep 0.1; done
    case $(cat "$work/mount-answer" 2>/dev/null) in '' | 124 | 137) return 1 ;; esac
}

# What is other than wanted → found; nothing where all is as it should be. → numbers: uid:gid
look_at_directory() { # beside: path, owner, mode
    target=$root$path found='' numbers=''
    if [ ! -d "$target" ]; then
        found=missing
        [ ! -e "$target" ] && [ ! -L "$target" ] || found='is there, but not as a directory'
        return
    fi
    # shellcheck disable=SC2046 # five words
    set -- $(stat -L -c '%a %U %G %u %g' "$target")
    numbers="$1 $4:$5"
    [ $((0$1)) -eq $((0$mode)) ] || found="mode 0$1, not $mode"
    owner_matches "$owner" "$2:$3" "$4:$5" || found="${found:+$found, }owner $2:$3, not $owner"
}

apply_directories() {
    while read -r path owner mode _ parents; do
        step="directory $path"
        look_at_directory
        [ -n "$found" ] || continue
        if [ -z "$numbers" ]; then
            [ "$found" = missing ] || fail "$step" "$found" 'move it away and run again'
            [ "$parents" != parents ] || make_parents
            remember "directory $path"
            must_write mkdir "$target"
        else
            path=$path awk '$1 == "directory" && $2 == ENVIRON["path"] || $1 == "mode" && $4 == ENVIRON["path"] { found = 1 }
                END { exit !found }' "$state/created" ||
                append_state created "mode $numbers $path"
        fi
        set_owner "$owner" "$target"
        must_write chmod "$mode" "$target"
        did "directory $path"
    done <"$work/directory"
}

# Folders above that are not there; they go with the role, if they are empty then.
make_parents() { # beside: path
    above=${path%/*} missing=''
    while [ -n "$above" ] && [ ! -d "$root$above" ]; do
        [ ! -e "$root$above" ] && [ ! -L "$root$above" ] ||
            fail "$step" "$above is there, but not as a directory" 'move it away and run again'
        missing="$above $missing" above=${above%/*}
    done
    for above in $missing; do
        remember "directory $above"
        must_write mkdir "$root$above"
        must_write chmod 0755 "$root$above"
        did "directory $above"
    done
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
# `kind path block owner mode what-differs`; links point to what stands in the place of the block.
find_differences() {
    : >"$work/todo"
    awk -v root="$root" '{ print root $2 }' "$work/file" | xargs -r -d '\n' stat -c '%A %a %U:%G %u:%g %n' \
        >"$work/stat" 2>/dev/null
    hash_files >"$work/hashes"
    awk -v work="$work" '{ print work "/block/" $1 }' "$work/file" | xargs -r sha256sum >"$work/wanted" ||
        fail files 'cannot be read back' "free space on $run"
    [ ! -e "$work/hashed" ] || while read -r number; do
        read -r sum <"$work/block/$number"
        echo "$sum $work/block/$number" >>"$work/wanted"
    done <"$work/hashed"
    awk -v root="$root" -v chown="$may_chown" -v n="$((${#root} + 1))" '
        function differs(what) { found = found (found == "" ? "" : ",") what }
        FILENAME ~ /stat$/ {
            path = substr($5, n); kind[path] = substr($1, 1, 1); mode[path] = $2; owner[path] = $3; number[path] = $4; next
        }
        FILENAME ~ /hashes$/ { hash[$2] = $1; next }
        FILENAME ~ /wanted$/ { sub(/.*\//, "", $2); wanted[$2] = $1; next }
        {
            want = $4; sub(/^0+/, "", want); if (want == "") want = "0"
            found = ""
            if (!($2 in kind)) differs("missing")
            else if (kind[$2] != "-") differs("no-regular-file")
            else {
                if (hash[$2] != wanted[$1]) differs("content")
                if (mode[$2] != want) differs("mode=" sprintf("%04d", mode[$2]))
                if (chown != "no" && owner[$2] != $3 && number[$2] != $3) differs("owner=" owner[$2])
            }
            if (found != "") print "file", $2, $1, $3, $4, found
        }' "$work/stat" "$work/hashes" "$work/wanted" "$work/file" >>"$work/todo"
    while read -r path to; do
        [ -L "$root$path" ] && [ "$(readlink "$root$path")" = "$to" ] || echo "link $path $to - - -" >>"$work/todo"
    done <"$work/link"
    while read -r path; do
        [ ! -e "$root$path" ] && [ ! -L "$root$path" ] || echo "absent $path - - - -" >>"$work/todo"
    done <"$work/absent"
}

# `sha256 path` of each regular file of the bundle that is there, as read from the disk.
hash_files() {
    awk -v root="$root" '{ print root $2 }' "$work/file" | while read -r target; do
        [ -L "$target" ] || [ ! -f "$target" ] || echo "$target"
    done | xargs -r -d '\n' sha256sum -z | tr '\0' '\n' | awk -v n="$((${#root} + 1))" '{ print $1, substr($2, n) }'
}

temporary_name() { temporary=${1%/*}/.${1##*/}.slurmstack-new; } # target

# First everything is written beside its place and the old version kept, so that a full disk
# stops the run while nothing has changed; then it is read by its readers; then all is renamed at
# once.
apply_files() {
    find_differences
    while read -r kind name; do
        [ "$kind" != path ] || held_by_others path "$name" || echo "drop $name - - - -" >>"$work/todo"
    done <"$work/dropped"
    [ -s "$work/todo" ] || return
    awk '{ print $2 }' "$work/todo" >"$work/staging"
    replace_state staging "$work/staging"
    : >"$work/sync"
    : >"$work/remember"
    while read -r kind path number owner mode _; do
        [ "$kind" = drop ] || stage "$kind" "$root$path"
    done <"$work/todo"
    validate
    step=files
    must_write xargs -r -d '\n' sync <"$work/sync"
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
        sort -u | while read -r folder; do [ ! -d "$folder" ] || echo "$folder"; done | xargs -r -d '\n' sync
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
