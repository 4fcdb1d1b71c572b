"""The planner service with NEWT_PLANNER_COMPILE: published weights become a compiled model with equal plans."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from newt.agent import code_maker
from newt.agent.checkpoints import weights_to_bytes
from newt.agent.code_maker import CodeMaker
from newt.agent.compilation import CompiledInferenceModel
from newt.agent.config import ConfigError, ModelConfig, PlanConfig
from newt.agent.planning import Planner, PlanResult
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.wire.chunks import Weights
from services.planner.device import choose_device
from services.planner.model import load
from services.planner.settings import PlannerSettings

pytestmark = pytest.mark.timeout(600)


def test_a_compiled_model_plans_as_an_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledInferenceModel, "backend", "aot_eager")  # traced, without minutes of code generation
    monkeypatch.setattr(code_maker, "NICENESS", 0)
    table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
    sizes = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "language_dim": 8}
    model = WorldModel(ModelConfig.from_size("XS", **sizes), table)
    config = PlanConfig(num_samples=16, num_policy_trajectories=4, num_elites=4, iterations=1)
    weights = Weights("run", 1, weights_to_bytes(model), json.dumps(config.to_dict()))
    obs = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))

    def plan(planner: Planner) -> PlanResult:
        return planner.plan(obs, torch.zeros(3, dtype=torch.int64), seeds=torch.arange(3))

    eager = load(weights, choose_device(PlannerSettings(device="cpu", precision="float32"))).planner
    assert not isinstance(eager.model, CompiledInferenceModel)  # on a CPU it has to be asked for
    device = choose_device(PlannerSettings(device="cpu", precision="float32", compile=True))
    assert device.code is not None
    go_on = threading.Event()
    device.code.make("something else", lambda: go_on.wait(60))  # as if it took long
    planner = load(weights, device).planner
    assert isinstance(planner.model, CompiledInferenceModel)
    expected = plan(eager)
    assert torch.equal(plan(planner).action, expected.action)  # there is no code yet
    assert not planner.model.generated.is_set()
    go_on.set()
    assert device.code.wait(500)
    assert planner.model.generated.is_set()
    later = load(replace(weights, weights_version=2), device).planner
    before = counters["stats"]["unique_graphs"]
    for compiled in (planner, later):
        plans = plan(compiled)
        torch.testing.assert_close(plans.action, expected.action, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(plans.value, expected.value, rtol=1e-3, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == before > 0  # nobody waited for code


def test_what_cannot_be_compiled_acts_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    code, tried = CodeMaker(), threading.Event()

    def fail() -> None:
        tried.set()
        raise RuntimeError("no code today")

    code.make("kind", fail)
    assert code.wait(10)
    assert tried.is_set()
    assert not code.event("kind").is_set()
    code.make("kind", lambda: pytest.fail("asked for again"))
    made = threading.Event()
    code.make("other", made.set)
    assert code.wait(10)
    assert made.is_set()
    assert code.event("other").is_set()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        choose_device(PlannerSettings(device="cpu", compile=True))
