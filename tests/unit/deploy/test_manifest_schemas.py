"""Every manifest against the API schemas of two Kubernetes versions, offline."""

from __future__ import annotations

import copy

import kubernetes_validate
import pytest
import yaml
from manifests import COMPONENTS, DEPLOY, OVERLAYS, Manifest, base, combined, overlay

VERSIONS = ("1.29.0", "1.34.0")
# Their schemas come with their operators.
FOREIGN = {"monitoring.coreos.com/v1", "cert-manager.io/v1", "gateway.networking.k8s.io/v1", "keda.sh/v1alpha1"}
FOREIGN |= {"kueue.x-k8s.io/v1beta1"}


def validate(manifests: list[Manifest], version: str) -> None:
    kinds = {
        (manifest["apiVersion"], manifest["kind"]) for manifest in manifests if manifest["apiVersion"] not in FOREIGN
    }
    for api, kind in sorted(kinds):
        # As one list: the validator reads its schemas anew for every object that it is given.
        items = [manifest for manifest in manifests if (manifest["apiVersion"], manifest["kind"]) == (api, kind)]
        whole = {"apiVersion": api, "kind": f"{kind}List", "metadata": {}, "items": items}
        kubernetes_validate.validate(whole, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_base(version: str) -> None:
    validate(base(), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays(name: str, version: str) -> None:
    plain = base()
    changed = [manifest for manifest in overlay(name) if manifest not in plain]
    assert changed
    validate(changed, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_components_together(version: str) -> None:
    plain = base()
    validate([manifest for manifest in combined(*COMPONENTS) if manifest not in plain], version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("component", ["backup", "backup-s3"])
def test_what_restores_a_backup(component: str, version: str) -> None:
    validate([yaml.safe_load((DEPLOY / "components" / component / "restore.yaml").read_text())], version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_would_be_found(version: str) -> None:
    wrong = [copy.deepcopy(manifest) for manifest in base() if manifest["kind"] == "Deployment"][:1]
    wrong[0]["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong, version)


def test_only_what_apply_accepts() -> None:
    """`kubectl` refuses kustomizations, unknown kinds and objects whose namespace comes later."""
    manifests = base()
    assert manifests[0]["kind"] == "Namespace"
    namespace = manifests[0]["metadata"]["name"]
    assert all(manifest["metadata"]["namespace"] == namespace for manifest in manifests[1:])
    assert not {manifest["apiVersion"] for manifest in manifests} & FOREIGN
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(names) == len(set(names))
