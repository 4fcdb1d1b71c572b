"""A setting that has changed reaches the pods that read it: `kubectl apply -k` starts those anew, and no others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import BASE, COMPONENTS, DEPLOY, HASH, Manifest, base, hashed, kustomized, of_kind, workloads

ALL = [f"components/{name}" for name in COMPONENTS]
READERS = {
    "learner": {"learner", "node", "backup"},
    "planner": {"planner"},
    "redis": {"redis"},
    "replay": {"replay"},
}


def overlay(folder: Path, components: list[str], patches: list[dict[str, Any]]) -> list[Manifest]:
    """What a kustomization of somebody's own sends."""
    folder.mkdir()
    root = os.path.relpath(DEPLOY, folder.resolve())
    own = {"resources": [f"{root}/k8s"], "components": [f"{root}/{name}" for name in components], "patches": patches}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
    return hashed(folder)


def read(tree: Any) -> Iterator[str]:
    """Names of the ConfigMaps that a manifest refers to."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("configMapRef", "configMap"):
                yield value["name"]
            else:
                yield from read(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from read(item)


def test_kustomize_and_apply_send_the_same() -> None:
    def in_order(manifests: list[Manifest]) -> list[Manifest]:
        return sorted(manifests, key=lambda manifest: (manifest["kind"], manifest["metadata"]["name"]))

    assert in_order(kustomized(BASE)) == in_order(base())


def test_every_name_has_a_hash_wherever_it_stands(tmp_path: Path) -> None:
    # external-redis and replay-shards exclude each other; the former leaves out the ConfigMap of Redis.
    built = overlay(tmp_path / "all", [name for name in ALL if name != "components/external-redis"], [])
    read_there = {name for manifest in built for name in read(manifest)}
    made = set(of_kind(built, "ConfigMap"))
    assert read_there == made
    assert all(HASH.search(name) for name in made)


@pytest.mark.parametrize("name", READERS)
def test_a_patch_of_ones_own_changes_the_pods_that_read_it(name: str, tmp_path: Path) -> None:
    components = ["components/backup", "components/multi-node"]
    change = [{"op": "add", "path": "/data/MORE", "value": "1"}]
    patches = [{"target": {"kind": "ConfigMap", "name": name}, "patch": yaml.safe_dump(change)}]
    before = workloads(overlay(tmp_path / "before", components, []))
    after = workloads(overlay(tmp_path / "after", components, patches))
    assert {name for name in after if after[name]["spec"] != before[name]["spec"]} == READERS[name]
