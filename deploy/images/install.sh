#!/bin/sh
# Makes /opt/newt, the virtual environment of one image: ours and what it needs, in the versions of constraints/.
#   EXTRA            the extra of pyproject.toml that the image is for
#   EXTRAS           more extras, separated by commas: otel, kubernetes
#   TORCH            "cpu" or "cuda" insists on that build of torch, "cu126" and the like on one for a CUDA version, from
#                    an index that has it; empty takes what the package index has
#   TORCH_INDEX_URL  another index to look for torch in
# Called twice, so that a change of our code does not install the rest again: `install.sh dependencies` reads what our
# wheel in /wheels needs, `install.sh newt` adds its code.
set -eu

export PIP_CONSTRAINT=/src/constraints/maniskill.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
wheel=$(echo /wheels/newt-*.whl)
install() { python -m pip --python /opt/newt/bin/python install --quiet "$@"; }

case $1 in
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
    # shellcheck disable=SC2086  # empty means absent
    install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "${wheel}[${EXTRA}${EXTRAS:+,$EXTRAS}]" $torch
    ;;
newt) install --no-deps --force-reinstall "${wheel}" ;;
*) echo "usage: $0 dependencies|newt" >&2; exit 2 ;;
esac
