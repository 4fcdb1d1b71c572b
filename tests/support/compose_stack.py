"""compose.yaml on a real Docker engine, for tests: images, a stack of their own, faults.

The base images of the Dockerfile and compose.yaml must be there, or a registry to get them from; NEWT_BUILD_IMAGE and
the like (.env.example) name others, such as stand-ins. With NEWT_TEST_BUILD=0 our images are taken as they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container

from deploy import sizes
from newt.local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
OURS = ("replay", "learner", "planner", "sim-mujoco", "sim-miniarcade")
SERVICES = ("redis", *OURS, "prometheus")
# Images of others, by their setting: as the environment says, or .env.example, with digest.
IMAGES = {
    name: os.environ.get(name, image)
    for name, image in re.findall(r"^(NEWT_\w+_IMAGE)=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
}
BASES = tuple(f"NEWT_{name}_IMAGE" for name in ("BUILD", "PYTHON", "REDIS", "PROMETHEUS"))
TASKS = ("mujoco-reacher", "pygame-coinrun")  # the score of both differs from episode to episode in the worst of hands
# A model that two cores train and plan with while nine containers run.
TINY_MODEL = {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32}
TINY_PLAN = {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2}
TINY_RUN: dict[str, Any] = {
    "preset": "laptop",
    "model": TINY_MODEL,
    "plan": TINY_PLAN,
    "schedule": {"total_env_steps": 100_000, "seed_env_steps": 300, "pretrain_updates": 20},
    "replay": {"batch_size": 16},
    "demos": {"scripted_episodes": 1},
    "evaluation": {"episodes_per_task": 1, "videos": False},
}
BUILD_TIMEOUT_S = 3000
LONGEST_LOOK_S = 10.0


def engine() -> docker.DockerClient:
    """The Docker engine; skips the test where none answers, or NEWT_TEST_NO_DOCKER says why it is not to be used."""
    if reason := os.environ.get("NEWT_TEST_NO_DOCKER"):
        pytest.skip(reason)
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    return client


def compose(*arguments: str, environment: dict[str, str], timeout_s: float) -> str:
    """Runs docker compose on our file; fails the test with its last output if it fails."""
    command = ["docker", "compose", "--project-directory", str(ROOT), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def require(client: docker.DockerClient, *images: str) -> None:
    """Skips the test if an image is neither here nor can be pulled."""
    for image in images:
        try:
            client.images.get(image)
        except ImageNotFound:
            try:
                client.images.pull(image)
            except DockerException as error:
                pytest.skip(f"{image} is not here and cannot be pulled ({error}); docs/compose.md names stand-ins")


def build(*services: str, environment: dict[str, str]) -> None:
    """Builds images of services, unless NEWT_TEST_BUILD=0."""
    if os.environ.get("NEWT_TEST_BUILD") != "0":
        compose("--profile", "all", "build", *services, environment=environment, timeout_s=BUILD_TIMEOUT_S)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float, pause_s: float = 0.5) -> Any:
    """Polls until a condition is true; returns its value. A machine that was asleep meanwhile is not late."""
    left_s = timeout_s
    while True:
        start = time.monotonic()
        if value := condition():
            return value
        assert left_s > 0, f"not within {timeout_s:g} s: {what}"
        time.sleep(pause_s)
        left_s -= min(time.monotonic() - start, LONGEST_LOOK_S)


@dataclass(frozen=True)
class ComposeStack:
    """A running stack.

    Attributes:
        client: The engine.
        project: Compose's name of the stack.
        rest: The learner's REST API.
        prometheus: Prometheus' API.
        environment: What compose is told.
        cut_off: Networks that a container was on before it was taken off them, by its service.
    """

    client: docker.DockerClient
    project: str
    rest: httpx.Client
    prometheus: httpx.Client
    environment: dict[str, str]
    cut_off: dict[str, list[str]] = field(default_factory=dict)

    def compose(self, *arguments: str, timeout_s: float, **settings: str) -> str:
        """What docker compose prints, asked about this stack; with more settings of .env.example."""
        return compose(*arguments, environment={**self.environment, **settings}, timeout_s=timeout_s)

    def container(self, service: str) -> Container:
        """The one container of a service."""
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (container,) = self.client.containers.list(all=True, filters={"label": labels})
        return container

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers now."""
        reply = self.prometheus.get("/api/v1/query", params={"query": expression}).raise_for_status()
        result: list[dict[str, Any]] = reply.json()["data"]["result"]
        return result

    def submit(self, body: dict[str, Any]) -> str:
        """POST /runs; returns the id."""
        created = self.rest.post("/runs", json=body)
        assert created.status_code == 201, created.text
        return str(created.json()["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """The record of a run."""
        run: dict[str, Any] = self.rest.get(f"/runs/{run_id}").raise_for_status().json()
        return run

    def python(self, service: str, program: str, *arguments: str) -> str:
        """What a Python program prints in a service's container."""
        done = self.container(service).exec_run(["python", "-c", program, *arguments])
        output = done.output.decode()
        assert done.exit_code == 0, output
        return str(output)

    # ---- faults

    def started_at(self, service: str) -> str:
        """When the container's present process was started."""
        return str(self.container(service).attrs["State"]["StartedAt"])

    def kill(self, services: Sequence[str]) -> None:
        """SIGKILL to the first process of each container, at the same moment, as a crash or the kernel would.

        A kill by the engine would count as somebody's wish, which no restart policy answers. This one comes from a
        container that sees the host's processes, so that it also works where the engine is not on this machine.
        """
        pids = [str(self.container(service).attrs["State"]["Pid"]) for service in services]
        program = "import os, signal, sys\nfor pid in sys.argv[1:]: os.kill(int(pid), signal.SIGKILL)"
        self.client.containers.run(
            self.container("replay").image.id,
            ["-c", program, *pids],
            entrypoint=["python"],
            user="0:0",
            pid_mode="host",
            network_mode="none",
            remove=True,
        )

    def partition(self, service: str) -> None:
        """Takes a container off its networks: nobody reaches it, it reaches nobody."""
        container = self.container(service)
        self.cut_off[service] = list(container.attrs["NetworkSettings"]["Networks"])
        for network in self.cut_off[service]:
            self.client.networks.get(network).disconnect(container.id)

    def heal(self, service: str) -> None:
        """Puts it back."""
        for network in self.cut_off.pop(service):
            self.client.networks.get(network).connect(self.container(service).id, aliases=[service])

    def healthy(self, service: str) -> bool:
        """Whether the health check of a running container has passed."""
        state = self.container(service).attrs["State"]
        return bool(state["Running"] and state.get("Health", {"Status": "healthy"})["Status"] == "healthy")

    @contextmanager
    def beside(self, name: str, program: str) -> Iterator[Container]:
        """A Python program in a container that the others reach by a name."""
        container = self.client.containers.run(
            self.container("replay").image.id,
            ["-c", program],
            entrypoint=["python"],
            name=f"{self.project}-{name}",
            detach=True,
            init=True,
        )
        try:
            self.client.networks.get(f"{self.project}_default").connect(container.id, aliases=[name])
            yield container
        finally:
            container.remove(force=True, v=True)


@contextmanager
def running_stack(
    services: Sequence[str] = SERVICES,
    *,
    stopped: Sequence[str] = (),
    files: Sequence[Path] = (),
    settings: dict[str, str] | None = None,
    suffix: str = "",
) -> Iterator[ComposeStack]:
    """A stack of its own, which leaves nothing behind.

    Args:
        services: Which to start.
        stopped: Which to make without starting them.
        files: Compose files on top of compose.yaml.
        settings: More settings of .env.example.
        suffix: Tells a second stack from the first, at the same time.
    """
    client = engine()
    require(client, *(IMAGES[name] for name in BASES))
    project = f"newt-test-{os.getpid()}{suffix}"
    rest, prometheus = free_port(), free_port()
    environment = {
        "COMPOSE_PROJECT_NAME": project,
        "COMPOSE_FILE": os.pathsep.join(str(path) for path in (ROOT / "compose.yaml", *files)),
        "NEWT_COMPOSE_REST_PORT": str(rest),
        "NEWT_COMPOSE_PROMETHEUS_PORT": str(prometheus),
        "NEWT_COMPOSE_SIM_WORKERS": "1",
        "NEWT_COMPOSE_SIM_CPUS": "1",
        "NEWT_COMPOSE_LEARNER_THREADS": "1",
        "NEWT_COMPOSE_PLANNER_THREADS": "1",
        **(settings or {}),
    }
    try:
        if ours := [service for service in (*services, *stopped) if service in OURS]:
            build(*ours, environment=environment)  # without a name it would be all images
        try:
            if stopped:
                compose("--profile", "all", "create", "--no-build", *stopped, environment=environment, timeout_s=60)
            compose("up", "--no-build", "--detach", "--wait", *services, environment=environment, timeout_s=900)
        except AssertionError:
            print(compose("logs", "--tail", "20", environment=environment, timeout_s=60))
            raise
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{rest}", timeout=30) as rest_client,
            httpx.Client(base_url=f"http://127.0.0.1:{prometheus}", timeout=30) as prometheus_client,
        ):
            yield ComposeStack(client, project, rest_client, prometheus_client, environment)
    finally:
        profiles = ("--profile", "all", "--profile", "alerts")
        compose(*profiles, "down", "--volumes", "--timeout", "20", environment=environment, timeout_s=200)


if __name__ == "__main__":  # CI builds while other tests run; what fails here, the tests of images show
    if os.environ.get("NEWT_TEST_NO_DOCKER") is None and os.environ.get("NEWT_TEST_BUILD") != "0":
        # One after the other: twelve at once would take a good part of the processor, however low their priority is.
        for service in sizes.services():
            build(service, environment={"NEWT_COMPOSE_MANISKILL_ASSETS": "none"})
