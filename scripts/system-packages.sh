#!/bin/sh
# Installs the Debian/Ubuntu packages that have no Python wheel; with --dev also what the tests need. Does nothing where
# they are there already.
#   libosmesa6       software OpenGL, for drawing MuJoCo frames without a GPU
#   g++              --dev: torch.compile needs it, and the tests compile
#   prometheus       --dev: the tests ask it and its promtool; its daemon is switched off again
#   python3.11-venv  Debian's Python comes without the venv module
set -eu

PYTHON=${PYTHON3:-python3.11}
wanted=""
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3.11-venv"
ldconfig -p | grep -q 'libOSMesa\.so' || wanted="$wanted libosmesa6"
if [ "${1:-}" = --dev ]; then
    command -v "${CXX:-g++}" >/dev/null 2>&1 || wanted="$wanted g++"
    { command -v prometheus && command -v promtool; } >/dev/null 2>&1 || wanted="$wanted prometheus"
fi
[ -n "$wanted" ] || exit 0

echo "Newt needs system packages that have no wheel:$wanted"
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null 2>&1; then
    sudo="sudo"
else
    echo "Not root and no sudo here. As root, run: apt-get install -y$wanted" >&2
    exit 1
fi
$sudo apt-get update -qq
# shellcheck disable=SC2086  # the list is meant to be split
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $wanted
# Debian starts what it installs; this one would hold the port of compose's Prometheus.
case "$wanted" in *prometheus*) $sudo systemctl disable --now prometheus >/dev/null 2>&1 || true ;; esac
