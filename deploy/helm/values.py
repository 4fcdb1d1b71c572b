"""The values of the Helm chart: what each means, which values it takes, which fields of the manifests it stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from newt.tasks.domains import DOMAINS

Schema = dict[str, Any]

TEXT: Schema = {"title": "text", "type": "string"}
REGISTRY: Schema = {
    "title": "registry/path",
    "type": "string",
    "pattern": "^[a-zA-Z0-9]([a-zA-Z0-9._:/-]*[a-zA-Z0-9])?$",
}
TAG: Schema = {"title": "tag or empty", "type": "string", "pattern": r"^([a-zA-Z0-9_][a-zA-Z0-9_.-]*)?$"}
NAME: Schema = {"title": "name", "type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "maxLength": 253}
NAME_OR_NOTHING: Schema = {**NAME, "title": "name or empty", "pattern": f"^$|{NAME['pattern']}"}
NAMES: Schema = {"title": "names", "type": "array", "items": NAME}
SWITCH: Schema = {"title": "true or false", "type": "boolean"}
COUNT: Schema = {"title": "from 1 on", "type": "integer", "minimum": 1}
SEVERAL: Schema = {"title": "from 2 on", "type": "integer", "minimum": 2}
PORT: Schema = {"title": "port", "type": "integer", "minimum": 1, "maximum": 65535}
CPU: Schema = {
    "title": "cores, as 2 or 500m",
    "type": ["string", "number"],
    "pattern": r"^[0-9]+(\.[0-9]+)?m?$",
    "exclusiveMinimum": 0,
}
BYTES: Schema = {
    "title": "bytes, as 10Gi",
    "type": "string",
    "pattern": r"^[0-9]+(\.[0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti)$",
}
REDIS_BYTES: Schema = {"title": "bytes, as 3gb", "type": "string", "pattern": "^[0-9]+(kb|mb|gb)$"}
NETWORK: Schema = {"title": "network, as 10.0.0.0/8", "type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"}
TEXTS: Schema = {"title": "texts by name", "type": "object", "additionalProperties": {"type": "string"}}
POLICY: Schema = {"title": "empty, Always, IfNotPresent or Never", "enum": ["", "Always", "IfNotPresent", "Never"]}

POD = "*template/spec"  # also of a PodTemplate, and of the Job that a CronJob makes
CONTAINER = f"{POD}/containers/0"
SCALERS = {"HorizontalPodAutoscaler": "Replicas", "ScaledObject": "ReplicaCount"}
CLAIM = "spec/volumeClaimTemplates/0/spec"


@dataclass(frozen=True)
class Value:
    """One value of the chart.

    Attributes:
        path: Its name, as `planner.replicas.min`.
        schema: What it may be, as a JSON schema.
        meaning: For the reader of values.yaml.
        fields: Paths of scalars that it replaces, with `*` for anything, as `Deployment/planner/spec/replicas`.
        default: None: what those fields have in the manifests.
        source: What these fields have in the manifests, where that is not the default.
        template: What takes a field's place; None: the value itself.
    """

    path: str
    schema: Schema
    meaning: str
    fields: tuple[str, ...] = ()
    default: Any = None
    source: Any = None
    template: str | None = None

    @property
    def text(self) -> str:
        """What stands for the value in a template."""
        if self.template is not None:
            return self.template
        return f"{{{{ {ref(self.path)} | {'int' if self.schema.get('type') == 'integer' else 'quote'} }}}}"


def ref(path: str) -> str:
    """A value in Helm's language."""
    parts = path.split(".")
    if all(re.fullmatch(r"\w+", part) for part in parts):
        return f".Values.{path}"
    return f"(index .Values {' '.join(json.dumps(part) for part in parts)})"


