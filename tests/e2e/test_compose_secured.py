"""compose.secure.yaml on a real Docker engine: with every switch on, a run trains, and strangers are turned away."""

from __future__ import annotations

import subprocess
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

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_TIMEOUT_S + 600)]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run([ROOT / "scripts/secrets.sh", folder], check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def stack(secrets: Path) -> Iterator[ComposeStack]:
    settings = {"NEWT_COMPOSE_SECRETS": str(secrets)}
    with running_stack(files=[ROOT / "compose.secure.yaml"], settings=settings) as stack:
        yield stack


def test_strangers_are_turned_away(stack: ComposeStack) -> None:
    assert stack.rest.get("/runs").status_code == 401
    assert stack.rest.get("/runs", headers={"Authorization": "Bearer guessed"}).status_code == 401
    plain = "import grpc; grpc.channel_ready_future(grpc.insecure_channel('replay:50061')).result(5)"
    assert stack.container("planner").exec_run(["python", "-c", plain]).exit_code == 1
    redis = stack.container("redis")
    assert b"NOAUTH" in redis.exec_run(["redis-cli", "dbsize"]).output
    assert b"NOPERM" in redis.exec_run(["redis-cli", "--user", "health", "--pass", "any", "dbsize"]).output


def test_a_run_trains_and_no_secret_is_logged(stack: ComposeStack, secrets: Path) -> None:
    token, password = ((secrets / name).read_text().strip() for name in ("api-token", "redis-password"))
    stack.rest.headers["Authorization"] = f"Bearer {token}"
    try:
        run_id = stack.submit({**TINY_RUN, "tasks": list(TASKS)})

        def trains() -> bool:
            run = stack.run(run_id)
            assert run["state"] != "failed", run["error"]
            return bool(run["progress"]["updates"] >= 20)

        wait_for(trains, "20 online updates", 600)
        stack.rest.post(f"/runs/{run_id}/cancel").raise_for_status()
        wait_for(lambda: stack.run(run_id)["state"] == "cancelled", "cancelled", 120)
    finally:
        del stack.rest.headers["Authorization"]
    for service in ("redis", *OURS):
        logs = stack.container(service).logs().decode()
        assert token not in logs
        assert password not in logs
