"""ConfigMaps as kustomize generates them, but for the hash in their names (`make manifests`).

deploy/k8s/config.yaml has those of deploy/k8s/Kustomization, for `kubectl apply -f`, which generates none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent / "k8s"
TARGET = FOLDER / "config.yaml"

HEADER = """\
# Everything that is not secret. Written by `make manifests` from config/ and Kustomization: change those, not this one.
"""


class GeneratorError(ValueError):
    """A configMapGenerator has something that this module does not know."""


def files() -> dict[Path, str]:
    """The whole file."""
    content = yaml.safe_load((FOLDER / "Kustomization").read_text())
    return {TARGET: HEADER + "---\n".join(_text(manifest) for manifest in generated(content, FOLDER))}


def generated(kustomization: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The ConfigMaps that a kustomization generates.

    Args:
        kustomization: Its content.
        folder: Where it lies.

    Raises:
        GeneratorError: It generates them in a way that this module does not know.
    """
    found = []
    for generator in kustomization.get("configMapGenerator", []):
        options = generator["options"]
        unknown = generator.keys() - {"name", "namespace", "literals", "envs", "files", "options"}
        unknown |= options.keys() - {"labels", "disableNameSuffixHash"}
        if unknown:
            raise GeneratorError(f"{folder}: a ConfigMap by {sorted(unknown)}")
        lines = list(generator.get("literals", []))
        for name in generator.get("envs", []):
            lines += [line for line in (folder / name).read_text().splitlines() if line and not line.startswith("#")]
        data = dict(line.split("=", 1) for line in lines)
        for entry in generator.get("files", []):
            key, _, name = entry.rpartition("=")
            data[key or Path(name).name] = (folder / name).read_text()
        metadata = {"name": generator["name"], "namespace": generator["namespace"], "labels": options["labels"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return found


def _text(manifest: dict[str, Any]) -> str:
    metadata = manifest["metadata"]
    labels = ", ".join(f"{key}: {value}" for key, value in metadata["labels"].items())
    lines = ["apiVersion: v1", "kind: ConfigMap", "metadata:"]
    lines += [
        f"  name: {metadata['name']}",
        f"  namespace: {metadata['namespace']}",
        f"  labels: {{{labels}}}",
        "data:",
    ]
    for key, value in manifest["data"].items():
        if value.endswith("\n"):
            lines += [f"  {key}: |", *(f"    {line}" for line in value.splitlines())]
        else:
            lines.append(f"  {key}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"
