# All images of Newt. One target per service; the simulators share one and differ by their arguments:
#
#   docker build --target replay .
#   docker build --target planner --build-arg EXTRA=planner .
#   docker build --target sim --build-arg EXTRA=sim-metaworld --build-arg DOMAINS=metaworld --build-arg PACKAGES=libosmesa6 .
#
# compose.yaml has the arguments of every image: `docker compose build sim-metaworld`. Needs BuildKit.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
# The image to build in; another one than to run in may bring package caches or an index's settings.
ARG BUILD_IMAGE=${PYTHON_IMAGE}

# ---- our package, built once for all images: what it needs, and then its code
FROM ${BUILD_IMAGE} AS metadata
# Not empty: nothing is taken from the package index whose hash is not in constraints/hashes.txt.
ARG REQUIRE_HASHES=""
WORKDIR /src
COPY constraints constraints
COPY deploy/images/install.sh deploy/images/
COPY pyproject.toml ./
# Empty, so that a change of a text does not install everything again; the wheel with the code has them whole.
RUN --mount=type=cache,target=/root/.cache/pip \
    touch README.md LICENSE THIRD_PARTY_NOTICES.md && deploy/images/install.sh wheel

FROM metadata AS wheel
COPY README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY newt newt
COPY services services
RUN --mount=type=cache,target=/root/.cache/pip deploy/images/install.sh wheel

# ---- /opt/newt in two parts: what our code needs, which changes seldom, and our code, which is small and the same in all images
FROM ${BUILD_IMAGE} AS dependencies
ARG EXTRA
ARG EXTRAS=""
ARG TORCH=cpu
ARG TORCH_INDEX_URL=""
ARG REQUIRE_HASHES=""
ARG TORCH_SHA256=""
WORKDIR /src
COPY deploy/images/install.sh deploy/images/
COPY constraints.txt ./
COPY constraints constraints
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=metadata,source=/wheels,target=/wheels \
    deploy/images/install.sh dependencies

FROM ${BUILD_IMAGE} AS code
WORKDIR /src
COPY deploy/images/install.sh deploy/images/
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels deploy/images/install.sh newt

# ---- what all images share
FROM ${PYTHON_IMAGE} AS runtime
ARG PACKAGES=""
# tini is the first process: it passes signals on from the first moment, and buries orphans.
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends tini ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 newt \
    && useradd --uid 10001 --gid newt --home-dir /tmp --no-create-home --shell /usr/sbin/nologin newt
# HOME is the one folder that is writable in a container with a read-only root file system.
ENV PATH=/opt/newt/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# See newt/wire/polling.py.
ENV GRPC_EXPERIMENTS=-event_engine_client,-event_engine_listener
WORKDIR /tmp
LABEL org.opencontainers.image.vendor="Newt" org.opencontainers.image.licenses="MIT" org.opencontainers.image.version="0.1.0"
STOPSIGNAL SIGTERM

# ---- services
FROM runtime AS replay
COPY --from=dependencies /opt/newt /opt/newt
COPY --from=code /opt/newt /opt/newt
ENV NEWT_REPLAY_HOST=0.0.0.0 NEWT_REPLAY_PORT=50061 NEWT_REPLAY_METRICS_HOST=0.0.0.0 NEWT_REPLAY_METRICS_PORT=9100
USER 10001:10001
EXPOSE 50061 9100
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=5 \
    CMD ["python", "-m", "newt.wire.probe", "127.0.0.1:50061", "newt.v1.ReplayService"]
ENTRYPOINT ["tini", "--", "python", "-m", "services.replay"]
ARG REVISION=""
LABEL org.opencontainers.image.title="newt-replay" \
      org.opencontainers.image.description="Newt's replay service: episodes in Redis, training sequences out" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS planner
COPY --from=dependencies /opt/newt /opt/newt
COPY --from=code /opt/newt /opt/newt
ENV NEWT_PLANNER_HOST=0.0.0.0 NEWT_PLANNER_PORT=50071 NEWT_PLANNER_METRICS_HOST=0.0.0.0 NEWT_PLANNER_METRICS_PORT=9100
USER 10001:10001
EXPOSE 50071 9100
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s --retries=5 \
    CMD ["python", "-m", "newt.wire.probe", "127.0.0.1:50071", "newt.v1.PlannerService"]
