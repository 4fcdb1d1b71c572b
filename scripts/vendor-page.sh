#!/bin/sh
# Brings uPlot, which draws the page's curves, into services/learner/page/static/vendor. Usage: vendor-page.sh [VERSION]
# Needs npm, which nobody needs to install or run Newt. With --check it only compares the files with their checksums.
set -eu

cd "$(dirname "$0")/../services/learner/page/static/vendor/uplot"
if [ "${1:-}" = --check ]; then
    exec sha256sum --check --strict --quiet SHA256SUMS
fi
VERSION=${1:-$(cat VERSION)}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm pack --silent --pack-destination "$folder" "uplot@$VERSION" >/dev/null
tar -xzf "$folder"/uplot-*.tgz -C "$folder"
cp "$folder/package/dist/uPlot.iife.min.js" uplot.min.js
cp "$folder/package/dist/uPlot.min.css" uplot.min.css
cp "$folder/package/LICENSE" LICENSE
echo "$VERSION" >VERSION
sha256sum LICENSE VERSION uplot.min.css uplot.min.js >SHA256SUMS
echo "uPlot $VERSION is in $PWD"
