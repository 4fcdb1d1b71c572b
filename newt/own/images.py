"""A container image of a source's simulator, and the files that bring it into compose and Kubernetes.

A folder of its own has everything: what the image is built from (`Dockerfile`, `requirements.txt`, `source/`), an
override file for compose (`compose.yaml`, and `compose.secure.yaml` for a secured one) and a kustomize component
(`kustomization.yaml`, `sim.yaml`, and `mtls/` for a secured deployment).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import newt
from newt.errors import AlreadyExistsError, InvalidInputError
from newt.own import manifests
from newt.own.requirements import requirements
from newt.tasks.domains import DOMAINS

BASE_IMAGE = f"localhost/newt/sim-mujoco:{newt.__version__}"
"""What images begin with: a simulator image of ours has Newt, Gymnasium and Pillow."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")
_LEFT_OUT = ("__pycache__", ".git", ".venv", "*.pyc", "*.mp4")

_DOCKERFILE = """\
# The simulator of {name}. Written by `newt env image`; build it with
#
#   docker build --tag {image} {folder}
FROM {base}
USER root
# pip is that of the system's Python; what it installs goes to Newt's.
COPY requirements.txt /own/
RUN if [ -s /own/requirements.txt ]; then /usr/local/bin/python -m pip --python /opt/newt/bin/python \\
    install --no-cache-dir --requirement /own/requirements.txt; fi
COPY source /own/source
USER 10001:10001
ENV NEWT_SIM_DOMAINS=own PYTHONPATH=/own/source
ENV NEWT_SIM_SOURCES='{sources}'
"""
_COMPOSE = """\
# The simulator of {name} in compose. Written by `newt env image`:
#
#   docker compose -f compose.yaml -f {folder}/compose.yaml up
services:
  sim-{name}:
    image: {image}
    build: {{context: {folder}}}
    pull_policy: never
    restart: unless-stopped
    read_only: true
    cap_drop: [ALL]
    security_opt: [no-new-privileges:true]
    logging: {{driver: json-file, options: {{max-size: 10m, max-file: "3"}}}}
    tmpfs: ["/tmp:exec"]
    stop_grace_period: 40s
    environment:
      OTEL_EXPORTER_OTLP_ENDPOINT: ${{OTEL_EXPORTER_OTLP_ENDPOINT:-}}
      OTEL_EXPORTER_OTLP_HEADERS: ${{OTEL_EXPORTER_OTLP_HEADERS:-}}
      OTEL_RESOURCE_ATTRIBUTES: ${{OTEL_RESOURCE_ATTRIBUTES:-}}
      OTEL_TRACES_SAMPLER: ${{OTEL_TRACES_SAMPLER:-parentbased_always_on}}
      OTEL_TRACES_SAMPLER_ARG: ${{OTEL_TRACES_SAMPLER_ARG:-}}
      NEWT_SIM_DRAIN_S: "30"
      NEWT_SIM_WORKERS: ${{NEWT_COMPOSE_SIM_WORKERS:-2}}
      NEWT_SIM_LOG_LEVEL: ${{NEWT_COMPOSE_LOG_LEVEL:-INFO}}
      OMP_NUM_THREADS: "1"
    deploy:
      resources:
        limits: {{cpus: "${{NEWT_COMPOSE_SIM_CPUS:-2}}", memory: "${{NEWT_COMPOSE_SIM_MEMORY:-4g}}"}}
  learner:
    environment:
      NEWT_LEARNER_SIMS__{name}: sim-{name}:50051
"""
_COMPOSE_SECURE = """\
# Mutual TLS for it, as compose.secure.yaml has it for all others. Written by `newt env image`:
#
#   scripts/certificates.sh --renew secrets sim-{name}      # the same authority, and one name more
#   docker compose -f compose.yaml -f {folder}/compose.yaml \\
#     -f compose.secure.yaml -f {folder}/compose.secure.yaml up
services:
  sim-{name}:
    environment: {{NEWT_TLS_DIR: /run/secrets/tls}}
    secrets:
      - {{source: ca.crt, target: /run/secrets/tls/ca.crt}}
      - {{source: sim.crt, target: /run/secrets/tls/tls.crt}}
      - {{source: sim.key, target: /run/secrets/tls/tls.key}}
"""


@dataclass(frozen=True)
class Image:
    """What is to be built.

    Attributes:
        source: A folder, a file, or what an installed package declares.
        name: Of the simulator: small letters, digits and dashes.
        folder: Where the files are written.
        base: Image to begin with.
        requirements: More packages, as pip takes them.
    """

    source: str
    name: str
    folder: Path
    base: str = BASE_IMAGE
    requirements: Sequence[str] = ()

    @property
    def tag(self) -> str:
        """The image's full name."""
        return f"localhost/newt/sim-{self.name}:{newt.__version__}"

    def write(self) -> None:
        """Writes all files.

        Raises:
            InvalidInputError: A name that images cannot have, or that is one of ours.
            AlreadyExistsError: Something else is in the folder.
        """
        if not _NAME.fullmatch(self.name):
            raise InvalidInputError("--name", f"got {self.name!r}, expected small letters, digits and dashes")
        if self.name in DOMAINS:
            raise InvalidInputError("--name", f"{self.name!r} is a simulator of Newt's; give yours another name")
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "Dockerfile").exists():
            raise AlreadyExistsError(f"{self.folder} is not empty, and not an image's; choose another --out")
        path, inside = Path(self.source).expanduser(), self.source
        target = self.folder / "source"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        if path.exists():
            inside = f"/own/source/{path.resolve().name}"
            if path.is_dir():
                shutil.copytree(
                    path,
                    target / path.resolve().name,
                    ignore=shutil.ignore_patterns(*_LEFT_OUT, self.folder.name),
                )
            else:
                shutil.copy(path, target / path.name)
        wanted = sorted({*requirements(self.source), *self.requirements})
        folder = str(self.folder.resolve())
        values = {"name": self.name, "image": self.tag, "folder": folder, "base": self.base}
        texts = {
            "Dockerfile": _DOCKERFILE.format(**values, sources=json.dumps([inside])),
            "requirements.txt": "".join(f"{one}\n" for one in wanted),
            "compose.yaml": _COMPOSE.format(**values),
            "compose.secure.yaml": _COMPOSE_SECURE.format(**values),
            **manifests.component(self.name, self.tag),
        }
        for file, text in texts.items():
            (self.folder / file).parent.mkdir(exist_ok=True)
            (self.folder / file).write_text(text, encoding="utf-8")
