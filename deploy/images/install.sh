#!/bin/sh
# Makes /opt/newt, the virtual environment of one image, in two parts: what our code needs, in the versions of constraints/, and
# our code.
#   EXTRA            the extra of pyproject.toml that the image is for
#   EXTRAS           more extras, separated by commas: otel, kubernetes
#   TORCH            "cpu", "cu126" and the like take that build of torch from PyTorch's own index, which uv knows; "cuda"
#                    insists on the CUDA build of the package index, "index" takes what that has
#   TORCH_INDEX_URL  another index than PyTorch's own, such as a mirror
#   REQUIRE_HASHES   not empty: takes no file whose hash is not in constraints/hashes.txt
#   TORCH_SHA256     with it, the hash of the file of a build from PyTorch's index, which is not there
# A change of our code neither installs the rest again nor makes anybody pull it again: `install.sh wheel` makes our wheel,
# `install.sh dependencies` installs what that needs, and `install.sh newt` the wheel alone, elsewhere, to be copied over that.
set -eu

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
constraints=/src/constraints/maniskill.txt
wheel=$(echo /wheels/newt-*.whl)
ours=""
with_hashes() { sed -n "/^$1==/,/[^\\\\]\$/p" /src/constraints/hashes.txt; }
if [ -n "${REQUIRE_HASHES:-}" ]; then
    constraints=/src/constraints/hashes.txt
    # The pip of the image may be too old to take hashes from constraints.
    with_hashes pip >/tmp/pip.txt
    python -m pip install --quiet --require-hashes -r /tmp/pip.txt
    # Those of what packages without a wheel, and our wheel, are built with.
    export PIP_BUILD_CONSTRAINT=$constraints
fi
install() { python -m pip --python /opt/newt/bin/python install --quiet "$@"; }

# Alone, and before the rest: no other package is looked for in PyTorch's index.
build_of_torch() {
    if [ -n "${REQUIRE_HASHES:-}" ] && [ -z "${TORCH_SHA256:-}" ]; then
        echo "REQUIRE_HASHES takes $1 only with TORCH_SHA256, the hash of its file; or TORCH=cuda" >&2
        exit 2
    fi
    echo "$1${TORCH_SHA256:+ --hash=sha256:$TORCH_SHA256}" >/tmp/torch.txt
    if [ -n "${TORCH_INDEX_URL:-}" ]; then
        install --no-deps --index-url "$TORCH_INDEX_URL" -r /tmp/torch.txt
        return
    fi
    if [ -n "${REQUIRE_HASHES:-}" ]; then with_hashes uv; else sed -n '/^uv==/p' constraints/pip.txt; fi >/tmp/uv.txt
    python -m pip install --quiet -r /tmp/uv.txt
    python -m uv pip install --quiet --no-config --no-cache --python /opt/newt/bin/python --no-deps \
        --torch-backend "${TORCH}" ${TORCH_SHA256:+--require-hashes} -r /tmp/torch.txt
}

case $1 in
wheel) python -m pip wheel --quiet --no-deps --wheel-dir /wheels . ;;
dependencies)
    python -m venv --without-pip /opt/newt
    torch=$(sed -n 's/^torch==//p' constraints.txt) exactly=""
    case "${EXTRA}" in planner | learner | sim-maniskill) ;; *) TORCH=index ;; esac # others come without torch
    case "${TORCH}" in
    index) ;;
    cuda) exactly="torch===${torch}" ;; # released versions lie there as CUDA builds
    cpu | cu[0-9]*) build_of_torch "torch==${torch}+${TORCH}" ;;
    *) echo "TORCH is '${TORCH}', expected cpu, cuda, cuNNN or index" >&2; exit 2 ;;
    esac
    # pip wants a hash of our own wheel, too, which was made a moment ago.
    [ -z "${REQUIRE_HASHES:-}" ] || ours=" --hash=sha256:$(sha256sum "${wheel}" | cut -d ' ' -f 1)"
    printf '%s\n' "newt[${EXTRA}${EXTRAS:+,$EXTRAS}] @ file://${wheel}${ours}" "${exactly}" >/tmp/requirements.txt
    export PIP_CONSTRAINT=$constraints
    install -r /tmp/requirements.txt
    ;;
newt)
    python -m venv --without-pip /opt/newt
    install --no-deps "${wheel}"
    ;;
*) echo "usage: $0 wheel|dependencies|newt" >&2; exit 2 ;;
esac
