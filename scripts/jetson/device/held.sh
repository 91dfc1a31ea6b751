# Arguments: folder, release. Tells whether the device still holds a release, whole and current.
root=$(absolute "$1")
folder=$root/releases/$2

if benchmark_locked "$root"; then
    emit benchmark "$(benchmark_owner "$root")"
    exit 0
fi
emit current "$(basename "$(readlink "$root/current" 2>/dev/null)")"
if [ ! -e "$folder/release.sha256" ]; then
    emit release missing
elif (cd "$folder" && sha256sum -c --status release.sha256 2>/dev/null); then
    emit release whole
else
    emit release damaged
fi
exit 0
