# Arguments: folder, release. Tells what is on the device already: complete and partial uploads,
# the files of the current release and of the wanted one, each with its sha256.
root=$(absolute "$1")
wanted=$2

if benchmark_locked "$root"; then
    emit benchmark "$(benchmark_owner "$root")"
    exit 0
fi
mkdir -p "$root/incoming" "$root/releases" || exit 1
# The key of an encrypted model passes through here.
chmod 700 "$root/incoming"
emit root "$root"
emit current "$(basename "$(readlink "$root/current" 2>/dev/null)")"
emit disk_kb "$(df -Pk "$root" | awk 'NR == 2 { print $4 }')"

list() { # KIND FOLDER
    [ -d "$2" ] || return 0
    (cd "$2" && find . -type f ! -name '*.engine' ! -name '*.sha256' -exec sha256sum {} +) |
        while IFS= read -r line; do
            path=${line#*  }
            size=$(wc -c <"$2/$path")
            emit "file:$1:${path#./}" "${line%% *} $size"
        done
}
list incoming "$root/incoming"
list current "$root/current/"
[ "$root/current" -ef "$root/releases/$wanted" ] || list wanted "$root/releases/$wanted"
exit 0
