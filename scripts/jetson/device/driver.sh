# Arguments: folder, run. Measures every case of benchmarks/RUN/request, with nobody connected:
#
#   release=DIGEST cases='chosen-gpu ...' warm_up_s= duration_s= engine_timeout_s= stop_timeout_s=
#   nvpmodel='' or number, clocks=yes or no, and for each case number N from 1:
#   app_N (config file), models_N (folder of the model), engine_N (name of the engine cache),
#   sha_N and calibration_N (sha256, "-" for none), file_N (name of the engine that nvinfer writes)
#
# Files of a run: `state` (how far it is, replaced whole), and in a folder per case `build.log`,
# `measure.log`, `tegrastats.log`, `throttle.before`, `throttle.after`, and `result`.
root=$1
run=$root/benchmarks/$2
# shellcheck source=/dev/null
. "$run/request"

uptime_s() {
    read -r seconds rest <"$system/proc/uptime"
    echo "${seconds%.*}"
}

state() { # STATE [PHASE]
    {
        echo "state=$1"
        echo "case=${case:-}"
        echo "phase=${2:-}"
        echo "since=$(uptime_s)"
        echo "power=$power"
        echo "reason=${reason:-}"
    } >"$run/state.new" && mv "$run/state.new" "$run/state"
}

nap() { # shorter than a second where sleep can
    sleep 0.2 2>/dev/null || sleep 1
}

size_of() {
    if [ -e "$1" ]; then wc -c <"$1"; else echo 0; fi
}

put_power_back() { # reads power.restore, written before anything was changed
    [ -e "$root/power.restore" ] || return 0
    former=$(sed -n 's/^nvpmodel=//p' "$root/power.restore")
    restored=yes
    if [ -e "$root/clocks.restore" ]; then
        saved_clocks --restore || restored=no
    fi
    if [ -n "$former" ]; then
        # Some modes want a reboot, which nobody is there to allow.
        sudo -n nvpmodel -m "$former" </dev/null
        [ "$(power_mode)" = "$former" ] || restored=no
    fi
    if [ "$restored" = yes ]; then
        rm -f "$root/power.restore" "$root/clocks.restore"
        power=restored
    else
        power=not-restored
        return 1
    fi
}

saved_clocks() { # --store or --restore; NVIDIA's script splits a path at its blanks
    (cd "$root" && sudo -n jetson_clocks "$1" clocks.restore) </dev/null
}

power_mode() { # the last line of nvpmodel -q that is nothing but a number
    sudo -n nvpmodel -q 2>/dev/null </dev/null | sed -n 's/^ *\([0-9][0-9]*\) *$/\1/p' | tail -n 1
}

set_power() {
    # Left behind by a run that a power cut ended.
    put_power_back || return 1
    [ -n "$nvpmodel" ] || [ "$clocks" = yes ] || return 0
    former=
    if [ -n "$nvpmodel" ]; then
        former=$(power_mode)
        if [ -z "$former" ]; then
            reason='nvpmodel -q tells no mode'
            return 1
        fi
    fi
    rm -f "$root/clocks.restore"
    echo "nvpmodel=$former" >"$root/power.restore"
    power=changed
    if [ -n "$nvpmodel" ] && [ "$former" != "$nvpmodel" ]; then
        sudo -n nvpmodel -m "$nvpmodel" </dev/null
        if [ "$(power_mode)" != "$nvpmodel" ]; then
            reason="nvpmodel stays in mode $(power_mode) instead of $nvpmodel"
            reason="$reason; if that mode wants a reboot, run sudo nvpmodel -m $nvpmodel there first"
            return 1
        fi
    fi
    if [ "$clocks" = yes ]; then
        # The script answers 0 where it has not understood an argument, too.
        if ! saved_clocks --store || ! [ -s "$root/clocks.restore" ] ||
            ! sudo -n jetson_clocks </dev/null; then
            reason='jetson_clocks failed'
            return 1
        fi
    fi
}

