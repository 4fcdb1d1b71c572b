"""Files of deploy/chart (`make manifests`)."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import newt
from deploy.helm import kustomizations
from deploy.helm.trees import Document, Each, Maybe, Raw, When, changed, template
from deploy.helm.values import EXCLUSIVE, NEEDS, SWITCHES, Value, ref, schema, values

DEPLOY = Path(__file__).resolve().parents[1]
TARGET = DEPLOY / "chart"
WRITTEN = (
    "Written by `make manifests` from deploy/k8s and deploy/components: change those, or deploy/helm, not this file."
)
PULL_SECRETS = (
    "[{{ range $i, $name := .Values.image.pullSecrets }}{{ if $i }}, {{ end }}{name: {{ $name | quote }}}{{ end }}]"
)
IMAGES = "localhost/newt/"
NAMESPACE = "newt"
# A name of digits only is a text all the same.
RELEASE_NAMESPACE = "{{ .Release.Namespace | quote }}"
# Ends of the paths of fields that hold it; names of hosts have it as well.
NAMESPACES = ("metadata/namespace", "RoleBinding/nodes/subjects/0/namespace", "data/NEWT_LEARNER_NODE_NAMESPACE")
# The value of the nodes that pods may run on, by their component.
NODES = {
    "learner": "learner",
    "node": "multiNode",
    "planner": "planner",
    "redis": "redis",
    "replay": "replay",
    "sim": "sims",
}
# The value with further settings of whoever reads a ConfigMap, by its name.
SETTINGS = {"learner": "learner", "planner": "planner", "replay": "replay", "sim": "sims"}
GPU = "nvidia.com/gpu"
SHARDS = "(int .Values.replayShards.count)"

CHART = f"""\
# {WRITTEN}
apiVersion: v2
name: newt
description: Massively multitask world-model reinforcement learning as microservices
type: application
version: {newt.__version__}
appVersion: {newt.__version__}
kubeVersion: ">=1.29.0-0"
"""


def described() -> list[tuple[Value, Any]]:
    """Every value with its default, in the order of values.yaml."""
    defaults = _parametrised(_documents())
    return [(value, defaults[value.path]) for value in values()]


def files() -> dict[Path, str]:
    """All of them but for values-laptop.yaml and NOTES.txt, which are written by hand."""
    documents = _documents()
    defaults = _parametrised(documents)
    _certified(documents)
    _placed(documents)
    _summed(documents)
    templates = {TARGET / "templates" / name: template(group) for name, group in documents.items()}
    return {
        TARGET / "Chart.yaml": CHART,
        TARGET / "values.yaml": _values_file(defaults),
        TARGET / "values.schema.json": json.dumps(schema(defaults), indent=1) + "\n",
        TARGET / "templates" / "checks.yaml": _checks(),
        **{path: f"# {WRITTEN}\n{text}" for path, text in templates.items()},
    }


def _documents() -> dict[str, list[Document]]:
    """What deploy/k8s and the components have, by the file of templates."""
    base = yaml.safe_load((DEPLOY / "k8s" / "Kustomization").read_text())
    # The namespace is that of the release, which is there before it.
    names = [name for name in base["resources"] if "namespace" not in name]
    documents = {name: kustomizations.read(DEPLOY / "k8s" / name) for name in names}
    kustomizations.add_config(DEPLOY / "k8s", base, documents)
    for document in documents["sims.yaml"]:
        domain = document.manifest["metadata"]["labels"]["newt.dev/domain"]
        document.conditions.append(ref(f"domains.{domain}.enabled"))
    for component, (path, _) in SWITCHES.items():
        kustomizations.add(DEPLOY / "components" / component, ref(path), documents)
    return documents


def _parametrised(documents: dict[str, list[Document]]) -> dict[str, Any]:
    """Puts values in place of fields, and returns the defaults of all values by their paths."""
    every = values()
    found = {value.path: value.source for value in every}

    def change(path: str, leaf: Any) -> Any:
        for value in every:
            if any(fnmatch.fnmatchcase(path, field) for field in value.fields):
                if found[value.path] is None:
                    found[value.path] = leaf
                if found[value.path] == leaf:
                    return Raw(value.text)
                if value.source is None:
                    raise ValueError(f"{path} is {leaf!r}, where {value.path} is {found[value.path]!r}")
        return _own(path, leaf)

    for group in documents.values():
        for document in group:
            document.manifest = changed(document.manifest, change, document.name)
    unused = [value.path for value in every if value.fields and found[value.path] is None]
    if unused:
        raise ValueError(f"no manifest has the fields of {unused}")
    return {value.path: found[value.path] if value.default is None else value.default for value in every}


def _own(path: str, leaf: Any) -> Any:
    """Images of ours, and the namespace, which is part of names of hosts as well."""
    if not isinstance(leaf, str):
        return leaf
    if leaf.startswith(IMAGES):
        name, _, tag = leaf.removeprefix(IMAGES).partition(":")
        chosen = "{{ .Values.image.tag | default .Chart.AppVersion }}"
        return Raw(f'"{{{{ .Values.image.registry }}}}/{name}:{tag.replace(newt.__version__, chosen)}"')
    if path.startswith("ConfigMap/learner/data/") and re.search(r"-\d+\..*,", leaf):
        return _numbered(leaf)
    if path == "ConfigMap/redis/data/redis.conf":
        return Raw(re.sub(r"(?<=\\nmaxmemory )\w+", "{{ .Values.redis.maxmemory }}", json.dumps(leaf)))
    if path.endswith(NAMESPACES) and leaf == NAMESPACE:
        return Raw(RELEASE_NAMESPACE)
    hosts = re.sub(rf'(?<=[a-z])\.{NAMESPACE}(?=$|\\*"|\.svc)', ".{{ .Release.Namespace }}", json.dumps(leaf))
    queries = re.sub(rf'namespace=\\"{NAMESPACE}\\"', r'namespace=\\"{{ .Release.Namespace }}\\"', hosts)
    return leaf if queries == json.dumps(leaf) else Raw(queries)


def _numbered(text: str) -> Raw:
    """Addresses by number, as `replay-0.replay:50061,replay-1.replay:50061`: as many as there are replay services."""
    first, *_ = text.split(",")
    before, number, after = re.split(r"(?<=-)(\d+)(?=\.)", first)
    numbers = f"untilStep {number} {SHARDS} 1"
    comma = f"{{{{ if gt $n {number} }}}},{{{{ end }}}}"
    return Raw(f'"{{{{ range $n := {numbers} }}}}{comma}{before}{{{{ $n }}}}{after}{{{{ end }}}}"')


def _certified(documents: dict[str, list[Document]]) -> None:
    """The certificate of the replay services names as many as there are."""
    (certificate,) = (
        document.manifest for group in documents.values() for document in group if document.name == "Certificate/replay"
    )
    names = certificate["spec"]["dnsNames"]
    others = [name for name in names if not re.fullmatch(r"replay-\d+\.replay", str(name))]
    certificate["spec"]["dnsNames"] = [*others, Each(f"until {SHARDS}", "replay-{{ $n }}.replay")]


def _placed(documents: dict[str, list[Document]]) -> None:
    """Adds what the manifests leave to the cluster: nodes, storage classes, pulling of images, further settings."""
    for document in [document for group in documents.values() for document in group]:
        manifest = document.manifest
        pod = _pod(manifest)
        if pod is None:
            continue
        pod[When(".Values.image.pullSecrets")] = {"imagePullSecrets": Raw(PULL_SECRETS)}
        for container in pod["containers"]:
            if ".Values.image.registry" in str(container["image"]):
                policy = Raw("{{ .Values.image.pullPolicy }}")
                container[When(".Values.image.pullPolicy")] = {"imagePullPolicy": policy}
            for name, value in SETTINGS.items():
                if {"configMapRef": {"name": name}} in container.get("envFrom", []):
                    reference = {"configMapRef": {"name": f"{name}-settings"}}  # last, so that it wins
                    container["envFrom"].append(Maybe(f".Values.{value}.settings", [reference]))
        for condition in _gpu_conditions(pod["containers"][0]["resources"]["limits"]):
            runtime = f"and {condition} .Values.gpu.runtimeClass"
            pod[When(runtime)] = {"runtimeClassName": Raw("{{ .Values.gpu.runtimeClass | quote }}")}
        owner = NODES.get(manifest["metadata"]["labels"]["app.kubernetes.io/component"])
        if owner is None:  # a backup runs on the learner's node
            continue
        nodes = f".Values.{owner}.nodeSelector"
        if domain := manifest["metadata"]["labels"].get("newt.dev/domain"):
            nodes = f"(merge (dict) {ref(f'domains.{domain}.nodeSelector')} {nodes})"
        pod[When(nodes)] = {"nodeSelector": Raw(f"{{{{ toJson {nodes} }}}}")}
        for claim in manifest.get("spec", {}).get("volumeClaimTemplates", []):
            kind = f".Values.{owner}.storage.class"
            claim["spec"][When(kind)] = {"storageClassName": Raw(f"{{{{ {kind} | quote }}}}")}
    for name, value in SETTINGS.items():
        documents[f"config-{name}-settings.yaml"] = [_settings(value, name)]


def _gpu_conditions(limits: dict[Any, Any]) -> Iterator[str]:
    """Under which a container has a GPU."""
    yield from (key.condition for key, value in limits.items() if isinstance(key, When) and GPU in value)


def _summed(documents: dict[str, list[Document]]) -> None:
    """Gives pods a sum of the ConfigMaps that they read: what has changed there starts them anew."""
    files = {document.name: name for name, group in documents.items() for document in group}
    for document in [document for group in documents.values() for document in group]:
        pod = _pod(document.manifest)
        # Others begin with what there is, and the pods of a Job may not be changed.
        if pod is None or document.manifest["kind"] not in ("Deployment", "StatefulSet"):
            continue
        read = [files[f"ConfigMap/{name}"] for name in dict.fromkeys(_config_names(pod))]
        texts = [f'(include (print $.Template.BasePath "/{name}") .)' for name in read]
        annotations = document.manifest["spec"]["template"]["metadata"].setdefault("annotations", {})
        annotations["newt.dev/config"] = Raw(f"{{{{ print {' '.join(texts)} | sha256sum }}}}")


def _config_names(tree: Any) -> Iterator[str]:
    """Names of the ConfigMaps that a part of a pod refers to, whatever the conditions."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("configMapRef", "configMap"):
                yield value["name"]
            else:
                yield from _config_names(value)
    elif isinstance(tree, list | Maybe):
        for item in tree.items if isinstance(tree, Maybe) else tree:
            yield from _config_names(item)


