# Arguments: folder, clip, nvpmodel ("" for none), jetson_clocks (yes or no).
root=$(absolute "$1")
clip=$2
nvpmodel=$3
clocks=$4

emit user "$(id -un)"
emit machine "$(uname -m)"
emit boot_id "$(boot_id)"
emit root "$root"
emit board "$(tr -d '\000' <"$system/proc/device-tree/model" 2>/dev/null)"
emit l4t "$(sed -n 's/^# R\([0-9]*\).*REVISION: *\([0-9.]*\).*/\1.\2/p' \
    "$system/etc/nv_tegra_release" 2>/dev/null)"

# Every program on a Jetson's GPU opens it; udev gives it to the group video.
gpu=$system/dev/nvmap
if [ ! -e "$gpu" ] || { [ -r "$gpu" ] && [ -w "$gpu" ]; }; then emit gpu yes; else emit gpu no; fi

app=$(command -v deepstream-app)
emit deepstream_app "$app"
emit deepstream_elsewhere "$(ls -d "$system"/opt/nvidia/deepstream/deepstream*/bin/deepstream-app 2>/dev/null | tail -n 1)"
if [ -n "$app" ]; then
    versions=$(timeout 100 deepstream-app --version-all 2>&1 </dev/null)
    emit versions "$versions"
fi
emit tensorrt_package "$(dpkg-query -W -f '${Version} ' 'libnvinfer[0-9]*' 2>/dev/null)"

near=$root
while [ ! -d "$near" ]; do
    near=$(dirname "$near")
done
if mkdir -p "$root" 2>/dev/null && : >"$root/.writable" 2>/dev/null; then
    rm -f "$root/.writable"
    emit writable yes
else
    emit writable no
fi
# A look leaves nothing behind.
[ "$near" = "$root" ] || (cd "$near" && rmdir -p "${root#"${near%/}"/}") 2>/dev/null
emit disk_kb "$(df -Pk "$near" | awk 'NR == 2 { print $4 }')"
emit memory_kb "$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' "$system/proc/meminfo" 2>/dev/null)"
emit memory_total_kb "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' "$system/proc/meminfo" 2>/dev/null)"

[ -r "$clip" ] && emit clip yes || emit clip no
missing=
for tool in awk df find flock mkfifo nohup setsid sha256sum stat timeout xargs; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
emit missing_tools "$missing"
command -v tegrastats >/dev/null && emit tegrastats yes || emit tegrastats no

if benchmark_locked "$root"; then
    emit benchmark "$(benchmark_owner "$root")"
else
    for process in "$system"/proc/[0-9]*; do
        read -r name 2>/dev/null <"$process/comm" || continue
        [ "$name" = deepstream-app ] && emit running "${process##*/}"
    done
fi

if [ -n "$nvpmodel" ]; then
    sudo -n nvpmodel -q >/dev/null 2>&1 </dev/null && emit nvpmodel yes || emit nvpmodel no
fi
if [ "$clocks" = yes ]; then
    sudo -n jetson_clocks --show >/dev/null 2>&1 </dev/null && emit jetson_clocks yes || emit jetson_clocks no
fi
emit release "$(readlink "$root/current" 2>/dev/null)"
exit 0
