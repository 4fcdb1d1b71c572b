"""Workloads of deploy/k8s as pods of Podman, which reads Kubernetes' manifests without a cluster: what they say runs.

The images are those of the Docker engine. Podman asks no gRPC probes: the tests ask what a kubelet would.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_stack import IMAGES, ROOT, build, engine, require, wait_for
from docker.models.images import Image

from deploy import sizes
from newt.local.ports import free_port
from newt.wire.probe import check

SERVING = ("replay", "sim-miniarcade")  # over gRPC
WORKLOADS = ("redis", *SERVING)
NETWORK = "newt"
REDIS = "localhost/newt/redis"  # Podman keeps no name with a digest
MOST = 20_000  # files and processes: Podman asks for a million each, which a root without all rights may not have

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Pods:
    """What Podman has in a folder.

    Attributes:
        folder: Its images, containers and settings.
        specs: What deploy/k8s says of the one container of each workload's pods.
        ports: Where a workload's gRPC port is on this machine.
    """

    folder: Path
    specs: dict[str, dict[str, Any]]
    ports: dict[str, int]

    def podman(self, *arguments: str) -> str:
        """What a command of Podman prints."""
        return podman(self.folder, *arguments)

    def run_in(self, workload: str, *command: str) -> str:
        """What a command prints in a workload's container."""
        return self.podman("exec", self.container(workload), *command)

    def inspect(self, workload: str) -> dict[str, Any]:
        """Podman's record of it."""
        (record,) = json.loads(self.podman("inspect", self.container(workload)))
        return dict(record)

    def container(self, workload: str) -> str:
        """Podman's name of it."""
        return f"{workload}-{self.specs[workload]['name']}"


def podman(folder: Path, *arguments: str, images: list[str] | None = None) -> str:
    """What a command of Podman prints that keeps everything in a folder; it may read images of the Docker engine."""
    places = {"root": "root", "runroot": "run", "tmpdir": "tmp"}
    command = ["podman", *(f"--{name}={folder / place}" for name, place in places.items()), *arguments]
    environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
    with tempfile.TemporaryFile() as nothing:
        saved = subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) if images else None
        source = saved.stdout if saved else nothing
        done = subprocess.run(command, stdin=source, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert saved is None or saved.wait(60) == 0
    return done.stdout


def settings(folder: Path) -> str:
    """Podman's, for any machine that runs a Docker engine: its runtime, no systemd."""
    limits = {
        name: min(MOST, resource.getrlimit(number)[1])
        for name, number in {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}.items()
    }
    quoted = ", ".join(f'"{name}={limit}:{limit}"' for name, limit in limits.items())
    return f"""
[containers]
default_ulimits = [{quoted}]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""


def pod(name: str, workload: dict[str, Any], image: str, port: int | None) -> dict[str, Any]:
    """A pod of a workload, in words that Podman knows: no StatefulSet, no claim, no Secret that may be missing.

    Args:
        name: Its own.
        workload: Deployment or StatefulSet.
        image: For its container.
        port: Of this machine, for its gRPC port; the others are not published.
    """
    template = copy.deepcopy(workload["spec"]["template"])
    spec = template["spec"]
    claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
    optional = [each["name"] for each in spec["volumes"] if each.get("secret", {}).get("optional")]
    kept = [each for each in spec["volumes"] if each["name"] not in optional]
    spec["volumes"] = kept + [{"name": each, "emptyDir": {}} for each in (*claims, *optional)]
    (container,) = spec["containers"]
    container["image"] = image
    published = [each for each in container["ports"] if each["name"] == "grpc"]
    container["ports"] = [{**each, "hostIP": "127.0.0.1", "hostPort": port} for each in published]
    metadata = {"name": name, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """Of each workload."""
    client = engine()
    require(client, IMAGES["NEWT_REDIS_IMAGE"])
    build(*SERVING, environment={})
    image: Image = client.images.get(IMAGES["NEWT_REDIS_IMAGE"])
    image.tag(REDIS, tag="pods")
    yield {"redis": f"{REDIS}:pods", **{name: sizes.image(name) for name in SERVING}}
    client.images.remove(f"{REDIS}:pods")


@pytest.fixture(scope="module")
def pods(images: dict[str, str]) -> Iterator[Pods]:
    """Redis, replay and a simulator as deploy/k8s has them; everything is removed again."""
    if shutil.which("podman") is None:
        pytest.skip("Podman is not installed; scripts/system-packages.sh --engine installs it")
    if os.geteuid() != 0:
        pytest.skip("Podman limits pods as the manifests say only for root")
    files = sorted((ROOT / "deploy" / "k8s").glob("*.yaml"))
    manifests = [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]
    kinds = ("Deployment", "StatefulSet")
    workloads = {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}
    specs = {name: workloads[name]["spec"]["template"]["spec"]["containers"][0] for name in WORKLOADS}
    folder = Path(tempfile.mkdtemp(prefix="newt-pods-"))
    (folder / "containers.conf").write_text(settings(folder))
    pods = Pods(folder, specs, {name: free_port() for name in SERVING})
    try:
        podman(folder, "load", images=list(images.values()))
        pods.podman("network", "create", NETWORK)
        played = [pod(name, workloads[name], images[name], pods.ports.get(name)) for name in WORKLOADS]
        played += [each for each in manifests if each["kind"] == "ConfigMap"]
        (folder / "pods.yaml").write_text(yaml.safe_dump_all(played))
        pods.podman("kube", "play", f"--network={NETWORK}", str(folder / "pods.yaml"))
        yield pods
    finally:
        pods.podman("pod", "rm", "--all", "--force", "--time=5")
        subprocess.run(["umount", folder / "root" / "overlay"], capture_output=True, timeout=60)
        subprocess.run(["rm", "-rf", folder], check=True, timeout=300)  # much faster than Python with whole images


@pytest.mark.parametrize("workload", SERVING)
def test_every_probe_passes(pods: Pods, workload: str) -> None:
    probes = [pods.specs[workload][f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")]
    for probe in probes:
        target = f"127.0.0.1:{pods.ports[workload]}"
        wait_for(lambda t=target, s=probe["service"]: check(t, s, 5.0) is None, f"{workload}: {probe['service']}", 120)


def test_redis_is_ready(pods: Pods) -> None:
    pods.run_in("redis", *pods.specs["redis"]["readinessProbe"]["exec"]["command"])


@pytest.mark.parametrize("workload", WORKLOADS)
def test_containers_are_confined(pods: Pods, workload: str) -> None:
    status = dict(line.split(":\t", 1) for line in pods.run_in(workload, "cat", "/proc/1/status").splitlines())
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    host = pods.inspect(workload)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Memory"] == int(pods.specs[workload]["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024**3
    with pytest.raises(AssertionError, match="Read-only file system"):
        pods.run_in(workload, "touch", "/etc/written")


def test_pods_stop_when_they_are_told(pods: Pods) -> None:
    for workload in reversed(WORKLOADS):
        pods.podman("pod", "stop", "--time=60", workload)
        assert pods.inspect(workload)["State"]["ExitCode"] == 0
