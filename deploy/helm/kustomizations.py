"""What kustomize's components change, under conditions of a chart.

Knows as much of kustomize as the chart's components need: resources, generated ConfigMaps, components of components,
images with a tag, JSON patches, removed objects and replacements. A test compares what Helm makes of it with what
kustomize itself makes.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from deploy import config
from deploy.helm.trees import Document, Either, Maybe, Tree, When, changed

KNOWN = {"apiVersion", "kind", "resources", "configMapGenerator", "components", "images", "patches", "replacements"}
# Where names of ConfigMaps stand that get a hash; in a chart they get none.
PASSED_BY = {"configurations"}


class ComponentError(ValueError):
    """A component has something that this module does not know."""


def read(file: Path, *conditions: str) -> list[Document]:
    """The manifests of a file."""
    return [Document(manifest, list(conditions)) for manifest in yaml.safe_load_all(file.read_text())]


def add(component: Path, condition: str, documents: dict[str, list[Document]]) -> None:
    """Changes documents as a component does, wherever a condition holds.

    Args:
        component: Its folder.
        condition: An expression of Helm's.
        documents: By name of the file of templates; the component's own resources become further ones.

    Raises:
        ComponentError: It has what this module does not know.
    """
    content = yaml.safe_load((component / "kustomization.yaml").read_text())
    unknown = content.keys() - KNOWN - PASSED_BY
    if unknown:
        raise ComponentError(f"{component.name}: {sorted(unknown)}")
    for resource in content.get("resources", []):
        documents[f"{component.name}-{resource}"] = read(component / resource, condition)
    add_config(component, content, documents, condition)
    for name in content.get("components", []):
        add(component / name, condition, documents)
    present = [document for group in documents.values() for document in group]
    for image in content.get("images", []):
        _tag(present, image["name"], image["newTag"], condition)
    for patch in content.get("patches", []):
        _patch(present, patch, condition, component.name)
    for replacement in content.get("replacements", []):
        _replace(present, replacement, condition, component.name)


def add_config(
    folder: Path, kustomization: dict[str, Any], documents: dict[str, list[Document]], *conditions: str
) -> None:
    """Adds the ConfigMaps that a kustomization generates, each in a file of its own, by whose text pods know a change.

    Args:
        folder: Where the kustomization lies.
        kustomization: Its content.
        documents: As in `add`.
        conditions: Expressions of Helm's.
    """
    for manifest in config.generated(kustomization, folder):
        documents[f"config-{manifest['metadata']['name']}.yaml"] = [Document(manifest, list(conditions))]


def _tag(documents: list[Document], name: str, tag: str, condition: str) -> None:
    def change(path: str, value: Any) -> Any:
        if path.endswith("/image") and isinstance(value, str) and value.rpartition(":")[0] == name:
            return Either(condition, f"{name}:{tag}", value)
        return value

    for document in documents:
        document.manifest = changed(document.manifest, change, document.name)


def _patch(documents: list[Document], patch: dict[str, Any], condition: str, component: str) -> None:
    content = yaml.safe_load(patch["patch"])
    if isinstance(content, dict):
        if content.get("$patch") != "delete" or "target" in patch:
            raise ComponentError(f"{component}: a patch that is neither JSON nor removes one object")
        name = f"{content['kind']}/{content['metadata']['name']}"
        for document in documents:
            if document.name == name:
                document.conditions.append(f"not {condition}")
        return
    for document in documents:
        if _is_target(document.manifest, patch["target"]):
            for operation in content:
                _operate(document.manifest, operation, condition, component)


def _replace(documents: list[Document], replacement: dict[str, Any], condition: str, component: str) -> None:
    """Copies a part of one manifest into others, as it is by then."""
    source = replacement["source"]
    (origin,) = (document for document in documents if document.name == f"{source['kind']}/{source['name']}")
    part = origin.manifest
    for name in source["fieldPath"].split("."):
        part = part[name]
    for target in replacement["targets"]:
        for document in documents:
            if not _is_target(document.manifest, target["select"]):
                continue
            if condition not in document.conditions:
                raise ComponentError(f"{component}: a replacement in {document.name}, which is there without it")
            for path in target["fieldPaths"]:
                *parents, last = path.split(".")
                node = document.manifest
                for name in parents:
                    node = node[name]
                node[last] = copy.deepcopy(part)


def _is_target(manifest: Tree, target: dict[str, str]) -> bool:
    unknown = target.keys() - {"kind", "name", "labelSelector"}
    if unknown:
        raise ComponentError(f"a target by {sorted(unknown)}")
    metadata = manifest["metadata"]
    if "labelSelector" in target:
        label = re.fullmatch(r"([\w./-]+)=([\w.-]+)", target["labelSelector"])
        if label is None:
            raise ComponentError(f"a target by the labels {target['labelSelector']}")
        if metadata.get("labels", {}).get(label[1]) != label[2]:
            return False
    # Both are regular expressions of kustomize's, which hold for the whole text.
    named = (("kind", manifest["kind"]), ("name", metadata["name"]))
    return all(re.fullmatch(target.get(key, ".*"), value) for key, value in named)


def _operate(manifest: Tree, operation: dict[str, Any], condition: str, component: str) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    node = manifest
    for part in parents:
        node = node[_position(node, part, component) if isinstance(node, list) else part]
    value = copy.deepcopy(operation.get("value"))
    kind = operation["op"]
    if isinstance(node, list) and kind == "add" and last == "-":
        node.append(Maybe(condition, [value]))
    elif isinstance(node, list) and kind == "remove":
        position = _position(node, last, component)
        node[position] = Maybe(f"not {condition}", [node[position]])
    elif isinstance(node, dict) and kind in ("add", "replace") and last in node:
        node[last] = Either(condition, value, node[last])
    elif isinstance(node, dict) and kind == "add":
        if any(isinstance(key, When) and last in inner for key, inner in node.items()):
            raise ComponentError(f"{component}: another component adds {operation['path']} as well")
        node.setdefault(When(condition), {})[last] = value
    elif isinstance(node, dict) and kind == "remove":
        node.setdefault(When(f"not {condition}"), {})[last] = node.pop(last)
    else:
        raise ComponentError(f"{component}: {kind} {operation['path']}")


def _position(items: list[Tree], number: str, component: str) -> int:
    """Of an item that has this number whatever the conditions."""
    position = int(number)
    if any(isinstance(item, Maybe) for item in items[: position + 1]):
        raise ComponentError(f"{component}: item {number} of a list that has not always as many before it")
    return position