ENTRYPOINT ["tini", "--", "python", "-m", "services.planner"]
ARG REVISION=""
LABEL org.opencontainers.image.title="newt-planner" \
      org.opencontainers.image.description="Newt's planner: plans in the world model, batched over all clients" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS learner
COPY --from=dependencies /opt/newt /opt/newt
# A named volume takes its owner from here.
RUN install -d -o newt -g newt /data
COPY --from=code /opt/newt /opt/newt
VOLUME /data
ENV NEWT_LEARNER_HOST=0.0.0.0 NEWT_LEARNER_PORT=8000 NEWT_LEARNER_METRICS_HOST=0.0.0.0 NEWT_LEARNER_METRICS_PORT=9100 \
    NEWT_LEARNER_HUB_HOST=0.0.0.0 NEWT_LEARNER_HUB_PORT=50081 NEWT_LEARNER_DATA_DIR=/data
USER 10001:10001
EXPOSE 8000 9100 50081
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s --retries=5 \
    CMD ["python", "-m", "newt.wire.probe", "127.0.0.1:50081", "newt.v1.WeightsService"]
ENTRYPOINT ["tini", "--", "python", "-m", "services.learner"]
ARG REVISION=""
LABEL org.opencontainers.image.title="newt-learner" \
      org.opencontainers.image.description="Newt's learner: runs by REST, training, weights for the planners" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS sim
COPY --from=dependencies /opt/newt /opt/newt
COPY --from=code /opt/newt /opt/newt
ARG EXTRA
ARG DOMAINS
ENV NEWT_SIM_HOST=0.0.0.0 NEWT_SIM_PORT=50051 NEWT_SIM_METRICS_HOST=0.0.0.0 NEWT_SIM_METRICS_PORT=9100 \
    NEWT_SIM_DOMAINS=${DOMAINS}
# On a node with GPUs, the container toolkit mounts the drivers that draw (EGL, Vulkan) only for who asks for them.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
USER 10001:10001
EXPOSE 50051 9100
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s --retries=5 \
    CMD ["python", "-m", "newt.wire.probe", "127.0.0.1:50051", "newt.v1.SimService"]
ENTRYPOINT ["tini", "--", "python", "-m", "services.sim"]
ARG REVISION=""
LABEL org.opencontainers.image.title="newt-${EXTRA}" \
      org.opencontainers.image.description="Newt's simulators: ${DOMAINS}" \
      org.opencontainers.image.revision="${REVISION}"

# ---- ManiSkill: a Vulkan driver that needs no GPU, and the meshes that its package does not have
FROM ${BUILD_IMAGE} AS vulkan
WORKDIR /src
COPY scripts/maniskill-vulkan.sh scripts/
RUN python -m venv --without-pip /opt/newt && PYTHON=/opt/newt/bin/python scripts/maniskill-vulkan.sh

FROM dependencies AS assets
COPY --from=code /opt/newt /opt/newt
# Packs to fetch (`python -m services.sim.domains.maniskill.assets --help`); "none" leaves their 27 tasks out.
ARG MANISKILL_ASSETS="ycb xarm6 anymal_c"
ENV MS_ASSET_DIR=/opt/maniskill
RUN mkdir -p /opt/maniskill/data \
    && if [ "${MANISKILL_ASSETS}" != none ]; then \
        /opt/newt/bin/python -m services.sim.domains.maniskill.assets ${MANISKILL_ASSETS}; fi

FROM sim AS sim-maniskill
COPY --from=vulkan /opt/newt/share/vulkan /opt/newt/share/vulkan
COPY --from=assets /opt/maniskill /opt/maniskill
ENV MS_ASSET_DIR=/opt/maniskill
ARG MANISKILL_ASSETS="ycb xarm6 anymal_c"
LABEL newt.assets="${MANISKILL_ASSETS}"
