#!/bin/sh
# Installs the Debian/Ubuntu packages that have no Python wheel; with --dev also what the tests need, with --engine what those on a
# Docker engine need. Does nothing where they are there already.
#   libosmesa6       software OpenGL, for drawing MuJoCo frames without a GPU; EGL's where a release no longer has it
#   python3.X-venv   Debian's Python comes without the venv module
#   g++              --dev: torch.compile needs it, and the tests compile
#   libfaketime      --dev: the tests let clocks jump
#   chromium         --dev: the tests open the learner's page
#   prometheus, prometheus-alertmanager
#                    --dev: the tests ask them, promtool and amtool; their daemons are switched off again
#   podman and its helpers
#                    --engine: plays manifests of deploy/k8s, for root and beside a Docker engine
# PYTHON3 is the interpreter that the virtual environment will be made with.
set -eu

PATH=$PATH:/usr/sbin:/sbin # for ldconfig
has_library() { ldconfig -p 2>/dev/null | grep -q "$1"; }
PYTHON=${PYTHON3:-$("$(dirname "$0")/find-python.sh")}
wanted=""
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    wanted="$wanted $("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
has_library 'libOSMesa\.so' || { has_library 'libEGL\.so' && has_library 'libEGL_mesa\.so'; } || wanted="$wanted libosmesa6"
if [ "${1:-}" = --dev ]; then
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || wanted="$wanted libfaketime"
    command -v "${CXX:-g++}" >/dev/null 2>&1 || wanted="$wanted g++"
    { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null 2>&1 ||
        wanted="$wanted chromium"
    { command -v prometheus && command -v promtool; } >/dev/null 2>&1 || wanted="$wanted prometheus"
    { command -v prometheus-alertmanager && command -v amtool; } >/dev/null 2>&1 || wanted="$wanted prometheus-alertmanager"
fi
if [ "${1:-}" = --engine ] && [ "$(id -u)" = 0 ] && command -v docker >/dev/null 2>&1 &&
    command -v apt-get >/dev/null 2>&1 && ! command -v podman >/dev/null 2>&1; then
    wanted="$wanted podman catatonit netavark aardvark-dns"
fi
[ -n "$wanted" ] || exit 0

echo "Newt needs system packages that have no wheel:$wanted"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "No apt-get here. Install what this system calls them, and call make again." >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null 2>&1; then
    sudo="sudo"
else
    echo "Not root and no sudo here. As root, run: apt-get install -y$wanted" >&2
    exit 1
fi
$sudo apt-get update -qq
case "$wanted" in
*libosmesa6*)
    if ! apt-cache show libosmesa6 >/dev/null 2>&1; then
        wanted="${wanted% libosmesa6*} libegl1 libegl-mesa0 libgl1-mesa-dri${wanted#* libosmesa6}"
        echo "This release has no libosmesa6: installing$wanted"
    fi
    ;;
esac
case "$wanted" in
*netavark*)
    if ! apt-cache show netavark >/dev/null 2>&1; then
        wanted="${wanted% podman*}"
        echo "This release has no netavark: not installing Podman"
        [ -n "$wanted" ] || exit 0
    fi
    ;;
esac
# shellcheck disable=SC2086  # the list is meant to be split
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $wanted
# Debian starts what it installs; these would hold the ports of compose's.
for daemon in prometheus prometheus-alertmanager; do
    case "$wanted " in *" $daemon "*) $sudo systemctl disable --now $daemon >/dev/null 2>&1 || true ;; esac
done
