"""Manifests as lists of dictionaries."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
BASE = DEPLOY / "k8s"
OVERLAYS = sorted(path.parent.name for path in (DEPLOY / "overlays").glob("*/kustomization.yaml"))

# In the order in which docs/deployment.md lists them.
COMPONENTS = (
    "backup",
    "backup-s3",
    "laptop",
    "multi-node",
    "gpu",
    "gpu-sims",
    "keda",
    "planner-replicas",
    "served-models",
    "replay-shards",
    "external-redis",
    "servicemonitor",
    "traces",
    "ingress",
    "ingress-tls",
    "gateway",
    "mtls",
    "jobset",
)

# At the end of a name: kustomize's letters and digits.
HASH = re.compile(r"-[2456789bcdfghkmt]{10}$")

Manifest = dict[str, Any]


@functools.cache
def base() -> list[Manifest]:
    """What `kubectl apply -f deploy/k8s` sends, in its order."""
    files = sorted(path for path in BASE.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    return [manifest for path in files for manifest in yaml.safe_load_all(path.read_text())]


@functools.cache
def overlay(name: str) -> list[Manifest]:
    """What `kubectl apply -k deploy/overlays/NAME` sends."""
    return kustomized(DEPLOY / "overlays" / name)


@functools.cache
def combined(*names: str) -> list[Manifest]:
    """What a kustomization of one's own sends that has these components."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.relpath(DEPLOY, Path(folder).resolve())
        own = {"resources": [f"{root}/k8s"], "components": [f"{root}/components/{name}" for name in names]}
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(own))
        return kustomized(Path(folder))


def kustomized(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k FOLDER` sends, but for the hashes in names of ConfigMaps."""
    manifests = hashed(folder)
    text = yaml.safe_dump_all(manifests)
    for name in of_kind(manifests, "ConfigMap"):
        text = text.replace(name, re.sub(HASH, "", name))
    return list(yaml.safe_load_all(text))


def hashed(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k FOLDER` sends."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Name to manifest."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] in kinds}


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Whatever makes pods; for a CronJob the Job that it makes, and for a PodTemplate one of its pods."""
    found = of_kind(manifests, "Deployment", "StatefulSet", "Job")
    for name, cron in of_kind(manifests, "CronJob").items():
        found[name] = {"kind": "Job", "metadata": cron["metadata"], **cron["spec"]["jobTemplate"]}
    for name, pods in of_kind(manifests, "PodTemplate").items():
        found[name] = {"kind": "Job", "metadata": pods["metadata"], "spec": {"template": pods["template"]}}
    return found


def bytes_of(quantity: str) -> int:
    """A Kubernetes quantity of memory."""
    match = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", quantity)
    assert match, f"{quantity!r} is no quantity of memory"
    return int(match[1]) * 1024 ** (1 + ["Ki", "Mi", "Gi"].index(match[2]))


def cores_of(quantity: str) -> float:
    """A Kubernetes quantity of CPU."""
    match = re.fullmatch(r"(\d+)(m?)", quantity)
    assert match, f"{quantity!r} is no quantity of CPU"
    return int(match[1]) / (1000 if match[2] else 1)
