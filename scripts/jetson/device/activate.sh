# Arguments: folder, release. Lets `current` point to a release that is there already.
root=$(absolute "$1")
release=$2
lock_releases "$root" && cd "$root/releases/$release" || exit 1
sha256sum -c --quiet release.sha256 >&2 || exit 1
cd "$root" && switch_to "$release" || exit 1
rm -rf incoming
emit release "$release"
exit 0
