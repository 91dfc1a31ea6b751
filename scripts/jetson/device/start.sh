# Arguments: folder, run, request, driver. Starts the driver as a process of its own session that
# outlives this connection, unless this very run is going on or has a result that nobody fetched.
root=$(absolute "$1")
id=$2
run=$root/benchmarks/$id

if benchmark_locked "$root"; then
    owner=$(benchmark_owner "$root")
    emit benchmark "$owner"
    [ ! -e "$root/benchmarks/${owner%% *}/stop" ] || emit stopping yes
    exit 0
fi
if [ ! -e "$run/stop" ] && grep -q '^state=\(done\|failed\)$' "$run/state" 2>/dev/null; then
    emit found "$id"
    exit 0
fi
rm -rf "$run"
mkdir -p "$run" || exit 1
printf '%s\n' "$3" >"$run/request" || exit 1
printf '%s\n' "$4" >"$run/driver.sh" || exit 1
emit started "$id"
# In the background (`&`) the driver and all its children would ignore the SIGINT that ends
# deepstream-app. This shell leads its process group, so setsid forks and returns at once.
cd "$run" && exec nohup setsid /bin/sh driver.sh "$root" "$id" </dev/null >driver.log 2>&1
