#!/usr/bin/env bash
# Everything for one GPU in one command, in order of worth, as lines of JSON; what a time limit cuts
# off is worth the least, and a line that was made is on the disk.
#
#   benchmarks/gpu.sh [FILE or FOLDER]    or with OUT=FOLDER; benchmarks/results/gpu.jsonl by default
#   benchmarks/gpu.sh --tiny [FILE]       the same on a CPU at tiny sizes, to see that it all runs
#
# SECONDS_TOTAL (520) is for all of it, PYTHON the interpreter, COMMIT the source's where git is
# absent. The library need not be installed. The card is one process's at a time.
set -u
cd "$(dirname "$0")/.." || exit 1

tiny=()
[[ ${TINY:-0} == 1 ]] && tiny=(--tiny)
[[ ${1:-} == --tiny ]] && tiny=(--tiny) && shift
file=${1:-${OUT:-benchmarks/results}}
[[ $file == *.jsonl ]] || file=$file/gpu.jsonl
mkdir -p "$(dirname "$file")"
log=${file%.jsonl}.log

python=${PYTHON:-python3}
total=${SECONDS_TOTAL:-520}
start=$(date +%s)
run=$(date -u +%Y%m%dT%H%M%S)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
# Stages share what was compiled and tried out, runs do not: they would state other compile times.
export JAX_COMPILATION_CACHE_DIR=$work/jax TORCHINDUCTOR_CACHE_DIR=$work/torch
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.5 HF_HUB_OFFLINE=1
# Taken at once, as asking for more under way costs time; the rest is the libraries' own.
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.90

# stage SCRIPT NAME SHARE: until SHARE percent of the time are over, killed soon after.
stage() {
    local until=$((start + total * $3 / 100))
    local left=$((until - $(date +%s)))
    ((left > 5)) || return 0
    timeout -k 3 "$((left + 2))" "$python" "benchmarks/$1.py" --stage "$2" --until "$until" \
        --run "$run" --file "$file" ${tiny[@]+"${tiny[@]}"} 2>>"$log"
    local code=$?
    ((code == 0)) || echo "stage $2 ended with $code: see $log" >&2
}

stage gpu first 42
stage gpu_peers peers 67
stage gpu rest 99
echo "$(($(date +%s) - start)) seconds; lines in $file" >&2
