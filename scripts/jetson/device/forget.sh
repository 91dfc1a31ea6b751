# Arguments: folder, run. Removes a run that the desk has fetched.
root=$(absolute "$1")
rm -rf "$root/benchmarks/$2"
exit 0
