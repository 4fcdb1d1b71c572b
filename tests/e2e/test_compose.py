"""compose.yaml on a real Docker engine: builds the images, brings the stack up, trains, stops.

Needs a Docker engine, Docker's compose plugin, and the base images of the Dockerfile and compose.yaml, or a registry to
get them from; NEWT_BUILD_IMAGE and the like (.env.example) name others. The first build takes many minutes; with
NEWT_TEST_BUILD=0 the images are taken as they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.errors import DockerException
from docker.models.containers import Container

import newt
from newt.local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
OURS = ("replay", "learner", "planner", "sim-mujoco", "sim-miniarcade")
SERVICES = ("redis", *OURS, "prometheus")
TASKS = ("mujoco-reacher", "pygame-cowboy")
BUILD_TIMEOUT_S = 3000


def engine() -> docker.DockerClient | None:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException:
        return None
    return client


def compose(*arguments: str, environment: dict[str, str], timeout_s: float) -> str:
    """Runs docker compose on our file; fails the test with its last output if it fails."""
    command = ["docker", "compose", "--project-directory", str(ROOT), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def base(version: str) -> str:
    """Without the label of a build: torch 2.13.0+cpu is torch 2.13.0."""
    return version.partition("+")[0]


def constraints() -> dict[str, str]:
    """Version by normalised name, from both files."""
    text = (ROOT / "constraints.txt").read_text() + (ROOT / "constraints/maniskill.txt").read_text()
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(1.0)
    return value


@dataclass(frozen=True)
class Stack:
    client: docker.DockerClient
    project: str
    rest: httpx.Client
    prometheus: httpx.Client

    def container(self, service: str) -> Container:
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (container,) = self.client.containers.list(all=True, filters={"label": labels})
        return container

    def query(self, expression: str) -> list[dict[str, Any]]:
        reply = self.prometheus.get("/api/v1/query", params={"query": expression}).raise_for_status()
        result: list[dict[str, Any]] = reply.json()["data"]["result"]
        return result

    def run(self, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self.rest.get(f"/runs/{run_id}").raise_for_status().json()
        return run


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    client = engine()
    if client is None:
        pytest.skip("no Docker engine answers")
    project = f"newt-test-{os.getpid()}"
    rest, prometheus = free_port(), free_port()
    environment = {
        "COMPOSE_PROJECT_NAME": project,
        "NEWT_COMPOSE_REST_PORT": str(rest),
        "NEWT_COMPOSE_PROMETHEUS_PORT": str(prometheus),
        "NEWT_COMPOSE_SIM_WORKERS": "1",
        "NEWT_COMPOSE_SIM_CPUS": "1",
        "NEWT_COMPOSE_LEARNER_THREADS": "1",
        "NEWT_COMPOSE_PLANNER_THREADS": "1",
    }
    try:
        if os.environ.get("NEWT_TEST_BUILD") != "0":
            compose("build", *OURS, environment=environment, timeout_s=BUILD_TIMEOUT_S)
        try:
            compose("up", "--no-build", "--detach", "--wait", *SERVICES, environment=environment, timeout_s=900)
        except AssertionError:
            print(compose("logs", "--tail", "20", environment=environment, timeout_s=60))
            raise
        yield Stack(
            client,
            project,
            httpx.Client(base_url=f"http://127.0.0.1:{rest}", timeout=30),
            httpx.Client(base_url=f"http://127.0.0.1:{prometheus}", timeout=30),
        )
    finally:
        compose("--profile", "all", "down", "--volumes", "--timeout", "20", environment=environment, timeout_s=200)


pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_TIMEOUT_S + 1200)]


@pytest.mark.parametrize("service", ["redis", *OURS])
def test_containers_are_confined_and_healthy(stack: Stack, service: str) -> None:
    container = stack.container(service)
    attributes = container.attrs
    host = attributes["HostConfig"]
    assert attributes["State"]["Health"]["Status"] == "healthy"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert container.exec_run(["id", "-u"]).output.strip() != b"0"
    assert container.exec_run(["touch", "/etc/written"]).exit_code != 0


@pytest.mark.parametrize("service", OURS)
def test_images_say_what_they_are(stack: Stack, service: str) -> None:
    labels = stack.container(service).image.labels
    assert labels["org.opencontainers.image.title"] == f"newt-{service}"
    assert labels["org.opencontainers.image.description"]


@pytest.mark.parametrize("service", ["replay", "sim-mujoco", "sim-miniarcade"])
def test_no_torch_where_none_is_needed(stack: Stack, service: str) -> None:
    assert stack.container(service).exec_run(["python", "-c", "import torch"]).exit_code == 1


@pytest.mark.parametrize("service", OURS)
def test_every_package_has_its_tested_version(stack: Stack, service: str) -> None:
    program = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions(path=['PATH'])]"
    path = stack.container(service).exec_run(["python", "-c", "import newt; print(newt.__path__[0])"]).output.decode()
    program = program.replace("PATH", str(Path(path.strip()).parent))
    listing = stack.container(service).exec_run(["python", "-c", program]).output.decode()
    installed = dict(line.split() for line in listing.splitlines())
    assert installed.pop("newt") == newt.__version__
    assert len(installed) > 5
    pinned = constraints()
    unlike = {name: version for name, version in installed.items() if pinned.get(normal(name)) != base(version)}
    assert not unlike, "not in constraints.txt, or in another version"


def test_a_run_trains_shows_its_metrics_and_leaves_a_checkpoint(stack: Stack) -> None:
    body = {
        "tasks": list(TASKS),
        "preset": "laptop",
        "schedule": {"total_env_steps": 100_000, "seed_env_steps": 1000, "pretrain_updates": 20},
        "replay": {"batch_size": 16},
        "demos": {"scripted_episodes": 1},
        "evaluation": {"episodes_per_task": 1, "videos": False},
    }
    created = stack.rest.post("/runs", json=body)
    assert created.status_code == 201, created.text
    run_id = created.json()["id"]

    def trains() -> bool:
        run = stack.run(run_id)
        assert run["state"] != "failed", run
        return bool(run["progress"]["updates"] >= 20 and run["progress"]["env_steps"] > 1000)

    wait_for(trains, "20 online updates", 600)
    wait_for(lambda: stack.query("newt_learner_env_steps_per_second > 0"), "env steps in Prometheus", 60)
    for job, replicas in {"learner": 1, "planner": 1, "replay": 1, "sim": 2}.items():
        wait_for(lambda j=job, n=replicas: len(stack.query(f'up{{job="{j}"}} == 1')) == n, f"{job} scraped", 60)

    stack.rest.post(f"/runs/{run_id}/cancel").raise_for_status()
    wait_for(lambda: stack.run(run_id)["state"] == "cancelled", "cancelled", 120)
    (*_, newest) = stack.rest.get(f"/runs/{run_id}/checkpoints").raise_for_status().json()["checkpoints"]
    assert newest["updates"] >= 20
    listing = stack.container("learner").exec_run(["find", f"/data/runs/{run_id}", "-size", "+100k"])
    assert newest["name"] in listing.output.decode()


def test_services_that_die_come_back(stack: Stack) -> None:
    container = stack.container("replay")
    before = container.attrs["State"]["StartedAt"]
    # As a crash would: a kill by the engine counts as a wish and is not answered with a restart.
    container.exec_run(["python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"])

    def is_back() -> bool:
        container.reload()
        state = container.attrs["State"]
        return bool(state["StartedAt"] != before and state["Health"]["Status"] == "healthy")

    wait_for(is_back, "replay restarted and healthy", 120)


def test_everything_stops_on_sigterm(stack: Stack) -> None:
    for service in reversed(OURS):
        container = stack.container(service)
        container.stop(timeout=40)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0, f"{service}: {container.logs(tail=20).decode()}"
