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

described() { # KIND FOLDER: digest and size of each file that sha256sum tells of
    while IFS= read -r line; do
        path=${line#*  }
        emit "file:$1:$path" "${line%% *} $(wc -c <"$2/$path")"
    done
}

list() { # KIND RELEASE FOLDER: what was pushed there; what else lies there is somebody else's
    [ -r "$2/release.sha256" ] || return 0
    (cd "$2" && pushed_paths . | tr '\n' '\000' | xargs -0 -r sha256sum -- 2>/dev/null) |
        described "$1" "$2"
}

(cd "$root/incoming" && find . -type f -exec sha256sum {} +) | sed 's,  \./,  ,' |
    described incoming "$root/incoming"
list current "$root/current"
[ "$(readlink "$root/current" 2>/dev/null)" = "releases/$wanted" ] ||
    list wanted "$root/releases/$wanted"
exit 0
