"""What Helm does with a chart, by Helm's own code (helm-sdkpy), without a cluster.

Helm's library knows no `template`, so a release is installed: into a server that answers as the API of an empty cluster
does, keeps what it is sent, and starts nothing. Run as a program, so that Helm's threads are in a process of their own:
jobs come as JSON on the standard input, results go to the standard output in their order.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

# Groups of the chart's objects, with whatever kinds: plural names of the resources.
GROUPS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Namespace": "namespaces",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "cert-manager.io/v1": {"Certificate": "certificates", "Issuer": "issuers"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
    "keda.sh/v1alpha1": {"ScaledObject": "scaledobjects"},
    "monitoring.coreos.com/v1": {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
}


NOT_FOR_THIS_MACHINE = 3  # exit status: the package has no library for it


def helm(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
    """Lets Helm work.

    Args:
        jobs: Each has `do`, which is `lint`, `package` or `install`, a `chart`, and what that wants besides: `values`
            and `namespace` of an installation, `out` of a package. An installation that has `upgrade`, other values, is
            brought to those.

    Returns:
        Of each job, `result`, and the `objects` that an installation has sent, with the `patches` and the `removed` of
        an upgrade, by path; or `error`, Helm's text.
    """
    command = [sys.executable, str(Path(__file__))]
    # Helm keeps its own records in memory: to a cluster it would send them in Kubernetes' protocol buffers.
    environment = {**os.environ, "HELM_DRIVER": "memory"}
    done = subprocess.run(command, input=json.dumps(jobs), env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode == NOT_FOR_THIS_MACHINE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


class Cluster(ThreadingHTTPServer):
    """The API of an empty cluster, for as much as Helm asks of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.objects: dict[str, dict[str, Any]] = {}
        self.patches: dict[str, dict[str, Any]] = {}
        self.removed: list[str] = []
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
            return self._reply(200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})
        return self._missing()

    def do_POST(self) -> None:
        content = self._content()
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
        self._reply(200, self.server.objects.pop(path))

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}")
        return content

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


async def _done(job: dict[str, Any]) -> dict[str, Any]:
    import helm_sdkpy

    cluster = Cluster()
    namespace = job.get("namespace", "newt")
    config = helm_sdkpy.Configuration(namespace=namespace, kubeconfig=cluster.kubeconfig())
    try:
        if job["do"] == "lint":
            return {"result": await helm_sdkpy.Lint(config).run(job["chart"])}
        if job["do"] == "package":
            return {"result": await helm_sdkpy.Package(config).run(job["chart"], job["out"])}
        await helm_sdkpy.Install(config).run("newt", job["chart"], job.get("values"), wait=False)
        if "upgrade" in job:
            await helm_sdkpy.Upgrade(config).run("newt", job["chart"], job["upgrade"], wait=False)
    except (helm_sdkpy.InstallError, helm_sdkpy.ChartError) as error:
        return {"error": str(error), "objects": list(cluster.objects.values())}
    objects = list(cluster.objects.values())
    return {"result": job["do"], "objects": objects, "patches": cluster.patches, "removed": cluster.removed}


def main() -> None:
    import helm_sdkpy

    try:
        results = [asyncio.run(_done(job)) for job in json.load(sys.stdin)]
    except helm_sdkpy.HelmLibraryNotFound as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_FOR_THIS_MACHINE)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
