"""All gRPC services as real processes, on IPv6 loopback and in both spellings of it.

They have no home, and the folder that they were started in is gone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import ModelConfig
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.local import ports, redis_server
from newt.wire.addresses import host_port
from newt.wire.channels import connect

NAMES = {
    "sim": "newt.v1.SimService",
    "replay": "newt.v1.ReplayService",
    "learner": "newt.v1.WeightsService",
    "planner": "newt.v1.PlannerService",
}
HOSTS = {"sim": "::1", "replay": "[::1]", "learner": "[::1]", "planner": "::1"}
PLAN_JSON = json.dumps({"num_samples": 16, "num_policy_trajectories": 2, "num_elites": 4, "iterations": 1})
TASKS = ("reach", "walk", "swim")
START_S = 180.0
GRACE_S = 1.0


@functools.cache
def payload() -> bytes:
    """A tiny model."""
    generator = torch.Generator().manual_seed(0)
    table = TaskTable.build(TASKS, torch.randn(3, 8, generator=generator), [2, 6, 16], [0.95, 0.99, 0.99])
    sizes = {"latent_dim": 16, "encoder_dim": 16, "encoder_layers": 1, "mlp_dim": 16, "num_critics": 2}
    return weights_to_bytes(WorldModel(ModelConfig(**sizes, simnorm_dim=8, language_dim=8), table, generator))


class House:
    """Redis, a simulator service without simulators, replay, a planner, and a learner for its weights hub."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.redis = redis_server.start(home / "redis")
        self._ports = {name: ports.free_port() for name in (*NAMES, "rest", "metrics")}
        self.addresses = {name: host_port(HOSTS[name], self._ports[name]) for name in NAMES}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        settings = {
            "sim": {"DOMAINS": "noop", "WORKERS": 1, "DEFAULT_LEASE_S": 2, "MAX_LEASE_S": 2, "MAX_INSTANCES": 128},
            "replay": {"REDIS_URL": self.redis.url},
            "learner": {
                "HOST": HOSTS["learner"],
                "PORT": self._ports["rest"],
                "HUB_HOST": HOSTS["learner"],
                "HUB_PORT": self._ports["learner"],
                "REDIS_URL": self.redis.url,
                "REPLAY": self.addresses["replay"],
                "PLANNER": self.addresses["planner"],
                "DATA_DIR": home / "data",
            },
            "planner": {"HUB": self.addresses["learner"], "TORCH_THREADS": 1, "MAX_QUEUED_ROWS": 512},
        }
        for name, values in settings.items():
            if name != "learner":
                values |= {
                    "HOST": HOSTS[name],
                    "PORT": self._ports[name],
                    "METRICS_HOST": HOSTS[name],
                    "STOP_GRACE_S": GRACE_S,
                }
            environment = {f"NEWT_{name.upper()}_{key}": str(value) for key, value in values.items()}
            gone = home / f"{name}-gone"
            gone.mkdir()
            with (home / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    ["/bin/sh", "-c", 'rmdir "$0" && exec "$@"', gone, sys.executable, "-m", f"services.{name}"],
                    env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": "/proc/none", **environment},
                    stdout=log,
                    stderr=log,
                    cwd=gone,
                )

    def wait_ready(self) -> None:
        """Waits for all of them."""
        deadline = time.monotonic() + START_S
        for name in NAMES:
            while not self.healthy(name):
                assert self.processes[name].poll() is None, self.log(name)[-3000:]
                assert time.monotonic() < deadline, f"{name} is not ready: {self.log(name)[-3000:]}"
                time.sleep(0.1)

    def healthy(self, name: str) -> bool:
        """Whether the service says so, within two seconds."""
        with connect(self.addresses[name], one_replica=True) as channel, contextlib.suppress(grpc.RpcError):
            request = health_pb2.HealthCheckRequest(service=NAMES[name])
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
        return False

    def log(self, name: str) -> str:
        """What the process wrote so far."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def used(self, name: str) -> tuple[float, int, int]:
        """Resident MB, descriptors and threads of a service's main process."""
        process = psutil.Process(self.processes[name].pid)
        return process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()

    def settled(self, name: str, below_mb: float = 0.0, within_s: float = 10.0) -> tuple[float, int, int]:
        """What `used` says once calls that their clients have given up are over.

        Args:
            name: The service.
            below_mb: Memory at which it counts as settled at once; else when it no longer falls.
            within_s: Time to wait for that.
        """
        used, deadline = self.used(name), time.monotonic() + within_s
        while used[0] > below_mb and time.monotonic() < deadline:
            time.sleep(0.5)
            before, used = used, self.used(name)
            if not below_mb and used[0] > before[0] - 1.0:
                break
        return used

    def stop(self, name: str) -> float:
        """SIGTERM; returns the seconds until the process has ended, with status 0."""
        start = time.monotonic()
        self.processes[name].send_signal(signal.SIGTERM)
        assert self.processes[name].wait(60) == 0, self.log(name)[-3000:]
        return time.monotonic() - start

    def close(self) -> None:
        """Ends what is left."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.redis.stop()


@contextlib.contextmanager
def open_house(home: Path) -> Iterator[House]:
    """For the duration of a block."""
    house = House(home)
    try:
        house.wait_ready()
        yield house
    finally:
        house.close()
