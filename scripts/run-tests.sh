#!/bin/sh
# Parts of the tests, on a machine whose cores they fill: run-tests.sh [fast] [long] [engine]. A few that fail beside the others are
# run once more, alone: what fails again has failed; what passes then is named, since it depends on how busy the machine is, which is
# worth mending. With NEWT_TEST_UNTIL (seconds since the epoch) no test of the parts long and engine begins later, but once more.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
most_again=${MOST_AGAIN:-8} # more than these are no accident

failed() { # tests that failed in the last run, a line each
    "$python" - <<'PY'
import json, pathlib
path = pathlib.Path(".pytest_cache/v/cache/lastfailed")
print("\n".join(json.loads(path.read_text()) if path.exists() else ()))
PY
}

part() { # marks, then more of pytest's arguments
    marks=$1
    shift
    rm -f .pytest_cache/v/cache/lastfailed
    "$python" -m pytest -m "$marks" "$@" && return 0
    names=$(failed)
    [ -n "$names" ] && [ "$(echo "$names" | wc -l)" -le "$most_again" ] || return 1
    printf '\nrun-tests: once more, alone:\n%s\n' "$names"
    env -u NEWT_TEST_UNTIL "$python" -m pytest -m "$marks" --last-failed --last-failed-no-failures none || return 1
    printf '\nrun-tests: failed beside others, passed alone:\n%s\n' "$names"
}

beside() { # on both cores
    OMP_NUM_THREADS=1 part "$@" -n 2 --dist loadfile --no-loadscope-reorder
}

result=0
for name in "${@:-fast}"; do
    case $name in
    fast) (unset NEWT_TEST_UNTIL && beside "not docker and not long" --durations 40) || result=1 ;;
    long) beside "long" --durations 20 || result=1 ;;
    engine) part docker --durations 15 || result=1 ;;
    *) echo "run-tests: $name: expected fast, long or engine" >&2 && exit 2 ;;
    esac
done
exit $result
