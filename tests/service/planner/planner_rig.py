"""A real hub and real planners on loopback, and tiny models for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import ModelConfig, PlanConfig
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.client.planner import PlannerClient
from newt.wire.server import Server
from newt.wire.v1 import weights_pb2_grpc
from services.learner.weights.hub import WeightsHub
from services.planner.service import PlannerService
from services.planner.settings import PlannerSettings

TASKS = ("reach", "walk", "swim")
PLAN = PlanConfig(num_samples=48, num_policy_trajectories=4, num_elites=8, iterations=2)
PLAN_JSON = '{"num_samples": 48, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2}'


def tiny_model(seed: int = 0, **sizes: int) -> WorldModel:
    """A model with heads that are not zero, so that plans depend on everything."""
    generator = torch.Generator().manual_seed(seed)
    table = TaskTable.build(TASKS, torch.randn(3, 8, generator=generator), [2, 6, 16], [0.95, 0.99, 0.99])
    config = {"latent_dim": 32, "encoder_dim": 32, "encoder_layers": 2, "mlp_dim": 32, "num_critics": 3}
    model = WorldModel(ModelConfig(**{**config, "language_dim": 8, **sizes}), table, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def in_process(model: WorldModel, plan: PlanConfig = PLAN) -> Planner:
    """What the service should compute."""
    return Planner(InferenceModel.from_model(model, torch.float32), plan)


@dataclass
class Request:
    """Arguments of PlannerClient.plan for B rows."""

    obs: np.ndarray
    task: np.ndarray
    seed: np.ndarray

    @classmethod
    def draw(cls, rows: int, seed: int = 0) -> Request:
        rng = np.random.default_rng(seed)
        return cls(
            rng.standard_normal((rows, 128), np.float32),
            rng.integers(0, len(TASKS), rows, np.int32),
            rng.integers(0, 2**64, rows, np.uint64),
        )

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.obs, self.task, self.seed))


@dataclass
class Hub:
    """A hub that can be killed and started again on its port."""

    port: int = 0
    servicer: type[WeightsHub] = WeightsHub
    expected: tuple[str, ...] | None = ()
    hub: WeightsHub = field(init=False)
    server: Server = field(init=False)

    def start(self) -> Hub:
        self.hub = self.servicer(expected=self.expected)
        self.server = Server("newt.v1.WeightsService", "127.0.0.1", self.port)
        weights_pb2_grpc.add_WeightsServiceServicer_to_server(self.hub, self.server.grpc)
        self.server.start()
        self.port = self.server.port
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.hub.close()
        self.server.stop(grace_s=1)

    def kill(self) -> None:
        """Without saying good-bye."""
        self.server.stop(grace_s=0)
        self.hub.close()


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub().start()
    try:
        yield hub
    finally:
        hub.stop()


@contextlib.contextmanager
def running_planner(hub: Hub, **settings: object) -> Iterator[PlannerService]:
    values = {"port": 0, "hub": hub.address, "precision": "float32", "torch_threads": 1, **settings}
    service = PlannerService(PlannerSettings(**values))
    service.server.start()
    service.start()
    try:
        yield service
    finally:
        stop(service)


def stop(service: PlannerService) -> None:
    service.drain()
    service.server.stop(grace_s=1)
    service.close()


def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Waits for something to become true; fails the test if it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def version_served(client: PlannerClient, model_id: str) -> int:
    return next((m.weights_version for m in client.models(timeout_s=5) if m.model_id == model_id), 0)


def in_threads(*jobs: Callable[[], object], timeout_s: float = 30) -> list[object]:
    """Runs jobs side by side; returns their results, or raises the first error."""
    results: list[object] = [None] * len(jobs)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = jobs[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
        assert not thread.is_alive(), "timed out"
    if errors:
        raise errors[0]
    return results


__all__ = [
    "PLAN",
    "PLAN_JSON",
    "TASKS",
    "Hub",
    "Request",
    "in_process",
    "in_threads",
    "running_hub",
    "running_planner",
    "stop",
    "tiny_model",
    "until",
    "version_served",
    "weights_to_bytes",
]
