#!/usr/bin/env bash
# What users install: builds the sdist, and from it the wheel, installs each into an environment of
# its own and uses it there, without the network, from a folder that has nothing of this clone.
#
# tests/packed.sh PYTHON [--borrow]: dependencies are installed, or with --borrow are PYTHON's own.
# Needs venv and pip. sdist and wheel stay in the folder DIST, if that variable names one.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dist=${DIST:-$work/dist}

packages() {  # where an environment keeps them
    "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

files() { find "$@" -type f ! -name '*.py[cod]' ! -name '*.log' | sort; }

# Shut twice: by the kernel where that is allowed, and in Python where it is not.
mkdir "$work/shut"
cat >"$work/shut/sitecustomize.py" <<'PYTHON'
import sys


def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise OSError(f"the network is shut: {event} {arguments[1:]}")


sys.addaudithook(refuse)
PYTHON
alone() {
    if unshare --net true 2>/dev/null; then unshare --net "$@"; else "$@"; fi
}

try() {  # a file to install, and whose dependencies it borrows, if anybody's
    local place=$work/tried_${1##*.}
    "$python" -m venv "$place"
    if [ -n "${2:-}" ]; then
        packages "$2" >"$(packages "$place/bin/python")/borrowed.pth"
        "$place/bin/pip" install -q --no-deps "$1"
    else
        "$place/bin/pip" install -q "$1"
    fi
    mkdir "$place/elsewhere" "$place/home"
    cp tests/packed.py "$place/elsewhere"
    files rvq_jax >"$place/elsewhere/held.txt"
    (cd "$place/elsewhere" && alone env -i PATH="$place/bin:/usr/bin:/bin" HOME="$place/home" \
        PYTHONPATH="$work/shut" JAX_PLATFORMS=cpu python packed.py "$place")
    echo "$(basename "$1"): installs, encodes, decodes"
}

"$python" -m venv "$work/builder"
"$work/builder/bin/pip" install -q build twine
"$work/builder/bin/python" -m build -o "$dist" . >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/builder/bin/twine" check --strict "$dist"/*
tar tzf "$dist"/*.tar.gz | cut -d/ -f2- | sort >"$work/packed"
files benchmarks configs docs experiments rvq_jax tests ./*.* | sed 's|^\./||' | sort >"$work/there"
comm -23 "$work/there" "$work/packed" >"$work/missing"
if [ -s "$work/missing" ]; then echo "the sdist lacks:"; cat "$work/missing"; exit 1; fi
if [ "${2:-}" = --borrow ]; then
    try "$dist"/*.whl "$python"
    try "$dist"/*.tar.gz "$python"
else
    try "$dist"/*.whl
    try "$dist"/*.tar.gz "$work/tried_whl/bin/python"
fi
