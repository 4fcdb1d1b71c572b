#!/usr/bin/env bash
# Makes everything that compose.secure.yaml mounts, and what docs/security.md puts into Kubernetes.
#
#   scripts/secrets.sh [--force] [FOLDER]          FOLDER is secrets/ unless named
#
# FOLDER gets certificates (scripts/certificates.sh), api-token, redis-password and redis-users.acl, which has the digest
# of that password. Nothing is overwritten without --force.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

force=""
if [ "${1:-}" = --force ]; then
    force=--force
    shift
fi
case ${1:-} in -*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
folder=${1:-secrets}

if [ -z "$force" ]; then
    for name in api-token redis-password redis-users.acl; do
        if [ -e "$folder/$name" ]; then
            echo "$0: $folder/$name is there already; --force makes everything new" >&2
            exit 1
        fi
    done
fi
"$here/certificates.sh" $force "$folder"

umask 077
cd "$folder"
rm -f api-token redis-password redis-users.acl
openssl rand -hex 32 >api-token
openssl rand -hex 32 >redis-password
digest=$(tr -d '\n' <redis-password | openssl dgst -sha256 -r | cut -d' ' -f1)
# As newt/local/redis_server.py has them; a test compares.
cat >redis-users.acl <<ACL
user default off
user newt on #$digest ~newt:* resetchannels -@all +@read +@write +eval +evalsha +script|load +@transaction +@connection -@dangerous +info
user health on nopass resetchannels -@all +ping
ACL
# Containers run as users of their own and get these files by bind mounts, so they must be readable. It is the
# folder's mode that keeps everybody else on this machine out. The authority's key is mounted nowhere.
chmod 444 tls.key ./*/tls.key api-token redis-password redis-users.acl
echo "$folder: api-token, redis-password, redis-users.acl"