# Components, by their paths from deploy/components, that are there if a value is true, in the order in which they are
# applied. `laptop` is values-laptop.yaml; how many planners `planner-replicas` has are the values planner.replicas.
SWITCHES = {
    "backup": ("backup.enabled", "A backup every night, into a volume (docs/deployment.md)."),
    "backup-s3": ("backup.s3.enabled", "They go into a bucket, not into a volume."),
    "multi-node": (
        "multiNode.enabled",
        "Training on several nodes; the learner's storage class must be one that does ReadWriteMany.",
    ),
    "gpu": ("gpu.enabled", "Learner, planners and further nodes on GPUs, with the images whose tag ends in -cuda."),
    "gpu-sims": ("simGpus.enabled", "Simulators draw on GPUs, one each."),
    "keda": ("keda.enabled", "Planners by how long requests wait; needs KEDA and a Prometheus."),
    "planner-replicas/spread": ("planner.spread", "Planners on different nodes, where there are some."),
    "served-models": ("servedModels.enabled", "Planners serve the agents in a volume, without a run."),
    "replay-shards": (
        "replayShards.enabled",
        "Several replay services, each with a Redis of its own (docs/scaling.md).",
    ),
    "external-redis": (
        "externalRedis.enabled",
        "No Redis here; its address comes from the Secret that redis.clientsSecret names.",
    ),
    "servicemonitor": ("serviceMonitor.enabled", "For the Prometheus operator: what to scrape, and the alerts."),
    "../grafana": ("grafana.enabled", "Dashboards as a ConfigMap, for the sidecar of a Grafana."),
    "traces": ("traces.enabled", "Spans to an OpenTelemetry collector; needs images with the extra otel."),
    "ingress": ("ingress.enabled", "The REST API under a name, by an ingress controller; demands the API token."),
    "ingress-tls": ("ingress.tls.enabled", "A certificate for the ingress, by cert-manager."),
    "gateway": ("gateway.enabled", "The REST API under a name, by the Gateway API; demands the API token."),
    "mtls": ("mtls.enabled", "Mutual TLS between all services; needs cert-manager."),
    "jobset": (
        "jobSet.enabled",
        "The learner makes the further nodes of each run; needs JobSet, Kueue and an image with the extra kubernetes.",
    ),
}
# A component, and the one without which it is nothing.
NEEDS = {"backup-s3": "backup", "ingress-tls": "ingress", "jobset": "multi-node"}
EXCLUSIVE = (("replay-shards", "external-redis"),)


def _resources(path: str, workload: str) -> Iterator[Value]:
    for kind, meaning in (("requests", "set aside for it"), ("limits", "that it may use at most")):
        for name, schema in (("cpu", CPU), ("memory", BYTES)):
            field = f"{workload}/{CONTAINER}/resources/{kind}/{name}"
            what = "Cores" if name == "cpu" else "Memory"
            yield Value(f"{path}.resources.{kind}.{name}", schema, f"{what} {meaning}.", (field,))


def _replicas(path: str, name: str) -> Iterator[Value]:
    for bound, meaning in (("min", "The fewest"), ("max", "The most")):
        fields = tuple(f"{kind}/{name}/spec/{bound}{count}" for kind, count in SCALERS.items())
        yield Value(f"{path}.replicas.{bound}", COUNT, f"{meaning} pods that the autoscaler starts.", fields)


def _placed(path: str, who: str) -> Iterator[Value]:
    yield Value(f"{path}.nodeSelector", TEXTS, f"Labels of the nodes that {who} may run on.", default={})


def _service(path: str, who: str) -> Iterator[Value]:
    yield from _placed(path, who)
    yield Value(
        f"{path}.settings",
        TEXTS,
        f"Environment variables of {who} (docs/settings.md), which win over others.",
        default={},
    )


def _storage(path: str, who: str) -> Iterator[Value]:
    field = f"StatefulSet/{path}/{CLAIM}/resources/requests/storage"
    yield Value(f"{path}.storage.size", BYTES, f"Size of the volume of {who}.", (field,))
    yield Value(f"{path}.storage.class", TEXT, "Its storage class; empty: the cluster's default.", default="")


