#!/usr/bin/env bash
# Makes what NEWT_TLS_DIR wants: an authority of your own, and one certificate for the services and their clients.
#
#   scripts/certificates.sh [--renew | --force] [--days N] FOLDER [NAME ...]
#
# FOLDER gets ca.crt, tls.crt, tls.key and ca.key; copy the first three to whoever takes part, and ca.key to nobody.
# The certificate serves loopback, the names of compose.yaml and every NAME (a host name or an address). What is there is not
# overwritten, unless by --renew (a new certificate of the same authority) or --force (everything new).
set -euo pipefail

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
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

names=(localhost 127.0.0.1 ::1 replay planner learner backup)
names+=(sim-{dmcontrol,dmcontrol-ext,metaworld,maniskill,mujoco,box2d,robodesk,ogbench,miniarcade,atari} "$@")
alternatives=()
for name in "${names[@]}"; do
    case $name in
        *:* | *[0-9].*[0-9].*[0-9].*[0-9]) alternatives+=("IP:$name") ;;
        *) alternatives+=("DNS:$name") ;;
    esac
done
cat >"$work/openssl.cnf" <<CONFIG
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
subjectAltName = $(IFS=,; echo "${alternatives[*]}")
CONFIG
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

if [ -z "$renew" ]; then
    key "$work/ca.key"
    openssl req -new -x509 -config "$work/openssl.cnf" -extensions authority -subj "/O=Newt/CN=Newt authority" \
        -key "$work/ca.key" -days 3650 -out "$work/ca.crt"
else
    cp "$folder/ca.key" "$folder/ca.crt" "$work"
fi
key "$work/tls.key"
openssl req -new -config "$work/openssl.cnf" -key "$work/tls.key" -out "$work/request"
openssl x509 -req -in "$work/request" -CA "$work/ca.crt" -CAkey "$work/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
    -extfile "$work/openssl.cnf" -extensions service -days "$days" -out "$work/tls.crt" 2>/dev/null
chmod 644 "$work/ca.crt" "$work/tls.crt"
# A container that reads the old key must be able to read the new one.
[ -z "$renew" ] || chmod --reference="$folder/tls.key" "$work/tls.key"
mv -f "$work/ca.key" "$work/ca.crt" "$work/tls.key" "$work/tls.crt" "$folder"
echo "$folder: certificate for ${names[*]}, until $(openssl x509 -in "$folder/tls.crt" -noout -enddate | cut -d= -f2)"
