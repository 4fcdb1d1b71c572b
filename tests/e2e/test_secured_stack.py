"""A whole local stack with every switch of security on: mutual TLS, a token, a password; and what outsiders get."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis
from certificate_folders import SCRIPTS
from redis.backoff import NoBackoff
from redis.retry import Retry

from newt.local import control
from newt.wire import probe

SERVICES = {
    "sim-mujoco": "newt.v1.SimService",
    "replay": "newt.v1.ReplayService",
    "planner": "newt.v1.PlannerService",
}
SMALL = (
    "schedule.total_env_steps=600",
    "schedule.seed_env_steps=200",
    "schedule.pretrain_updates=10",
    "schedule.updates_per_env_step=0.05",
    "demos.scripted_episodes=1",
    "evaluation.episodes_per_task=1",
    "evaluation.videos=false",
    "replay.batch_size=16",
)


@dataclass(frozen=True)
class Secured:
    home: Path
    secrets: Path

    def newt(self, *arguments: str, token: bool = True, timeout_s: float = 500) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "NEWT_HOME": str(self.home),
            "NEWT_TLS_DIR": str(self.secrets),
            "NEWT_REDIS_PASSWORD_FILE": str(self.secrets / "redis-password"),
            **({"NEWT_API_TOKEN_FILE": str(self.secrets / "api-token")} if token else {}),
            "COLUMNS": "200",
        }
        command = [sys.executable, "-m", "newt.cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)

    def service(self, name: str) -> dict[str, str]:
        state = control.read(self.home)
        assert state is not None
        (service,) = (service for service in state.services if service["name"] == name)
        return service

    def kept(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("newt")
    made = Secured(folder / "home", folder / "secrets")
    subprocess.run([SCRIPTS / "secrets.sh", made.secrets], check=True, capture_output=True, timeout=60)
    result = made.newt("up", "--any-port", "--domain", "mujoco")
    assert result.returncode == 0, result.stdout + result.stderr
    yield made
    down = made.newt("down")
    assert down.returncode == 0, down.stdout + down.stderr


# By signal, so that the stack is stopped whatever happens; long, for machines that are busy with something else.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600, method="signal")]


def test_a_run_trains_and_leaves_no_secret_behind(stack: Secured) -> None:
    settings = [argument for value in SMALL for argument in ("--set", value)]
    result = stack.newt("train", "mujoco-reacher", "--preset", "laptop", *settings)
    logs = {path: path.read_text() for path in (stack.home / "logs").glob("*.log")}
    assert result.returncode == 0, result.stdout + result.stderr + "".join(logs.values())[-3000:]
    assert "succeeded" in result.stdout

    assert '"tls": true' in logs[stack.home / "logs" / "replay.log"]
    files = {path: path.read_bytes() for path in stack.home.rglob("*") if path.is_file()}
    assert any(path.suffix == ".aof" for path in files), "the data of Redis are among them"
    key = stack.kept("tls.key").splitlines()[1]
    for secret in (stack.kept("api-token"), stack.kept("redis-password"), key):
        assert secret not in result.stdout + result.stderr + stack.newt("status").stdout
        assert not [path for path, content in files.items() if secret.encode() in content]
        assert not [line for line in Path("/proc").glob("[0-9]*/cmdline") if secret.encode() in _read(line)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def test_rest_wants_the_token(stack: Secured) -> None:
    refused = stack.newt("runs", token=False)
    assert refused.returncode == 1
    assert "wants a token" in refused.stderr
    state = control.read(stack.home)
    assert state is not None
    assert httpx.get(f"{state.rest_url}/runs", timeout=10).status_code == 401


@pytest.mark.parametrize("name", SERVICES)
def test_grpc_wants_a_certificate(stack: Secured, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = stack.service(name)["address"]
    monkeypatch.delenv("NEWT_TLS_DIR", raising=False)
    assert probe.check(address, SERVICES[name], timeout_s=5) == "UNAVAILABLE"
    monkeypatch.setenv("NEWT_TLS_DIR", str(stack.secrets))
    assert probe.check(address, SERVICES[name], timeout_s=5) is None


def test_redis_wants_the_password(stack: Secured) -> None:
    host, _, port = stack.service("redis")["address"].partition(":")

    def ping(**credentials: str) -> object:
        client = redis.Redis(host, int(port), retry=Retry(NoBackoff(), 0), **credentials)  # type: ignore[arg-type]
        try:
            return client.ping()
        finally:
            client.close()

    with pytest.raises(redis.AuthenticationError):
        ping()
    with pytest.raises(redis.AuthenticationError):
        ping(username="newt", password="guess")
    assert ping(username="newt", password=stack.kept("redis-password"))
