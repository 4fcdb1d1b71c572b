#!/bin/sh
# Makes /opt/newt, the virtual environment of one image: ours and what it needs, in the versions of constraints/.
#   EXTRA            the extra of pyproject.toml that the image is for
#   EXTRAS           more extras, separated by commas: otel, kubernetes
#   TORCH            "cpu" or "cuda" insists on that build of torch, "cu126" and the like on one for a CUDA version, from
#                    an index that has it; empty takes what the package index has
#   TORCH_INDEX_URL  another index to look for torch in
#   REQUIRE_HASHES   not empty: takes no file whose hash is not in constraints/hashes.txt
#   TORCH_SHA256     with it, the hash of the file of another build of torch, which is not there
# Called three times, so that a change of our code does not install the rest again: `install.sh wheel` makes our wheel,
# `install.sh dependencies` reads what that needs, `install.sh newt` adds its code.
set -eu

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
constraints=/src/constraints/maniskill.txt
wheel=$(echo /wheels/newt-*.whl)
ours=""
if [ -n "${REQUIRE_HASHES:-}" ]; then
    constraints=/tmp/hashes.txt
    sed "${TORCH_SHA256:+s/^torch==.*/&\n    --hash=sha256:${TORCH_SHA256} \\\\/}" constraints/hashes.txt >$constraints
    # The pip of the image may be too old to take hashes from constraints.
    sed -n '/^pip==/,/[^\\]$/p' $constraints >/tmp/pip.txt
    python -m pip install --quiet --require-hashes -r /tmp/pip.txt
    # Those of what packages without a wheel, and our wheel, are built with.
    export PIP_BUILD_CONSTRAINT=$constraints
fi
install() { python -m pip --python /opt/newt/bin/python install --quiet "$@"; }

case $1 in
wheel) python -m pip wheel --quiet --no-deps --wheel-dir /wheels . ;;
dependencies)
    python -m venv --without-pip /opt/newt
    # Released versions lie on the index as CUDA builds; a CPU build's version ends in +cpu.
    torch=$(sed -n 's/^torch==//p' constraints.txt)
    case "${TORCH}" in
    "") torch="" ;;
    cpu) torch="torch==${torch}+cpu" ;;
    cuda) torch="torch===${torch}" ;;
    cu[0-9]*) torch="torch==${torch}+${TORCH}" ;;
    *) echo "TORCH is '${TORCH}', expected cpu, cuda, cuNNN or nothing" >&2; exit 2 ;;
    esac
    # Images without torch do not get it by naming it.
    case "${EXTRA}" in planner | learner | sim-maniskill) ;; *) torch="" ;; esac
    # pip wants a hash of our own wheel, too, which was made a moment ago.
    [ -z "${REQUIRE_HASHES:-}" ] || ours=" --hash=sha256:$(sha256sum "${wheel}" | cut -d ' ' -f 1)"
    printf '%s\n' "newt[${EXTRA}${EXTRAS:+,$EXTRAS}] @ file://${wheel}${ours}" "${torch}" >/tmp/requirements.txt
    export PIP_CONSTRAINT=$constraints
    install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} -r /tmp/requirements.txt
    ;;
newt) install --no-deps --force-reinstall "${wheel}" ;;
*) echo "usage: $0 wheel|dependencies|newt" >&2; exit 2 ;;
esac
