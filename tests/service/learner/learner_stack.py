"""All services of a run as real processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from newt.local import ports, redis_server

START_TIMEOUT_S = 180.0
PORTS = ("sim", "replay", "replay_metrics", "planner", "learner", "learner_metrics", "hub")
DOMAINS = ("dmcontrol", "metaworld", "mujoco")


def wait_until(there: Callable[[], bool], what: str, timeout_s: float = 180.0) -> None:
    """Polls a condition."""
    deadline = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.1)


def processes_of(run_id: str, role: str) -> dict[int, int]:
    """Process ids of a run's trainers, or of its collector, by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode().split("\0")
            modules = [argument for argument in arguments if argument.startswith("services.learner.")]
            if not any(module.endswith(f".{role}") for module in modules) or run_id not in arguments:
                continue
            environment = (process / "environ").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        values = dict(entry.partition("=")[::2] for entry in environment)
        found[int(values.get("RANK", "0"))] = int(process.name)
    return found


class LearnerStack:
    """Redis, simulators, replay, planner and learner.

    Args:
        home: Folder for data and logs.
        services: Which to start; the others are known to the learner, but not there.
        settings: More settings of the learner, NEWT_LEARNER_* without the prefix.
    """

    def __init__(self, home: Path, services: tuple[str, ...], settings: dict[str, Any] | None = None) -> None:
        self.home = home
        self.redis = redis_server.start(home / "redis")
        self.ports = {name: ports.free_port() for name in PORTS}
        address = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        self.settings: dict[str, dict[str, Any]] = {
            "sim": {"WORKERS": 1},
            "replay": {"REDIS_URL": self.redis.url, "METRICS_PORT": self.ports["replay_metrics"]},
            "planner": {"HUB": address["hub"], "TORCH_THREADS": 1},
            "learner": {
                "HUB_PORT": self.ports["hub"],
                "METRICS_PORT": self.ports["learner_metrics"],
                "REDIS_URL": self.redis.url,
                "REPLAY": address["replay"],
                "PLANNER": address["planner"],
                "SIMS": json.dumps(dict.fromkeys(DOMAINS, address["sim"])),
                "DATA_DIR": home / "data",
                "TORCH_THREADS": 1,
                **(settings or {}),
            },
        }
        self.replay_address = address["replay"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # An upload loads torch. On a busy machine, a connection that is kept may be closed while it is used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=f"http://{address['learner']}", timeout=90.0, limits=limits)
        try:
            for name in (*services, "learner"):
                self.start(name)
            wait_until(self._answers, "the learner answers", START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def start(self, name: str) -> None:
        """Starts a service's process."""
        values = {"PORT": self.ports[name], **self.settings[name]}
        environment = {f"NEWT_{name.upper()}_{key}": str(value) for key, value in values.items()}
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"services.{name}"],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """Ends a service's process at once."""
        self.processes[name].kill()
        self.processes[name].wait()

    def restart_redis(self) -> None:
        """Kills Redis, and starts it again on its data."""
        self.redis.kill()
        self.redis = redis_server.start(self.redis.directory, self.redis.port)

    def restart_learner(self) -> None:
        """Kills the learner, and starts it again."""
        self.kill("learner")
        self.start("learner")
        wait_until(self._answers, "the learner answers again", START_TIMEOUT_S)

    def wait_ready(self) -> None:
        """Waits until runs can run."""
        wait_until(lambda: self.http.get("/readyz").status_code == 200, "ready", START_TIMEOUT_S)

    def get(self, path: str, **params: Any) -> Any:
        """GET, which must succeed."""
        reply = self.http.get(path, params=params)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def submit(self, request: dict[str, Any]) -> str:
        """POST /runs; returns the id."""
        reply = self.http.post("/runs", json=request)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def follow(self, run_id: str, until: Callable[[dict[str, Any]], bool], timeout_s: float = 400.0) -> dict[str, Any]:
        """Polls a run until a condition holds or the run has ended; returns its record."""
        deadline = time.monotonic() + timeout_s
        while True:
            run: dict[str, Any] = self.get(f"/runs/{run_id}")
            if until(run) or run["state"] in ("succeeded", "failed", "cancelled"):
                return run
            assert time.monotonic() < deadline, f"run still {run['state']}: {run['progress']}"
            time.sleep(0.1)

    def kill_child(self, run_id: str, role: str) -> None:
        """Kills the trainer or the collector of a run."""
        os.kill(processes_of(run_id, role)[0], signal.SIGKILL)

    def kill_everything(self, run_id: str) -> None:
        """Kills the learner, trainer and collector of a run in one go, and starts the learner again."""
        pids = [processes_of(run_id, role)[0] for role in ("trainer", "collector")]
        for pid in (self.processes["learner"].pid, *pids):
            os.kill(pid, signal.SIGKILL)
        self.restart_learner()

    def stop(self) -> None:
        """Ends everything."""
        self.http.close()
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        self.redis.stop()

    def _answers(self) -> bool:
        assert self.processes["learner"].poll() is None, (self.home / "learner.log").read_text()[-2000:]
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False