def _pod(manifest: Any) -> Any:
    """What a workload's pods are to be; None: it makes none."""
    if manifest["kind"] == "PodTemplate":
        return manifest["template"]["spec"]
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"]["spec"] if "template" in spec and "containers" in spec["template"]["spec"] else None


def _settings(value: str, name: str) -> Document:
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{name}-settings",
            "namespace": Raw(RELEASE_NAMESPACE),
            "labels": {"app.kubernetes.io/part-of": "newt", "app.kubernetes.io/component": name},
        },
        "data": Raw(f"{{{{ toJson .Values.{value}.settings }}}}"),
    }
    return Document(manifest, [f".Values.{value}.settings"])


def _checks() -> str:
    """What a schema cannot say of several values together."""
    lines = [f"{{{{- /* {WRITTEN} */ -}}}}"]
    paths = [value.path for value in values()]
    for path in (path for path in paths if path.endswith(".replicas.min")):
        most = path.removesuffix("min") + "max"
        lines += [
            f"{{{{- if gt (int {ref(path)}) (int {ref(most)}) }}}}",
            f'{{{{- fail "{path} is above {most}" }}}}',
            "{{- end }}",
        ]
    for component, needed in NEEDS.items():
        path, other = SWITCHES[component][0], SWITCHES[needed][0]
        lines += [
            f"{{{{- if and {ref(path)} (not {ref(other)}) }}}}",
            f'{{{{- fail "{path} needs {other}" }}}}',
            "{{- end }}",
        ]
    for path, other in ((SWITCHES[first][0], SWITCHES[second][0]) for first, second in EXCLUSIVE):
        lines += [
            f"{{{{- if and {ref(path)} {ref(other)} }}}}",
            f'{{{{- fail "{path} and {other} exclude each other" }}}}',
            "{{- end }}",
        ]
    return "\n".join(lines) + "\n"


def _values_file(defaults: dict[str, Any]) -> str:
    lines = [
        f"# {WRITTEN}",
        "# values.schema.json has the type of each value: one that is wrong, missing or unknown is an error of Helm's.",
    ]
    before: list[str] = []
    for value in values():
        *parents, last = value.path.split(".")
        differ = (depth for depth, part in enumerate(parents) if before[depth : depth + 1] != [part])
        shared = next(differ, len(parents))
        for depth, part in list(enumerate(parents))[shared:]:
            lines += ([""] if depth == 0 else []) + [f"{'  ' * depth}{part}:"]
        indent = "  " * len(parents)
        lines += [f"{indent}# {value.meaning}", f"{indent}{last}: {json.dumps(defaults[value.path])}"]
        before = parents
    return "\n".join(lines) + "\n"
