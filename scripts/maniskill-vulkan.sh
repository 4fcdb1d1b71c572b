#!/bin/sh
# Installs SwiftShader, a Vulkan driver that draws on the CPU, next to a Python: ManiSkill's SAPIEN needs a Vulkan
# driver even where nothing is drawn, and Debian 12's other software driver (Mesa 22.3) does not work with it.
# Debian has SwiftShader only inside its Chromium; two files are taken out of that package, nothing is installed.
# Not needed on machines with a GPU and its driver. Debian only; elsewhere, copy libvk_swiftshader.so out of any
# Chrome or Electron, with the vk_swiftshader_icd.json beside it, and name the latter in VK_ICD_FILENAMES.
#   PYTHON  the interpreter that will run the simulators, .venv/bin/python by default
set -eu

PYTHON=${PYTHON:-.venv/bin/python}
target=$("$PYTHON" -c 'import sys; print(sys.prefix)')/share/vulkan/icd.d
[ ! -e "$target/newt_swiftshader.json" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$(id -u)" = 0 ]; then
    apt-get update -qq
elif command -v sudo >/dev/null 2>&1; then
    sudo apt-get update -qq
fi
# Older releases have it in `chromium` itself.
for package in chromium-common chromium; do
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package") || continue
    dpkg-deb -x "$work/${package}"_*.deb "$work/files"
    driver=$work/files/usr/lib/chromium/libvk_swiftshader.so
    [ -e "$driver" ] || continue
    mkdir -p "$target"
    cp "$driver" "$target/"
    cp "$work/files/usr/lib/chromium/vk_swiftshader_icd.json" "$target/newt_swiftshader.json"
    echo "SwiftShader is in $target"
    exit 0
done
echo "No libvk_swiftshader.so in this system's Chromium packages; the top of $0 says what else to do." >&2
exit 1