def values() -> list[Value]:
    """All values, in the order of values.yaml."""
    return [
        Value(
            "image.registry", REGISTRY, "Where our images are: a registry and a path in it.", default="localhost/newt"
        ),
        Value("image.tag", TAG, "Their tag, without -cuda; empty: the chart's appVersion.", default=""),
        Value("image.pullPolicy", POLICY, "When they are pulled; empty: Kubernetes decides by the tag.", default=""),
        Value(
            "image.pullSecrets",
            NAMES,
            "Names of Secrets with the registry's password.",
            default=[],
        ),
        *_resources("learner", "StatefulSet/learner"),
        *_storage("learner", "runs and checkpoints"),
        *_service("learner", "the learner"),
        *_resources("planner", "Deployment/planner"),
        *_replicas("planner", "planner"),
        *_switched("planner-replicas/spread"),
        *_service("planner", "planners"),
        *_resources("replay", "*/replay"),
        *_service("replay", "replay"),
        *_switched("replay-shards"),
        Value(
            "replayShards.count",
            SEVERAL,
            "How many; there may be more later, never fewer.",
            (
                "StatefulSet/replay/spec/replicas",
                "StatefulSet/redis/spec/replicas",
            ),
            default=3,
            source=3,
        ),
        Value("redis.image", TEXT, "The image of Redis.", (f"StatefulSet/redis/{CONTAINER}/image",)),
        Value(
            "redis.maxmemory",
            REDIS_BYTES,
            "What Redis holds at most: half of its limit of memory. Replay's mirror takes up to 1.5 times as much.",
            default="3gb",
        ),
        *_resources("redis", "StatefulSet/redis"),
        *_storage("redis", "the episodes in Redis"),
        *_placed("redis", "Redis"),
        Value(
            "redis.usersSecret",
            NAME,
            "Secret with the users of Redis (docs/security.md); may be missing.",
            (f"StatefulSet/redis/{POD}/volumes/*/secret/secretName",),
        ),
        Value(
            "redis.clientsSecret",
            NAME,
            "Secret with the addresses of Redis that have its password (docs/security.md).",
            ("*/envFrom/1/secretRef/name",),
        ),
        *_switched("external-redis"),
        Value(
            "externalRedis.network",
            NETWORK,
            "Network of that Redis, which the pods may talk to.",
            ("NetworkPolicy/external-redis/*/cidr",),
        ),
        Value("externalRedis.port", PORT, "Its port.", ("NetworkPolicy/external-redis/*/port",)),
        *_service("sims", "simulators"),
        *(value for domain in DOMAINS.values() for value in _domain(domain.name)),
        Value(
            "apiToken.secret",
            NAME,
            "Secret with the token of the REST API (docs/security.md).",
            (f"StatefulSet/learner/{CONTAINER}/envFrom/2/secretRef/name",),
        ),
        Value(
            "apiToken.required",
            SWITCH,
            "Whether the learner waits for that Secret, as it does with ingress or gateway; else it may be missing.",
            (f"StatefulSet/learner/{CONTAINER}/envFrom/2/secretRef/optional",),
            default=False,
            source=True,
            template="{{ not .Values.apiToken.required }}",
        ),
        *_switched("gpu"),
        Value(
            "gpu.learner",
            COUNT,
            "GPUs of the learner, and of each further node.",
            (f"StatefulSet/learner/{CONTAINER}/*/nvidia.com/gpu", f"*/node/{CONTAINER}/*/nvidia.com/gpu"),
        ),
        Value("gpu.planner", COUNT, "GPUs of each planner.", (f"Deployment/planner/{CONTAINER}/*/nvidia.com/gpu",)),
        Value(
            "gpu.sharedMemory",
            BYTES,
            "Shared memory of the trainers of a run.",
            (
                f"StatefulSet/learner/{POD}/volumes/3/emptyDir/sizeLimit",
                f"*/node/{POD}/volumes/3/emptyDir/sizeLimit",
            ),
        ),
        Value(
            "gpu.runtimeClass",
            NAME_OR_NOTHING,
            "RuntimeClass of all pods with GPUs, as nvidia on k3s; empty: the cluster's default.",
            default="",
        ),
        *_switched("gpu-sims"),
        Value("simGpus.count", COUNT, "GPUs of each simulator.", (f"Deployment/sim-*/{CONTAINER}/*/nvidia.com/gpu",)),
        *_switched("multi-node"),
        Value(
            "multiNode.nodes",
            SEVERAL,
            "resources.nodes of the run, the learner's own among them; with jobSet, each run has its own number.",
            ("Job/node/spec/completions", "Job/node/spec/parallelism"),
            default=2,
            source=1,
            template="{{ sub (int .Values.multiNode.nodes) 1 }}",
        ),
        *_resources("multiNode", "*/node"),
        *_placed("multiNode", "the further ones"),
        *_switched("jobset"),
        Value(
            "jobSet.clusterQueue",
            NAME,
            "The ClusterQueue of Kueue, which is yours to make, with the quota.",
            ("LocalQueue/newt/spec/clusterQueue",),
        ),
        Value(
            "jobSet.network",
            NETWORK,
            "Network of the cluster's API, which the learner may then talk to.",
            ("NetworkPolicy/learner-cluster/*/cidr",),
        ),
        *_switched("mtls"),
        *_switched("ingress"),
        _host("ingress.host", "Ingress/learner/spec/rules/0/host", "Ingress/learner/spec/tls/0/hosts/0"),
        Value("ingress.className", NAME, "The controller's class.", ("Ingress/learner/spec/ingressClassName",)),
        Value(
            "ingress.namespace",
            NAME,
            "The controller's namespace, which may talk to the learner.",
            ("NetworkPolicy/ingress/*/kubernetes.io/metadata.name",),
        ),
        *_switched("ingress-tls"),
        Value(
            "ingress.tls.issuer",
            NAME,
            "The ClusterIssuer of cert-manager.",
            ("Ingress/learner/metadata/annotations/cert-manager.io/cluster-issuer",),
        ),
        Value("ingress.tls.secret", NAME, "Where the certificate goes.", ("Ingress/learner/spec/tls/0/secretName",)),
        *_switched("gateway"),
        _host("gateway.host", "HTTPRoute/learner/spec/hostnames/0"),
        Value("gateway.name", NAME, "Your Gateway.", ("HTTPRoute/learner/spec/parentRefs/0/name",)),
        Value(
            "gateway.namespace",
            NAME,
            "Its namespace, and that of the pods behind it.",
            (
                "HTTPRoute/learner/spec/parentRefs/0/namespace",
                "NetworkPolicy/gateway/*/kubernetes.io/metadata.name",
            ),
        ),
        *_switched("keda"),
        Value("keda.prometheus", TEXT, "Address of Prometheus.", ("ScaledObject/planner/*/serverAddress",)),
        *_switched("served-models"),
        Value(
            "servedModels.claim",
            NAME,
            "The PersistentVolumeClaim with the agents, which is yours to make.",
            (f"Deployment/planner/{POD}/volumes/*/persistentVolumeClaim/claimName",),
        ),
        *_switched("backup"),
        Value("backup.schedule", TEXT, "When, as cron writes it.", ("CronJob/backup/spec/schedule",)),
        Value(
            "backup.claim",
            NAME,
            "The PersistentVolumeClaim that they go to, which is yours to make.",
            ("CronJob/backup/*/volumes/1/persistentVolumeClaim/claimName",),
        ),
        *_switched("backup-s3"),
        Value(
            "backup.s3.place",
            {"title": "s3://BUCKET/PATH", "type": "string", "pattern": "^s3://[^/]+"},
            "The bucket, and a path in it.",
            ("CronJob/backup/*/env/0/value",),
            default="s3://newt-backups/newt",
            source="s3://newt-backups/newt",
        ),
        Value(
            "backup.s3.secret",
            NAME,
            "Secret with the storage's address and keys (docs/deployment.md).",
            ("CronJob/backup/*/envFrom/2/secretRef/name",),
        ),
        Value(
            "backup.s3.network",
            NETWORK,
            "Network of the storage, which backups may talk to.",
            ("NetworkPolicy/backup-s3/*/cidr",),
        ),
        *_switched("traces"),
        Value(
            "traces.endpoint",
            TEXT,
            "The collector's address, in the namespace that monitoring.namespace names.",
            ("ConfigMap/traces/data/OTEL_EXPORTER_OTLP_ENDPOINT",),
        ),
        *_switched("servicemonitor"),
        Value(
            "serviceMonitor.release",
            NAME,
            "The label release that your Prometheus selects by.",
            ("ServiceMonitor/*/metadata/labels/release", "PrometheusRule/*/metadata/labels/release"),
        ),
        *_switched("../grafana"),
        Value(
            "monitoring.namespace",
            NAME,
            "Namespace of Prometheus and of the collector of traces.",
            ("NetworkPolicy/*/kubernetes.io/metadata.name",),
            default="monitoring",
            source="monitoring",
        ),
    ]


