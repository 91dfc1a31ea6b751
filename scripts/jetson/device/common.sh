# What every script on the device begins with. POSIX sh; GNU coreutils and util-linux for the rest.
# JETSON_ROOT may name a folder to look in for /proc, /sys, /etc and /opt instead of /.

LC_ALL=C
export LC_ALL
# A forwarded display makes DeepStream look for a screen that is not there.
unset DISPLAY
system=${JETSON_ROOT:-}

emit() { # KEY VALUE: one line for the desk
    printf '@%s\t%s\n' "$1" "$(printf '%s' "$2" | tr '\n\t' '  ')"
}

absolute() { # FOLDER: a relative one is in the home
    case $1 in
    /*) printf '%s' "$1" ;;
    '~/'*) printf '%s/%s' "$HOME" "${1#??}" ;;
    *) printf '%s/%s' "$HOME" "$1" ;;
    esac
}

boot_id() {
    cat "$system/proc/sys/kernel/random/boot_id" 2>/dev/null || echo unknown
}

benchmark_locked() { # ROOT: true while a benchmark's process holds the lock
    [ -e "$1/benchmark.lock" ] && ! flock -n "$1/benchmark.lock" true
}

benchmark_owner() { # ROOT: who runs a benchmark
    head -n 1 "$1/benchmark.owner" 2>/dev/null || echo unknown
}

lock_releases() { # ROOT: waits until no other push, from another desk, changes the releases
    exec 8>>"$1/push.lock" && flock -w 300 8 && return 0
    echo "another push to $1 does not come to its end; push again" >&2
    return 1
}

pushed_paths() { # RELEASE FOLDER: a line for each file that a push brought there
    sed 's/^[0-9a-f]*  //' "$1/release.sha256"
}

switch_to() { # RELEASE, in the folder of the releases: lets `current` point to it, in one step
    rm -f "current.$$"
    ln -s "releases/$1" "current.$$" && mv -T "current.$$" current && return 0
    rm -f "current.$$"
    return 1
}
