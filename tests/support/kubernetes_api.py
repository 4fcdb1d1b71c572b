"""A server that answers as the API of a cluster does, keeps what it is sent, and starts nothing."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

# Groups of our objects, with whatever kinds: plural names of the resources.
GROUPS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Namespace": "namespaces",
        "PodTemplate": "podtemplates",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "cert-manager.io/v1": {"Certificate": "certificates", "Issuer": "issuers"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
    "jobset.x-k8s.io/v1alpha2": {"JobSet": "jobsets"},
    "kueue.x-k8s.io/v1beta1": {"LocalQueue": "localqueues"},
    "keda.sh/v1alpha1": {"ScaledObject": "scaledobjects"},
    "monitoring.coreos.com/v1": {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
}


class Cluster(ThreadingHTTPServer):
    """The API of a cluster that is empty at first, for as much as Helm and the learner ask of it.

    Attributes:
        objects: What was sent, by its path, as it is now.
        patches: What of them was changed, by path.
        removed: Paths of what was removed.
        refused: Method and plural name of what is answered with 403.
        lingering: Whether what is removed stays, marked, as with children that end slowly.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.objects: dict[str, dict[str, Any]] = {}
        self.patches: dict[str, dict[str, Any]] = {}
        self.removed: list[str] = []
        self.refused: set[tuple[str, str]] = set()
        self.lingering = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def kubeconfig(self) -> str:
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
        content = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "clusters": [cluster]}
        # As YAML: Helm takes what it does not see to be that for the name of a file.
        return yaml.safe_dump({**content, "contexts": [context], "users": [{"name": "me", "user": {}}]})


class _Requests(BaseHTTPRequestHandler):
    server: Cluster
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: the second would wait for a late acknowledgement of the first

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self._is_refused():
            return None
        parts = path.strip("/").split("/")
        if path == "/version":
            return self._reply(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        if path == "/api":
            return self._reply(200, {"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            groups = [_group(name) for name in GROUPS if "/" in name]
            return self._reply(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        if "/".join(parts[1:]) in GROUPS:
            return self._reply(200, _resources("/".join(parts[1:])))
        if path in self.server.objects:
            return self._reply(200, self.server.objects[path])
        if parts[-1] in {plural for kinds in GROUPS.values() for plural in kinds.values()}:
            return self._reply(200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": self._listed()})
        return self._missing()

    def do_POST(self) -> None:
        content = self._content()
        if self._is_refused():
            return None
        path = f"{urlsplit(self.path).path}/{content['metadata']['name']}"
        if path in self.server.objects:
            return self._reply(409, {"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409})
        self.server.objects[path] = content
        return self._reply(201, content)

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        self.server.patches[path] = self._content()
        self._reply(200, self.server.objects[path])

    def do_DELETE(self) -> None:
        path = urlsplit(self.path).path
        self._content()
        self.server.removed.append(path)
        if self.server.lingering:
            self.server.objects[path]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return self._reply(200, self.server.objects[path])
        return self._reply(200, self.server.objects.pop(path))

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}")
        return content

    def _listed(self) -> list[dict[str, Any]]:
        """What lies below a path, with the labels that are asked for."""
        url = urlsplit(self.path)
        selector = parse_qs(url.query).get("labelSelector", [""])[0]
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        below = [item for path, item in self.server.objects.items() if path.rpartition("/")[0] == url.path]
        return [item for item in below if wanted.items() <= item["metadata"].get("labels", {}).items()]

    def _is_refused(self) -> bool:
        plurals = set(urlsplit(self.path).path.split("/"))
        for method, plural in self.server.refused:
            if method == self.command and plural in plurals:
                status = {"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403}
                self._reply(403, {**status, "message": f"{plural} is forbidden: no right to {method}"})
                return True
        return False

    def _missing(self) -> None:
        self._reply(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})

    def _reply(self, code: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _group(name: str) -> dict[str, Any]:
    group, _, version = name.partition("/")
    entry = {"groupVersion": name, "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _resources(name: str) -> dict[str, Any]:
    resources = [
        {"name": plural, "kind": kind, "namespaced": kind != "Namespace", "verbs": ["create", "get", "list", "update"]}
        for kind, plural in GROUPS[name].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}