def _switched(component: str) -> Iterator[Value]:
    path, meaning = SWITCHES[component]
    yield Value(path, SWITCH, meaning, default=False)


def _host(path: str, *fields: str) -> Value:
    missing = f"{path} must be set: the name under which the REST API is reached"
    template = f'{{{{ required "{missing}" {ref(path)} | quote }}}}'
    return Value(
        path, TEXT, "The name of the REST API.", fields, default="", source="newt.example.com", template=template
    )


def _domain(name: str) -> Iterator[Value]:
    path = f"domains.{name}"
    yield Value(f"{path}.enabled", SWITCH, "Whether its simulator is there.", default=True)
    yield from _replicas(path, f"sim-{name}")
    yield from _resources(path, f"Deployment/sim-{name}")
    yield from _placed(path, "it alone")


def schema(defaults: dict[str, Any]) -> Schema:
    """The JSON schema of values.yaml: a value of a wrong type, a missing or an unknown one is an error.

    Args:
        defaults: Of every value, by its path.
    """
    # Helm gives the chart this one where it is a part of another chart.
    top: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **_object(),
        "properties": {"global": {"type": "object"}},
    }
    for value in values():
        *parents, last = value.path.split(".")
        node = top
        for part in parents:
            if part not in node["properties"]:
                node["required"].append(part)
                node["properties"][part] = _object()
            node = node["properties"][part]
        node["required"].append(last)
        node["properties"][last] = {**value.schema, "description": value.meaning, "default": defaults[value.path]}
    return top


def _object() -> Schema:
    return {"type": "object", "additionalProperties": False, "required": [], "properties": {}}
