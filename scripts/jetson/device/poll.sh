# Arguments: folder, run. Tells how far the run is.
root=$(absolute "$1")
run=$root/benchmarks/$2

emit boot_id "$(boot_id)"
read -r uptime rest <"$system/proc/uptime"
emit uptime "${uptime%.*}"
benchmark_locked "$root" && emit locked "$(benchmark_owner "$root")"
[ -d "$run" ] && emit run "$run"
if [ -r "$run/state" ]; then
    while IFS='=' read -r key value; do
        emit "$key" "$value"
    done <"$run/state"
fi
case=$(sed -n 's/^case=//p' "$run/state" 2>/dev/null)
if grep -qx 'phase=measure' "$run/state" 2>/dev/null; then
    emit perf "$(tail -c 4000 "$run/$case/measure.log" | grep -a PERF | grep -v FPS | tail -n 1)"
fi
emit driver_log "$(tail -c 400 "$run/driver.log" 2>/dev/null)"
exit 0
