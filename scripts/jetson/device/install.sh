# Arguments: folder, release, plan, engines. The plan has a line a file: mode, sha256, source, path,
# parted by tabs; the source is relative to the folder. The engines have a line a case, the arguments
# of adopt_engine. Makes the release whole beside the others, verifies every file of it, and only then
# lets `current` point to it.
root=$(absolute "$1")
release=$2
plan=$3
engines=$4
tab=$(printf '\t')
whole=releases/$release
new=releases/.$release.$$

fail() {
    echo "$1" >&2
    exit 1
}

remove_release() { # FOLDER: what was pushed, and engines; what somebody else left there stays
    if [ -e "$1/release.sha256" ]; then
        pushed_paths "$1" | while IFS= read -r path; do
            rm -f "$1/$path" || exit 1
        done || return 0
        find "$1" -type f -name '*.engine' -exec rm -f {} +
        # Last, so that a removal that was cut short is taken up again.
        rm -f "$1/release.sha256"
        [ -z "$(find "$1" ! -type d)" ] || emit left "$1"
    fi
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
}

cd "$root" && lock_releases "$root" || exit 1
if benchmark_locked "$root"; then
    fail "benchmark $(benchmark_owner "$root") is running there; wait for its end, then push again"
fi
printf '%s\n' "$plan" | while IFS=$tab read -r mode sum source path; do
    [ -e "$source" ] || exit 1
done || fail "another push came to its end meanwhile and cleared what was sent; push again"
trap 'rm -rf "$root/$new"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$new" || fail "cannot make a folder in $root/releases"
printf '%s\n' "$plan" | while IFS=$tab read -r mode sum source path; do
    target=$new/$path
    mkdir -p "$(dirname "$target")" || exit 1
    # A link saves the space of unchanged models; some file systems of SD cards have none. A link
    # has one mode for all its names, so a file that changes its mode is copied.
    if [ "$(stat -c %a "$source")" = "$mode" ] || [ "${source%%/*}" = incoming ]; then
        ln "$source" "$target" 2>/dev/null || cp "$source" "$target" || exit 1
    else
        cp "$source" "$target" || exit 1
    fi
    chmod "$mode" "$target" || exit 1
    printf '%s  %s\n' "$sum" "$path" >>"$new/release.sha256" || exit 1
done || fail "cannot put the release together in $root/$new"
(cd "$new" && sha256sum -c --quiet release.sha256 >&2) || {
    rm -rf incoming
    fail "the files arrived damaged and were removed; push again"
}
# The files reach the disk before anything points to them, so that a power cut leaves a whole release.
find "$new" -exec sync {} + || sync
if [ -d "$whole" ]; then
    # A release that lost something. It may be the live one, so it is mended where it is, a rename a
    # file: whenever that ends, it is no worse than before. What else lies there stays.
    { pushed_paths "$new" && echo release.sha256; } | while IFS= read -r path; do
        # A link to what is there already is refused by mv, and needs none.
        [ "$(stat -c %i "$new/$path")" = "$(stat -c %i "$whole/$path" 2>/dev/null)" ] && continue
        mkdir -p "$(dirname "$whole/$path")" && mv -f -T "$new/$path" "$whole/$path" || exit 1
    done || fail "cannot mend $root/$whole"
else
    mv -T "$new" "$whole" || fail "cannot rename to $root/$whole"
fi
former=$(readlink current)
switch_to "$release" || fail "cannot let $root/current point to $whole"
sync . releases || sync

printf '%s\n' "$engines" | while IFS=$tab read -r cache model calibration name; do
    [ -n "$name" ] && adopt_engine "$cache" "$model" "$calibration" "$name"
done
# This release and the one before it stay. Times would not tell which one that is: a board without a
# clock of its own starts in the past.
if [ "$former" != "$whole" ]; then
    for old in releases/*; do
        case $old in "$whole" | "$former") ;; *) remove_release "$old" ;; esac
    done
fi
rm -rf incoming
find releases -maxdepth 1 -name '.*' -mmin +60 -exec rm -rf {} +
emit release "$release"
exit 0
