"""The planner service with NEWT_PLANNER_COMPILE: published weights become a compiled model with equal plans."""

from __future__ import annotations

import json

import pytest
import torch

from newt.agent.checkpoints import weights_to_bytes
from newt.agent.compilation import CompiledInferenceModel
from newt.agent.config import ModelConfig, PlanConfig
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.wire.chunks import Weights
from services.planner.device import choose_device
from services.planner.model import load
from services.planner.settings import PlannerSettings

pytestmark = pytest.mark.timeout(600)


def test_a_compiled_model_plans_as_an_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledInferenceModel, "backend", "aot_eager")  # traced, without minutes of code generation
    table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
    sizes = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "language_dim": 8}
    model = WorldModel(ModelConfig.from_size("XS", **sizes), table)
    config = PlanConfig(num_samples=16, num_policy_trajectories=4, num_elites=4, iterations=1)
    weights = Weights("run", 1, weights_to_bytes(model), json.dumps(config.to_dict()))
    plans = []
    for compile_it in (True, False):
        settings = PlannerSettings(device="cpu", precision="float32", compile=compile_it)
        planner = load(weights, choose_device(settings)).planner
        assert isinstance(planner.model, CompiledInferenceModel) is compile_it
        obs = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
        plans.append(planner.plan(obs, torch.zeros(3, dtype=torch.int64), seeds=torch.arange(3)))
    torch.testing.assert_close(plans[0].action, plans[1].action, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(plans[0].value, plans[1].value, rtol=1e-3, atol=1e-4)
