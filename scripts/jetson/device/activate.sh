# Arguments: folder, release. Lets `current` point to a release that is there already.
root=$(absolute "$1")
release=$2
cd "$root/releases/$release" || exit 1
sha256sum -c --quiet release.sha256 >&2 || exit 1
cd "$root" || exit 1
ln -s "releases/$release" "current.$$" && mv -T "current.$$" current || exit 1
touch "releases/$release"
rm -rf incoming
emit release "$release"
exit 0
