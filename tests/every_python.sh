#!/bin/sh
# Runs the tests on the Python in BIN, with coverage, and beside it on every other one this machine has that we
# support: much of their time is waiting. What the others say comes at the end.
set -eu
bin=$1
have=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

find_python() {  # on the PATH, or where pyenv keeps them; a shim that leads nowhere does not count
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c "import sys; assert '%d.%d' % sys.version_info[:2] == '$1'" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

in_files() {  # NUMBER COMMAND... <FILES: runs each file of tests in a process of its own, so many at once
    at_once=$1
    shift
    xargs -P "$at_once" -I FILE sh -c '
        log=$(mktemp); file=$0
        "$@" "$file" >"$log" 2>&1 && status=0 || status=$?
        [ "$status" = 5 ] && status=0  # no test in it is for this Python
        echo "$file:"; cat "$log"; rm -f "$log"
        exit "$status"' FILE "$@"
}

test_on() {  # VERSION PYTHON
    venv=".venv-$1"
    if [ ! -e "$venv/installed" ] || [ requirements-dev.txt -nt "$venv/installed" ]; then
        "$2" -m venv "$venv"
        if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt; then
            echo "A package is not to be had for Python $1."
            [ "$1" = 3.14 ]  # the newest, for which packages may still be missing: not tested, and said so
            return
        fi
        touch "$venv/installed"
    fi
    ls tests/test_*.py | in_files 1 "$venv/bin/python" -m pytest -p no:cacheprovider -m "not once"
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
for version in 3.11 3.12 3.13 3.14; do
    python=$(find_python "$version")
    if [ "$version" != "$have" ] && [ -n "$python" ]; then
        { test_on "$version" "$python" >"$logs/$version" 2>&1 && echo passed || echo failed; } >"$logs/$version.verdict" &
    fi
done

status=0
# Most of the time is waiting, and two at once pass it; the largest files come first, so that none is left at the end.
ls -S tests/test_*.py | in_files 2 "$bin/coverage" run --parallel-mode -m pytest || status=1
# What a browser shows is the same on every Python; its tests do without tests/conftest.py, whose gevent is not for them.
ls tests/browser/test_*.py | in_files 2 "$bin/python" -m pytest --confcutdir=tests/browser || status=1
"$bin/coverage" combine --quiet || status=1
"$bin/coverage" report || status=1
wait
for log in "$logs"/*.verdict; do
    [ -e "$log" ] || continue
    version=$(basename "$log" .verdict)
    echo "Python $version:"
    cat "$logs/$version"
    grep -q passed "$log" || status=1
done
exit $status
