# Functions about TensorRT engines; `root` is the folder on the device.

link_or_copy() { # FILE FOLDER: some file systems of SD cards have no links
    rm -f "$2/${1##*/}"
    ln "$1" "$2/" 2>/dev/null || cp "$1" "$2/"
}

fits_tensorrt() { # ENGINE: whether it was written after TensorRT came to the device
    for list in "$system"/var/lib/dpkg/info/libnvinfer[0-9]*.list; do
        [ -e "$list" ] && [ -z "$(find "$list" -newer "$1")" ] || return 1
    done
}

# An engine that deepstream-app built in a release's folder for somebody who ran it there by hand goes
# to the cache, so that it is neither built again nor lost with the release. Its name tells batch,
# precision and DLA core, the release's own list the model and the calibration.
adopt_engine() { # CACHE MODEL-SHA256 CALIBRATION-SHA256-OR-"-" NAME
    [ ! -e "$root/engines/$1/$4" ] || return 0
    for sums in "$root"/releases/*/release.sha256; do
        [ -e "$sums" ] || continue
        grep "^$2  " "$sums" | while IFS= read -r line; do
            path=${line#*  }
            case $path in */*) folder=${path%/*}/ ;; *) folder= ;; esac
            found=${sums%/*}/$folder$4
            [ -s "$found" ] && fits_tensorrt "$found" || continue
            [ "$3" = - ] || grep -qF "$3  $folder" "$sums" || continue
            mkdir -p "$root/engines/$1" && link_or_copy "$found" "$root/engines/$1" &&
                emit engine "$found"
        done
    done
}
