"""A container image of a source's simulator, and the files that bring it into compose and Kubernetes.

A folder of its own has everything: what the image is built from (`Dockerfile`, `requirements.txt`, `source/`), an
override file for compose (`compose.yaml`) and a kustomize component (`kustomization.yaml`, `sim.yaml`).
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
from newt.own.requirements import requirements

BASE_IMAGE = f"localhost/newt/sim-mujoco:{newt.__version__}"
"""What images begin with: a simulator image of ours has Newt, Gymnasium and Pillow."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")
_LEFT_OUT = ("__pycache__", ".git", ".venv", "*.pyc", "*.mp4")

KUBERNETES = """\
apiVersion: v1
kind: ServiceAccount
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  clusterIP: None
  selector: {labels}
  ports:
    - {{name: grpc, port: 50051, targetPort: grpc, appProtocol: grpc}}
    - {{name: metrics, port: 9100, targetPort: metrics}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  # No `replicas`: the autoscaler below owns the number.
  selector:
    matchLabels: {labels}
  template:
    metadata:
      labels: {labels}
      annotations: {{prometheus.io/scrape: "true", prometheus.io/port: "9100", prometheus.io/path: /metrics}}
    spec:
      serviceAccountName: sim-{name}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: sim
          image: {image}
          envFrom:
            - configMapRef: {{name: sim}}
          env:
            - {{name: NEWT_SIM_DOMAINS, value: {domains}}}
            # By default one worker per core of the node.
            - name: NEWT_SIM_WORKERS
              valueFrom: {{resourceFieldRef: {{resource: limits.cpu}}}}
          ports:
            - {{name: grpc, containerPort: 50051}}
            - {{name: metrics, containerPort: 9100}}
          startupProbe:
            grpc: {{port: 50051, service: liveness}}
            periodSeconds: 2
            failureThreshold: 90
          readinessProbe:  # the domain has taken a real step, and all workers run
            grpc: {{port: 50051, service: newt.v1.SimService}}
            periodSeconds: 5
            timeoutSeconds: 5
          livenessProbe:
            grpc: {{port: 50051, service: liveness}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources:
            requests: {{cpu: 250m, memory: {request}}}
            limits: {{cpu: "4", memory: {limit}}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - name: tmp
          emptyDir: {{sizeLimit: 1Gi}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow  # a pod that cannot become ready must not hold a node
  selector:
    matchLabels: {labels}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: sim-{name}
  namespace: newt
  labels: {labels}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: sim-{name}}}
  minReplicas: 1
  maxReplicas: 4
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {{type: AverageValue, averageValue: "3"}}  # cores of a replica, of the four that it may use
  behavior:
    # A replica that goes takes the running episodes of its sessions along.
    scaleDown: {{stabilizationWindowSeconds: 3600}}
"""
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
    stop_grace_period: 10s
    environment:
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
_KUSTOMIZATION = """\
# The simulator of {name} in Kubernetes. Written by `newt env image`: name this folder under `components` of a
# kustomization whose resources have deploy/k8s, and bring the image to the nodes.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources: [sim.yaml]
patches:
  - target: {{kind: ConfigMap, name: learner}}
    patch: |-
      - {{op: add, path: /data/NEWT_LEARNER_SIMS__{name}, value: "dns:///sim-{name}:50051"}}
"""


def kubernetes(name: str, image: str, domains: str, request: str = "512Mi", limit: str = "4Gi") -> str:
    """Manifests of one simulator.

    Args:
        name: What is behind `sim-` in its name; also its label `newt.dev/domain`.
        image: Its image, with a tag.
        domains: NEWT_SIM_DOMAINS.
        request: Memory of a pod with four workers, as a Kubernetes quantity.
        limit: The most that it may have.
    """
    labels = f"{{app.kubernetes.io/part-of: newt, app.kubernetes.io/component: sim, newt.dev/domain: {name}}}"
    return KUBERNETES.format(name=name, image=image, domains=domains, request=request, limit=limit, labels=labels)


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
            InvalidInputError: A name that images cannot have.
            AlreadyExistsError: Something else is in the folder.
        """
        if not _NAME.fullmatch(self.name):
            raise InvalidInputError("--name", f"got {self.name!r}, expected small letters, digits and dashes")
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
            "kustomization.yaml": _KUSTOMIZATION.format(**values),
            "sim.yaml": kubernetes(self.name, self.tag, "own"),
        }
        for file, text in texts.items():
            (self.folder / file).write_text(text, encoding="utf-8")
