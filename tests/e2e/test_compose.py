"""compose.yaml on a real Docker engine: builds the images, brings the stack up, trains, alerts, backs up, stops.

Skipped without an engine. The first build takes many minutes; tests/support/compose_stack.py says what it needs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose_stack import (
    BUILD_TIMEOUT_S,
    IMAGES,
    OURS,
    ROOT,
    TASKS,
    TINY_RUN,
    ComposeStack,
    require,
    running_stack,
    wait_for,
)

import newt
from newt.local.ports import free_port

RECEIVER = """
import http.server

class Posts(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode().strip(), flush=True)
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("", 8080), Posts).serve_forever()
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def base(version: str) -> str:
    """Without the label of a build: torch 2.13.0+cpu is torch 2.13.0."""
    return version.partition("+")[0]


def constraints() -> dict[str, str]:
    """Version by normalised name, from both files."""
    text = (ROOT / "constraints.txt").read_text() + (ROOT / "constraints/maniskill.txt").read_text()
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


@pytest.fixture(scope="module")
def stack() -> Iterator[ComposeStack]:
    with running_stack() as stack:
        yield stack


pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_TIMEOUT_S + 1200)]


@pytest.mark.parametrize("service", ["redis", *OURS])
def test_containers_are_confined_and_healthy(stack: ComposeStack, service: str) -> None:
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
def test_images_say_what_they_are(stack: ComposeStack, service: str) -> None:
    labels = stack.container(service).image.labels
    assert labels["org.opencontainers.image.title"] == f"newt-{service}"
    assert labels["org.opencontainers.image.description"]
    assert labels["org.opencontainers.image.version"] == newt.__version__
    assert labels["org.opencontainers.image.licenses"] == "MIT"


def test_prometheus_says_when_it_answers(stack: ComposeStack) -> None:
    wait_for(lambda: stack.healthy("prometheus"), "Prometheus is healthy", 60)


@pytest.mark.parametrize("service", ["replay", "sim-mujoco", "sim-miniarcade"])
def test_no_torch_where_none_is_needed(stack: ComposeStack, service: str) -> None:
    assert stack.container(service).exec_run(["python", "-c", "import torch"]).exit_code == 1


@pytest.mark.parametrize("service", OURS)
def test_every_package_has_its_tested_version(stack: ComposeStack, service: str) -> None:
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


def test_a_run_trains_shows_its_metrics_and_leaves_a_checkpoint(stack: ComposeStack) -> None:
    run_id = stack.submit({**TINY_RUN, "tasks": list(TASKS)})

    def trains() -> bool:
        run = stack.run(run_id)
        assert run["state"] != "failed", run["error"]
        return bool(run["progress"]["updates"] >= 20 and run["progress"]["env_steps"] > 1000)

    wait_for(trains, "20 online updates", 600)
    seen: dict[str, set[float]] = {task: set() for task in TASKS}

    def scores_move() -> bool:
        for task, progress in stack.run(run_id)["progress"]["tasks"].items():
            if progress["last_score"] is not None:
                seen[task].add(progress["last_score"])
        return all(len(scores) > 1 for scores in seen.values())

    wait_for(scores_move, "another score in every task", 300)
    wait_for(lambda: len(stack.query("newt_learner_task_score")) == len(TASKS), "scores in Prometheus", 60)
    wait_for(lambda: stack.query("newt_learner_env_steps_per_second > 0"), "env steps in Prometheus", 60)
    for job, replicas in {"learner": 1, "planner": 1, "replay": 1, "sim": 2}.items():
        wait_for(lambda j=job, n=replicas: len(stack.query(f'up{{job="{j}"}} == 1')) == n, f"{job} scraped", 60)

    stack.rest.post(f"/runs/{run_id}/cancel").raise_for_status()
    wait_for(lambda: stack.run(run_id)["state"] == "cancelled", "cancelled", 120)
    (*_, newest) = stack.rest.get(f"/runs/{run_id}/checkpoints").raise_for_status().json()["checkpoints"]
    assert newest["updates"] >= 20
    listing = stack.container("learner").exec_run(["find", f"/data/runs/{run_id}", "-size", "+100k"])
    assert newest["name"] in listing.output.decode()


