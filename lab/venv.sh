#!/bin/sh
# Makes .venv from requirements.lock, or finds it made. Says what it does on standard error.
# Usage: lab/venv.sh   in the checkout. PYTHON=/path chooses the interpreter (3.11 or newer).
set -eu

started=${LAB_STARTED:-$(date +%s)}
say() {
    printf '[%6.1fs] %s\n' "$(($(date +%s) - started))" "$1" >&2
}

fail() {
    echo "venv: $1" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        # Run it: a version manager may have a command of that name and nothing behind it.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or newer: apt-get install python3, or PYTHON=/path make lab"
}

# Debian and Ubuntu keep ensurepip in a package of its own.
have_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

install_venv() {
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    [ "$(id -u)" = 0 ] || fail "needs $package: apt-get install $package"
    say "installing $package"
    for attempt in 1 2; do
        if DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "$package" >&2; then
            return
        fi
        # The package lists may be missing or older than the mirror.
        [ "$attempt" = 2 ] || apt-get update --quiet -o DPkg::Lock::Timeout=300 >&2 || true
    done
    fail "could not install $package: see above"
}

want=$(cat requirements.lock pyproject.toml lab/venv.sh | sha256sum | cut -d' ' -f1)-$PWD
stamp=.venv/made-from
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

say "making .venv from requirements.lock"
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    python=$(find_python)
    have_venv "$python" || install_venv "$python"
    "$python" -m venv .venv
fi
pip() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check install "$@" >&2
}
pip --require-hashes --requirement requirements.lock
# The project's name, version and dependencies; its folders are not published (pyproject.toml).
pip --no-deps --no-build-isolation --editable .
ln -sf ../../operations/slurmstack.sh .venv/bin/slurmstack
# The launcher that an earlier version of the checkout put there may not find the engine any more.
[ ! -e .venv/bin/pulumi ] || .venv/bin/python -m engine.choose >&2
printf '%s\n' "$want" >"$stamp"
say ".venv is made"
