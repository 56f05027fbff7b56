#!/bin/sh
# Makes the environment: install.sh VENV PACKAGE_DIR...
# Needs Python 3.11+ and nothing else. Every step may be interrupted and run again.
set -eu

venv=$1
shift
python=$venv/bin/python
uv=$venv/bin/uv

fail() {
    echo "install: $1" >&2
    exit 1
}

runs() { # the interpreter exists, starts, and is new enough (a pyenv shim may exist and not start)
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() { # prints the first usable interpreter; one that can make environments is better
    second=
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        runs "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        second=${second:-$candidate}
    done
    [ -n "$second" ] || return 1
    echo "$second"
}

locked() { # prints the lines of requirements.lock for one package, with its hashes
    awk -v start="$1==" 'index($0, start) == 1 { on = 1; print; next } /^[^ ]/ { on = 0 } on' requirements.lock
}

make_environment() {
    found=$(find_python) || fail "no Python 3.11 or newer found; install one (Debian: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12"
    if "$found" -c 'import ensurepip, venv' 2>/dev/null; then
        "$found" -m venv --clear "$venv"
    elif "$found" -m pip --version >/dev/null 2>&1 && "$found" -c 'import venv' 2>/dev/null; then
        "$found" -m venv --clear --without-pip "$venv"
    else
        version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$found cannot make virtual environments (no ensurepip); install it (Debian: apt-get install python$version-venv) or name another: make PYTHON=/path/to/python3"
    fi
    locked uv >"$venv/uv.txt"
    [ -s "$venv/uv.txt" ] || fail "requirements.lock does not name uv; restore it (git checkout requirements.lock)"
    if [ -x "$venv/bin/pip" ]; then
        set -- "$python" -m pip
    else
        set -- "$found" -m pip --python "$python"
    fi
    "$@" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$venv/uv.txt" ||
        fail "pip could not install uv; the lines above say why (no network, or a mirror that pip does not know?)"
}

if ! runs "$python" || ! "$uv" --version >/dev/null 2>&1; then
    make_environment
fi

# uv does not read pip's settings; whoever set a mirror or a certificate for pip means uv too.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
    [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
fi
[ -n "${SSL_CERT_FILE:-}" ] || [ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="$PIP_CERT"
# Across file systems uv would warn and copy; copy at once.
if [ -z "${UV_LINK_MODE:-}" ] && ! "$python" -c '
import os, sys
cache = sys.argv[1]
while not os.path.exists(cache):
    cache = os.path.dirname(cache)
sys.exit(os.stat(cache).st_dev != os.stat(sys.argv[2]).st_dev)' "$("$uv" cache dir)" "$venv"; then
    export UV_LINK_MODE=copy
fi

echo "Installing the dependencies into $venv; the first time takes about a minute." >&2
# Compiled now, imports take a third of the time: where PYTHONDONTWRITEBYTECODE is set, for ever.
"$uv" pip install --quiet --compile-bytecode --python "$python" --require-hashes -r requirements.lock
for package in "$@"; do
    shift
    set -- "$@" -e "$package"
done
"$uv" pip install --quiet --python "$python" --no-deps --no-build-isolation "$@"
