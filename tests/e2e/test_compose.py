"""compose.yaml on a real Docker engine: builds the images, brings the stack up, trains, stops.

Skipped without an engine. The first build takes many minutes; tests/support/compose_stack.py says what it needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose_stack import (
    BUILD_TIMEOUT_S,
    OURS,
    ROOT,
    TASKS,
    TINY_RUN,
    ComposeStack,
    running_stack,
    wait_for,
)

import newt


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
