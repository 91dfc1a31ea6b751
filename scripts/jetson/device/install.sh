# Arguments: folder, release, plan. The plan has a line a file: mode, sha256, source, path, parted by
# tabs; the source is relative to the folder. Makes the release whole beside the others, verifies
# every file of it, and only then lets `current` point to it.
root=$(absolute "$1")
release=$2
plan=$3
tab=$(printf '\t')
new=$root/releases/.$release.$$

fail() {
    rm -rf "$new"
    echo "$1" >&2
    exit 1
}
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM

cd "$root" || exit 1
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
done || fail "cannot put the release together in $new"
(cd "$new" && sha256sum -c --quiet release.sha256 >&2) || {
    rm -rf "$root/incoming"
    fail "the files arrived damaged and were removed; push again"
}
# The files reach the disk before anything points to them, so that a power cut leaves a whole release.
find "$new" -exec sync {} + || sync
if [ -e "releases/$release" ]; then
    mv "releases/$release" "$new/.replaced" || fail "cannot replace releases/$release"
fi
mv "$new" "releases/$release" || fail "cannot rename to releases/$release"
rm -rf "releases/$release/.replaced"
ln -s "releases/$release" "current.$$" && mv -T "current.$$" current ||
    fail "cannot let current point to releases/$release"
touch "releases/$release"
sync . releases || sync

# The names are made here and hold hexadecimal digits only, so ls is safe to read.
# shellcheck disable=SC2012
ls -t releases | tail -n +3 | while read -r old; do
    rm -rf "releases/$old"
done
rm -rf incoming
find releases -maxdepth 1 -name '.*' -mmin +60 -exec rm -rf {} +
emit release "$release"
exit 0
