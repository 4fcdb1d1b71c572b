#!/bin/sh
# All tests, on a machine whose cores they fill (`make tests`). A few that fail beside the others are run once more, alone: what fails
# again has failed; what passes then is named, since it depends on how busy the machine is, which is worth mending.
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

part() { # a mark, then more of pytest's arguments
    mark=$1
    shift
    rm -f .pytest_cache/v/cache/lastfailed
    "$python" -m pytest -m "$mark" "$@" && return 0
    names=$(failed)
    [ -n "$names" ] && [ "$(echo "$names" | wc -l)" -le "$most_again" ] || return 1
    printf '\nrun-tests: once more, alone:\n%s\n' "$names"
    "$python" -m pytest -m "$mark" --last-failed --last-failed-no-failures none || return 1
    printf '\nrun-tests: failed beside others, passed alone:\n%s\n' "$names"
}

mkdir -p build
PYTHONPATH=. nice -n 10 "$python" tests/support/compose_stack.py >build/images.log 2>&1 &
images=$!
result=0
OMP_NUM_THREADS=1 part "not docker" -n 2 --dist loadfile --no-loadscope-reorder --durations 40 || result=1
wait $images || true
part docker --durations 15 || result=1
exit $result
