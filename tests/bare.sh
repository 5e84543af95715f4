#!/usr/bin/env bash
# README's two commands, and what users install, in bare Debian roots that have git, python3-venv,
# pip and certificates; says what each took, and of what processor time, since others may have the
# machine too. In another root, the sdist and wheel of tests/packed.sh.
#
# tests/bare.sh [MIRROR]: as root, with debootstrap. SUITE (bookworm), LIMIT (seconds of a command,
# 5400), ROOTS (a folder, where a base of an earlier time is used again) and ONLY (installs: sdist and
# wheel alone) are variables. pip's own settings are passed on: PIP_*, /etc/pip.conf and the
# certificates of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
mirror=${1:-${MIRROR:-http://deb.debian.org/debian}}
suite=${SUITE:-bookworm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
base=${ROOTS:-$work}/$suite

exec 3>&1
step() {  # what it is called, and the command; says how long it took, of what processor time
    local code=0 took TIMEFORMAT='%0R s, %0U + %0S s of processor time'
    took=$({ time "${@:2}" </dev/null >&3 2>&3; } 2>&1) || code=$?
    echo "== $suite, $1: $took, exit code $code"
    return "$code"
}

debian() {
    debootstrap --variant=minbase --include=git,python3-venv,python3-pip,ca-certificates \
        "$suite" "$base" "$mirror" >"$work/debootstrap" || { tail "$work/debootstrap"; return 1; }
}

root() {  # a copy of the base with a clone of what is committed, in its folder /clone
    cp -a "$base" "$work/$1"
    for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        if [ -f "$file" ]; then cp -L "$file" "$work/$1$file"; fi
    done
    git clone -q "file://$PWD" "$work/$1/clone"
}

inside() {  # a root, and a command line of its shell in the clone; the mounts are its own
    local settings=()
    mapfile -t settings < <(env | grep -E '^(PIP_|SSL_CERT_)' || true)
    # shellcheck disable=SC2016
    unshare --mount --pid --fork bash -c '
        mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/dev/shm" && mount -t tmpfs tmpfs "$1/run"
        exec chroot "$1" env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LANG=C.UTF-8 \
            "${@:3}" timeout "${LIMIT:-5400}" sh -c "cd /clone && $2"' \
        bash "$work/$1" "$2" "${settings[@]}"
}

if [ ! -d "$base" ]; then step "debootstrap" debian; fi
failed=0
root installs
step "sdist and wheel" inside installs "tests/packed.sh python3" || failed=1
if [ "${ONLY:-}" = installs ]; then exit "$failed"; fi
root clone
while read -r command; do
    step "$command" inside clone "$command" || failed=1
done < <(grep '^python3 -m venv' README.md)
exit "$failed"