# What the kernel tells about limits: cooling devices and over-current. Fans limit nothing, and neither
# do the hot surface alert of an Orin (from 70 C on) nor a Nano's voltages that follow its temperature.
throttling() {
    for device in "$system"/sys/class/thermal/cooling_device*; do
        [ -r "$device/cur_state" ] || continue
        kind=$(cat "$device/type" 2>/dev/null)
        case $kind in *fan* | hot-surface-alert | *_cold* | *floor* | *_scaling*) continue ;; esac
        echo "cooling:${device##*/}:$kind=$(cat "$device/cur_state")"
    done
    for count in "$system"/sys/class/hwmon/hwmon*/oc*_event_cnt; do
        [ -r "$count" ] && echo "overcurrent:${count##*/}=$(cat "$count")"
    done
}

measuring() { # LOG: true once a line of figures is not all zero, which is when frames flow
    awk '/PERF/ && !/FPS/ {
            sub(/.*PERF[^:]*:/, "")
            for (i = 1; i <= NF; i++) if ($i + 0 > 0) found = 1
        }
        END { exit !found }' "$1"
}

interrupt() { # PID: SIGINT is the one signal that deepstream-app ends cleanly on
    kill -INT "$1" 2>/dev/null
    patience=$(($(uptime_s) + stop_timeout_s))
    while kill -0 "$1" 2>/dev/null; do
        # A process in the middle of an engine build does not listen to SIGINT.
        [ "$(uptime_s)" -ge "$patience" ] && kill -TERM "$1" 2>/dev/null
        [ "$(uptime_s)" -ge $((patience + 5)) ] && kill -KILL "$1" 2>/dev/null
        nap
    done
}

# The watcher runs beside the app and ends it when its time has come. It tells why in `verdict`.
watch() { # PHASE LOG
    until [ -s "$here/pid" ]; do nap; done
    read -r pid <"$here/pid"
    verdict() {
        echo "$1" >"$here/verdict"
        interrupt "$pid"
        exit 0
    }
    wait_until() { # UPTIME; returns when it has come
        while [ "$(uptime_s)" -lt "$1" ]; do
            [ -e "$run/stop" ] && verdict stopped
            sleep 1
        done
    }
    deadline=$(($(uptime_s) + engine_timeout_s))
    until measuring "$2"; do
        [ -e "$run/stop" ] && verdict stopped
        [ "$(uptime_s)" -ge "$deadline" ] && verdict timeout
        sleep 1
    done
    echo "flowing=$(uptime_s)" >>"$here/result"
    [ "$1" = build ] && verdict complete
    state running warm-up
    wait_until $(($(uptime_s) + warm_up_s))
    state running measure
    {
        echo "warm_log=$(size_of "$2")"
        echo "warm_tegrastats=$(size_of "$here/tegrastats.log")"
        echo "warm_uptime=$(uptime_s)"
    } >>"$here/result"
    throttling >"$here/throttle.before"
    wait_until $(($(uptime_s) + duration_s))
    throttling >"$here/throttle.after"
    {
        echo "end_log=$(size_of "$2")"
        echo "end_tegrastats=$(size_of "$here/tegrastats.log")"
        echo "end_uptime=$(uptime_s)"
    } >>"$here/result"
    verdict complete
}

app() { # PHASE: runs deepstream-app; false unless figures came for as long as the phase needs
    echo "phase=$1" >>"$here/result"
    echo "$1_started=$(uptime_s)" >>"$here/result"
    if [ "$1" = build ]; then state running build; else state running start; fi
    rm -f "$here/pid" "$here/verdict"
    : >"$here/$1.log"
    # The lock belongs to this script and the app; the watcher's sleeps must not prolong it.
    watch "$1" "$here/$1.log" 3<&- 9>&- &
    watcher=$!
    # deepstream-app polls its standard input: at end of file it prints an empty line 25 times a
    # second, so it gets a pipe that stays open and silent. It runs in the foreground because
    # background jobs of a shell ignore SIGINT.
    (
        cd "$release/$(dirname "$config")" || exit 127
        exec /bin/sh -c 'echo "$$" >"$1"; shift; exec "$@"' sh "$here/pid" \
            deepstream-app -c "$(basename "$config")"
    ) <&3 >"$here/$1.log" 2>&1
    status=$?
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    # A run that ended by itself never got the watcher's verdict.
    found=$(cat "$here/verdict" 2>/dev/null || echo ended)
    {
        echo "$1_status=$status"
        echo "$1_verdict=$found"
        echo "$1_ended=$(uptime_s)"
    } >>"$here/result"
    [ "$found" = complete ]
}

