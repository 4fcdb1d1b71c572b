#!/usr/bin/env bash
# Makes what NEWT_TLS_DIR wants: an authority of your own, and certificates for the services and their clients.
#
#   scripts/certificates.sh [--renew | --force] [--days N] FOLDER [NAME ...]
#
# FOLDER gets ca.crt, tls.crt, tls.key and ca.key, and a folder each with the first three for learner, planner, replay, sim and
# client, whose certificates may do what these do (docs/security.md). That of FOLDER itself has all their names, and may do
# everything. Give every machine one of the folders, and ca.key to nobody. The certificates serve loopback, the names of
# compose.yaml and compose.shards.yaml, and every NAME (a host name or an address; sim-... and replay-... for these alone).
# What is there is not overwritten, unless by --renew (new certificates of the same authority) or --force (everything new).
set -euo pipefail

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

force="" renew="" days=365
while [ $# -gt 0 ]; do
    case $1 in
        --force) force=1 ;;
        --renew) renew=1 ;;
        --days) days=${2:?"--days needs a number"} && shift ;;
        -*) usage ;;
        *) break ;;
    esac
    shift
done
[ $# -ge 1 ] || usage
folder=$1
shift

if [ -n "$renew" ] && [ ! -e "$folder/ca.key" ]; then
    echo "$0: $folder has no ca.key, so nothing to renew with" >&2
    exit 1
fi
if [ -z "$force$renew" ]; then
    for name in ca.key ca.crt tls.key tls.crt; do
        if [ -e "$folder/$name" ]; then
            echo "$0: $folder/$name is there already; --renew makes a new certificate, --force everything new" >&2
            exit 1
        fi
    done
fi

umask 077
mkdir -p "$folder"
chmod 700 "$folder"
work=$(mktemp -d "$folder/.new-XXXXXX")
trap 'rm -rf "$work"' EXIT

here=(localhost 127.0.0.1 ::1)
components=(learner planner replay sim client)
replays=(replay-{1,2})  # of compose.shards.yaml
sims=(sim-{dmcontrol,dmcontrol-ext,metaworld,maniskill,mujoco,box2d,robodesk,ogbench,miniarcade,atari})
own=()
for name in "$@"; do
    case $name in
        learner | planner | replay | sim | client) ;;  # a name that says what its owner may do: it is for that one alone
        sim-*) sims+=("$name") ;;
        replay-*) replays+=("$name") ;;
        *) own+=("$name") ;;
    esac
done

# Names and addresses as openssl wants them.
alternatives() {
    local name listed=()
    for name in "$@"; do
        case $name in
            *:* | *[0-9].*[0-9].*[0-9].*[0-9]) listed+=("IP:$name") ;;
            *) listed+=("DNS:$name") ;;
        esac
    done
    (IFS=,; echo "${listed[*]}")
}

cat >"$work/openssl.cnf" <<'CONFIG'
[req]
prompt = no
distinguished_name = name
[name]
O = Newt
CN = Newt
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[service]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $ENV::ALTERNATIVES
CONFIG
export ALTERNATIVES=DNS:localhost  # openssl reads all of the file, whichever part it wants
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

if [ -z "$renew" ]; then
    key "$work/ca.key"
    openssl req -new -x509 -config "$work/openssl.cnf" -extensions authority -subj "/O=Newt/CN=Newt authority" \
        -key "$work/ca.key" -days 3650 -out "$work/ca.crt"
else
    cp "$folder/ca.key" "$folder/ca.crt" "$work"
fi

# A key and a certificate: `certificate FOLDER NAME ...`, in the folder of that name within $work.
certificate() {
    local made=$work/$1
    mkdir -p "$made"
    key "$made/tls.key"
    export ALTERNATIVES
    ALTERNATIVES=$(alternatives "${@:2}")
    openssl req -new -config "$work/openssl.cnf" -key "$made/tls.key" -out "$work/request"
    openssl x509 -req -in "$work/request" -CA "$work/ca.crt" -CAkey "$work/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
        -extfile "$work/openssl.cnf" -extensions service -days "$days" -out "$made/tls.crt" 2>/dev/null
    chmod 644 "$made/tls.crt"
    # A container that reads the old key must be able to read the new one.
    [ -z "$renew" ] || chmod --reference="$folder/tls.key" "$made/tls.key"
}
chmod 644 "$work/ca.crt"
for component in "${components[@]}"; do
    names=("${here[@]}" "$component" "${own[@]}")
    [ "$component" != replay ] || names+=("${replays[@]}")
    [ "$component" != sim ] || names+=("${sims[@]}")
    certificate "$component" "${names[@]}"
    mkdir -p "$folder/$component"
    cp -p "$work/ca.crt" "$work/$component"
    mv -f "$work/$component"/* "$folder/$component"
done
names=("${here[@]}" "${components[@]}" "${replays[@]}" "${sims[@]}" "${own[@]}")
certificate . "${names[@]}"
mv -f "$work/ca.key" "$work/ca.crt" "$work/tls.key" "$work/tls.crt" "$folder"
echo "$folder: certificate for ${names[*]}, until $(openssl x509 -in "$folder/tls.crt" -noout -enddate | cut -d= -f2)"
echo "$folder/{$(IFS=,; echo "${components[*]}")}: the same for each alone"
