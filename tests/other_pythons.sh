#!/bin/sh
# Runs the tests on every other Python this machine has that we support. Give it the one they ran on already.
set -eu
have=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

find_python() {  # on the PATH, or where pyenv keeps them; a shim that leads nowhere does not count
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c "import sys; assert '%d.%d' % sys.version_info[:2] == '$1'" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

for version in 3.11 3.12 3.13 3.14; do
    python=$(find_python "$version")
    if [ "$version" = "$have" ] || [ -z "$python" ]; then
        continue
    fi
    venv=".venv-$version"
    if [ ! -e "$venv/installed" ] || [ requirements-dev.txt -nt "$venv/installed" ]; then
        "$python" -m venv "$venv"
        if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt; then
            echo "Python $version: a package is not to be had for it; not tested."
            [ "$version" = 3.14 ] && continue
            exit 1
        fi
        touch "$venv/installed"
    fi
    echo "Python $version:"
    "$venv/bin/python" -m pytest
done
