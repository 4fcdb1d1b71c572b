#!/bin/sh
# Prints the Python that the virtual environment is made with: the newest that works of those that Newt runs on. One
# that can make virtual environments goes first; scripts/system-packages.sh can bring the module that Debian leaves out.
#   PYTHON3  insists on one, by name or path
set -eu

try() { # an interpreter, and what it must be able to import
    command -v "$1" >/dev/null 2>&1 && "$1" -c "
import sys, sysconfig, ssl, ctypes, lzma, $2
sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and sys.implementation.name == 'cpython'
              and not sysconfig.get_config_var('Py_GIL_DISABLED')))" >/dev/null 2>&1
}

for modules in "venv, ensurepip" os; do
    for python in ${PYTHON3:-python3.13 python3.12 python3.11 python3}; do
        if try "$python" "$modules"; then
            echo "$python"
            exit 0
        fi
    done
    [ -z "${PYTHON3:-}" ] && python=$(uv python find --no-python-downloads '>=3.11,<3.14' 2>/dev/null) || continue
    if try "$python" "$modules"; then
        echo "$python"
        exit 0
    fi
done
found=${PYTHON3:-python3}
echo "Newt needs Python 3.11, 3.12 or 3.13, and $found is $("$found" --version 2>/dev/null || echo 'not here'):" \
    "install one (apt-get install python3; or uv: uv python install 3.12), or name it: make PYTHON3=/path/to/python3.12 ..." >&2
exit 1
