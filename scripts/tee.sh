# What python -m detectnet_v2.tee does, for a container that has no module of this project.
flags=()
also=()
while true; do
    case $1 in
        --append) flags=(-a) && shift ;;
        --also) also=("$2") && shift 2 ;;
        *) break ;;
    esac
done
log=$1
shift
"$@" 2>&1 | tee "${flags[@]}" "$log" "${also[@]}"
exit "${PIPESTATUS[0]}"