engines() { # the engines beside the model: inode, size, time, name
    for file in "$release/$models"/*.engine; do
        [ -e "$file" ] && stat -c '%i %s %Y %n' "$file"
    done
}

keep_engines() { # OUTCOME: the engines of a run go to the cache
    engines >"$here/engines.after"
    grep -vxF -f "$here/engines.before" "$here/engines.after" >"$here/engines.built"
    while read -r _ _ _ file; do
        mkdir -p "$root/engines/$engine"
        link_or_copy "$file" "$root/engines/$engine"
        echo "built_engine=${file##*/}" >>"$here/result"
    done <"$here/engines.built"
    while read -r _ _ _ file; do
        echo "engine_file=${file##*/}" >>"$here/result"
    done <"$here/engines.after"
    # One that lay there before and was not built again is good: the app has just run with it.
    if [ "$1" -eq 0 ] && [ -s "$release/$models/$name" ] && [ ! -e "$root/engines/$engine/$name" ]; then
        mkdir -p "$root/engines/$engine"
        link_or_copy "$release/$models/$name" "$root/engines/$engine"
    fi
    mv "$here/engines.after" "$here/engines.before"
}

measure() {
    here=$run/$case
    mkdir -p "$here"
    : >"$here/result"
    tegrastats=
    cached=no
    used="$used $engine"
    adopt_engine "$engine" "$sha" "$calibration" "$name" >/dev/null
    if [ -d "$root/engines/$engine" ]; then
        for file in "$root/engines/$engine"/*.engine; do
            [ -e "$file" ] || continue
            cached=yes
            link_or_copy "$file" "$release/$models"
        done
        touch "$root/engines/$engine"
    fi
    echo "cached=$cached" >>"$here/result"
    engines >"$here/engines.before"
    if [ "$cached" = no ]; then
        app build || return 1
        keep_engines 0
    fi
    tegrastats=
    if command -v tegrastats >/dev/null; then
        tegrastats --interval 1000 >"$here/tegrastats.log" 2>&1 3<&- 9>&- &
        tegrastats=$!
    fi
    app measure
    outcome=$?
    [ -n "$tegrastats" ] && kill "$tegrastats" 2>/dev/null
    tegrastats=
    keep_engines "$outcome"
    return "$outcome"
}

finish() {
    trap - EXIT HUP INT TERM
    [ -n "${watcher:-}" ] && kill "$watcher" 2>/dev/null
    [ -n "${tegrastats:-}" ] && kill "$tegrastats" 2>/dev/null
    put_power_back
    rm -f "$run/stdin"
    # The engines of models that were not measured for long are the oldest folders; a board whose
    # clock starts in the past may take this run's for those.
    # shellcheck disable=SC2012
    (cd "$root/engines" 2>/dev/null && ls -t | tail -n +13 | while read -r old; do
        case "$used " in *" $old "*) ;; *) rm -rf "./$old" ;; esac
    done)
    state "$outcome_of_run"
}

power=unchanged
reason=
used=
exec 9>>"$root/benchmark.lock"
# Whoever asks whether a benchmark is running holds the lock for an instant.
if ! flock -w 5 9; then
    reason="busy: $(benchmark_owner "$root")"
    state failed
    exit 1
fi
echo "$2 since $(date '+%Y-%m-%d %H:%M:%S %z')" >"$root/benchmark.owner"
outcome_of_run=failed
trap finish EXIT
trap 'exit 1' HUP INT TERM
mkfifo "$run/stdin" && exec 3<>"$run/stdin" || exit 1
echo "started=$(date +%s)" >"$run/about"
release=$root/releases/$release
if [ ! -d "$release" ]; then
    reason="$release is not there any more, push again"
    exit 1
fi

if ! set_power; then
    hint="set by hand what $root/power.restore says, restart, and remove that file"
    : "${reason:=the former power settings could not be put back; $hint}"
    exit 1
fi
number=0
outcome_of_run='done'
for case in $cases; do
    number=$((number + 1))
    eval "config=\$app_$number models=\$models_$number engine=\$engine_$number"
    eval "sha=\$sha_$number calibration=\$calibration_$number name=\$file_$number"
    # One case that fails does not keep the others from being measured.
    measure || reason="$reason $case"
    [ -e "$run/stop" ] && break
done