def test_a_backup_is_restored_into_another_stack(stack: ComposeStack, tmp_path: Path) -> None:
    """By the commands of docs/compose.md."""
    os.chown(tmp_path, 10001, 10001)
    settings = {"NEWT_COMPOSE_BACKUPS": str(tmp_path)}
    made = stack.compose("run", "--rm", "backup", timeout_s=120, **settings)
    (backup,) = tmp_path.iterdir()
    place, _, held = made.strip().partition(": ")
    assert place == f"/backups/{backup.name}"
    assert held.startswith("1 runs, ")
    (run,) = stack.rest.get("/runs").raise_for_status().json()["runs"]
    with running_stack(["redis"], settings=settings, suffix="-other") as other:
        restored = other.compose("run", "--rm", "backup", "restore", place, timeout_s=120)
        assert restored.strip() == f"restored {place}: {held}"
        other.compose("up", "--no-build", "--detach", "--wait", "replay", "learner", timeout_s=300)
        there, here = ({**each.run(run["id"]), "links": None} for each in (other, stack))
        assert there == here
        (*_, newest) = here_all = (
            stack.rest.get(f"/runs/{run['id']}/checkpoints").raise_for_status().json()["checkpoints"]
        )
        assert other.rest.get(f"/runs/{run['id']}/checkpoints").raise_for_status().json()["checkpoints"] == here_all
        file = f"/runs/{run['id']}/checkpoints/{newest['name']}"
        assert other.rest.get(file).raise_for_status().content == stack.rest.get(file).raise_for_status().content


def test_an_alert_reaches_a_receiver(stack: ComposeStack) -> None:
    """From a record in Redis that nobody can read, by way of replay, Prometheus and the profile `alerts`."""
    require(stack.client, IMAGES["NEWT_ALERTMANAGER_IMAGE"])
    settings = {"NEWT_COMPOSE_ALERT_WEBHOOK": "http://receiver:8080/alerts"}
    settings["NEWT_COMPOSE_ALERTMANAGER_PORT"] = str(free_port())

    def redis(*command: str) -> str:
        output: bytes = stack.container("redis").exec_run(["redis-cli", *command]).output
        return output.decode().strip()

    with stack.beside("receiver", RECEIVER) as receiver:

        def fired() -> list[dict[str, str]]:
            posts = [json.loads(line) for line in receiver.logs(stderr=False).decode().splitlines()]
            alerts = [alert["labels"] for post in posts for alert in post["alerts"] if alert["status"] == "firing"]
            return [labels for labels in alerts if labels["alertname"] == "NewtReplayBrokenRecords"]

        stack.compose("--profile", "alerts", "up", "--detach", "--wait", "alertmanager", timeout_s=60, **settings)
        try:
            assert redis("hset", "newt:replay:1:buffer:broken:meta", "incarnation", "1", "next", "nonsense") == "2"
            assert redis("sadd", "newt:replay:1:spaces", "buffer:broken") == "1"
            assert {labels["job"] for labels in wait_for(fired, "the alert at the receiver", 90)} == {"replay"}
        finally:
            redis("srem", "newt:replay:1:spaces", "buffer:broken")
            redis("del", "newt:replay:1:buffer:broken:meta")
    assert stack.container("alertmanager").attrs["RestartCount"] == 0


def test_a_service_that_dies_comes_back(stack: ComposeStack) -> None:
    before = stack.started_at("replay")
    stack.kill(["replay"])
    wait_for(lambda: stack.started_at("replay") != before and stack.healthy("replay"), "replay is back", 120)


def test_everything_stops_on_sigterm(stack: ComposeStack) -> None:
    for service in reversed(OURS):
        container = stack.container(service)
        container.stop(timeout=40)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0, f"{service}: {container.logs(tail=20).decode()}"
