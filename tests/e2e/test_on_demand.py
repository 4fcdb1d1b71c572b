"""Simulators that the learner starts when a run needs them, through the filtering proxy, on a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose_stack import (
    BUILD_TIMEOUT_S,
    IMAGES,
    ROOT,
    TINY_RUN,
    ComposeStack,
    engine,
    require,
    running_stack,
    wait_for,
)
from docker.errors import ImageNotFound
from docker.models.containers import Container

from deploy import sizes
from services.learner.processes.sim_containers import ON_DEMAND, SimContainers
from services.learner.settings import LearnerSettings

IDLE_S = 3.0
RUN = {**TINY_RUN, "evaluation": {"episodes_per_task": 0, "videos": False}}

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_TIMEOUT_S + 600)]


# ---- the module against the engine's socket


@pytest.fixture
def containers() -> Iterator[dict[str, Container]]:
    """One that may be started on demand, one that may not; both stopped."""
    client = engine()
    prefix = f"newt-test-{uuid.uuid4().hex[:6]}"
    made = {}
    try:
        for service, labels in {"sim-atari": {ON_DEMAND: "true"}, "sim-box2d": {}}.items():
            image = sizes.image("replay")  # any that stays
            made[service] = client.containers.create(
                image, ["-c", "import time; time.sleep(600)"], entrypoint=["python"], name=f"{prefix}-{service}-1",
                labels=labels, init=True,
            )  # fmt: skip
        yield made
    except ImageNotFound:
        pytest.skip("the image of replay is not built: docker compose build replay")
    finally:
        for container in made.values():
            container.remove(force=True)


def test_containers_follow_the_need(containers: dict[str, Container]) -> None:
    now, needed = 0.0, {"sim-atari", "sim-box2d"}
    name = containers["sim-atari"].name.replace("sim-atari", "{service}")
    settings = LearnerSettings(docker_host="unix:///var/run/docker.sock", docker_container=name, docker_idle_s=60)
    manager = SimContainers(settings, lambda: needed, clock=lambda: now)

    def status() -> dict[str, str]:
        for container in containers.values():
            container.reload()
        return {service: container.status for service, container in containers.items()}

    manager.tick()
    # Nobody has set the other one aside for this.
    assert status() == {"sim-atari": "running", "sim-box2d": "created"}
    needed = set()
    manager.tick()
    now = 59.0
    manager.tick()
    assert status()["sim-atari"] == "running"
    needed = {"sim-atari"}  # needed again: idleness starts anew
    manager.tick()
    needed, now = set(), 100.0
    SimContainers(settings, lambda: needed, clock=lambda: now).tick()  # another learner takes over
    manager.tick()
    now = 161.0
    manager.tick()
    assert status() == {"sim-atari": "exited", "sim-box2d": "created"}


def test_a_container_that_does_not_exist_is_named_with_its_profile(
    containers: dict[str, Container], capsys: pytest.CaptureFixture[str]
) -> None:
    name = containers["sim-atari"].name.replace("sim-atari", "{service}")
    settings = LearnerSettings(docker_host="unix:///var/run/docker.sock", docker_container=name)
    manager = SimContainers(settings, lambda: {"sim-ogbench"})
    for _ in range(3):
        manager.tick()
    told = [line for line in capsys.readouterr().out.splitlines() if "simulator_not_started" in line]
    assert len(told) == 1
    assert "docker compose --profile sim-ogbench up -d" in told[0]


# ---- a whole stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    require(engine(), IMAGES["NEWT_HAPROXY_IMAGE"])
    impatient = tmp_path_factory.mktemp("compose") / "impatient.yaml"
    impatient.write_text('services: {learner: {environment: {NEWT_LEARNER_DEPENDENCY_TIMEOUT_S: "20"}}}\n')
    with running_stack(
        ("redis", "replay", "planner", "learner", "docker-proxy"),
        stopped=["sim-miniarcade"],
        files=[ROOT / "compose.on-demand.yaml", Path(impatient)],
        settings={"NEWT_COMPOSE_DOCKER_IDLE_S": str(IDLE_S)},
    ) as stack:
        yield stack


def test_a_run_gets_its_simulator_and_gives_it_back(stack: ComposeStack) -> None:
    assert stack.container("sim-miniarcade").status == "created"
    run_id = stack.submit({**RUN, "tasks": ["pygame-cowboy"]})
    wait_for(lambda: stack.container("sim-miniarcade").status == "running", "the simulator's container runs", 30)

    def collects() -> bool:
        run = stack.run(run_id)
        assert run["state"] not in ("failed", "cancelled"), run["error"]
        return bool(run["progress"]["env_steps"] > 0)

    wait_for(collects, "env steps", 120)
    stack.rest.post(f"/runs/{run_id}/cancel").raise_for_status()
    wait_for(lambda: stack.container("sim-miniarcade").status == "exited", "stopped when idle", IDLE_S + 30)


def test_a_run_whose_simulator_has_no_container_says_which_profile_to_start(stack: ComposeStack) -> None:
    run_id = stack.submit({**RUN, "tasks": ["atari-pong"]})
    wait_for(lambda: stack.run(run_id)["state"] == "failed", "failed", 60)
    assert "docker compose --profile sim-atari up -d" in stack.run(run_id)["error"]
    assert b"simulator_not_started" in stack.container("learner").logs()


def test_the_proxy_passes_nothing_else(stack: ComposeStack) -> None:
    simulator = stack.container("sim-miniarcade")
    redis = stack.container("redis")
    attempts = {
        "GET /version": 200,
        f"GET /containers/{simulator.name}/json": 200,
        f"POST /containers/{simulator.name}/stop": 304,  # it is not running
        "GET /containers/json": 403,
        "GET /info": 403,
        "GET /images/json": 403,
        f"GET /containers/{redis.name}/json": 403,
        f"POST /containers/{redis.name}/stop": 403,
        f"POST /containers/{simulator.id}/start": 403,
        f"POST /containers/{simulator.name}/../{redis.name}/stop": 403,
        f"POST /containers/{simulator.name}%2F..%2F{redis.name}/stop": 403,
        f"POST /containers/{simulator.name}/exec": 403,
        f"POST /containers/{simulator.name}/update": 403,
        f"DELETE /containers/{simulator.name}": 403,
        f"PUT /containers/{simulator.name}/archive": 403,
        "POST /containers/create": 403,
        "POST /build": 403,
    }
    program = """
import http.client, sys
for attempt in sys.argv[1:]:
    connection = http.client.HTTPConnection("docker-proxy", 2375, timeout=10)
    connection.request(*attempt.split(" ", 1))
    print(connection.getresponse().status)
connection = http.client.HTTPConnection("docker-proxy", 2375, timeout=10)
connection.request("POST", sys.argv[3].split(" ")[1].replace("/stop", "/start"), body="{}")
print(connection.getresponse().status)
connection = http.client.HTTPConnection("docker-proxy", 2375, timeout=10)
connection.request("GET", "/version", headers={"Connection": "Upgrade", "Upgrade": "h2c"})
print(connection.getresponse().status)
"""
    *statuses, with_body, as_another_protocol = map(int, stack.python("learner", program, *attempts).split())
    assert dict(zip(attempts, statuses, strict=True)) == attempts
    assert with_body == 403
    assert as_another_protocol == 403
    redis.reload()
    assert redis.status == "running"


def test_only_the_learner_reaches_the_proxy(stack: ComposeStack) -> None:
    program = "import socket\ntry: socket.create_connection(('docker-proxy', 2375), 5)\nexcept OSError: print('no')"
    assert stack.python("replay", program).strip() == "no"
