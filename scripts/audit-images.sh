#!/bin/sh
# Looks for known vulnerabilities in images with Trivy or Grype, whichever is installed: audit-images.sh [IMAGE...]
# Without names: all images of compose.yaml, ours and those of others; of ours, those that are built. Fails if one has a high or
# critical vulnerability that its distribution or its package has mended.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "audit-images: $1" >&2
    exit 2
}
if command -v trivy >/dev/null 2>&1; then
    scan() { trivy image --quiet --scanners vuln --severity HIGH,CRITICAL --ignore-unfixed --exit-code 1 "$1"; }
elif command -v grype >/dev/null 2>&1; then
    scan() { grype --quiet --only-fixed --fail-on high "$1"; }
else
    fail "neither trivy nor grype is installed: https://trivy.dev and https://github.com/anchore/grype say how"
fi

if [ $# = 0 ]; then
    command -v docker >/dev/null 2>&1 || fail "no docker here to ask for the images; name some"
    names=$(docker compose -f compose.yaml -f compose.on-demand.yaml --profile all --profile alerts config --images) ||
        fail "docker compose does not tell the images"
    for image in $(echo "$names" | sort -u); do
        case "$image" in
        localhost/*) docker image inspect "$image" >/dev/null 2>&1 || { echo "not built: $image" && continue; } ;;
        esac
        set -- "$@" "$image"
    done
fi

bad=""
for image in "$@"; do
    echo "== $image"
    scan "$image" || bad="$bad $image"
done
[ -z "$bad" ] || { echo "audit-images: has vulnerabilities, or could not be scanned:$bad" >&2 && exit 1; }
