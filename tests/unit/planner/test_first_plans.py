"""What a planner computes before the first request of a model sees it."""

from __future__ import annotations

import json

import pytest
import torch

from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import ModelConfig, PlanConfig
from newt.agent.planning import Planner, PlanResult
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.wire.chunks import Weights
from services.planner.device import choose_device
from services.planner.model import load
from services.planner.settings import PlannerSettings

PLAN = PlanConfig(num_samples=16, num_policy_trajectories=4, num_elites=4, iterations=1)


def weights(version: int, latent_dim: int = 16, plan: PlanConfig = PLAN) -> Weights:
    table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
    sizes = {"latent_dim": latent_dim, "encoder_dim": 16, "mlp_dim": 16, "language_dim": 8}
    model = WorldModel(ModelConfig.from_size("XS", **sizes), table, torch.Generator().manual_seed(version))
    return Weights("run", version, weights_to_bytes(model), json.dumps(plan.to_dict()))


def test_every_size_is_computed_once_per_kind_of_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    plan = Planner.plan

    def counted(self: Planner, obs: torch.Tensor, *args: object, **options: object) -> PlanResult:
        rows.append(len(obs))
        return plan(self, obs, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Planner, "plan", counted)
    device = choose_device(PlannerSettings(device="cpu", precision="float32", pad="always", max_rows=40))
    load(weights(1), device)
    assert rows == [1, 2, 4, 8, 16, 32, 40]
    rows.clear()
    load(weights(2), device)  # a swap
    assert rows == [1]
    rows.clear()
    load(weights(3, latent_dim=24), device)
    assert rows == [1, 2, 4, 8, 16, 32, 40]
    rows.clear()
    load(weights(4, plan=PlanConfig(**{**PLAN.to_dict(), "num_samples": 24})), device)
    assert rows == [1, 2, 4, 8, 16, 32, 40]
    rows.clear()
    load(weights(5), choose_device(PlannerSettings(device="cpu", precision="float32")))
    assert rows == [1]
