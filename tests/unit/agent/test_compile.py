"""Compiled updates and plans do what eager ones do: same targets, same weights, same results.

The semantics are those of the traced graphs, which the backend "aot_eager" runs without generating code. Generating it
takes minutes, so "inductor" does so once for the updates and once for plans: small models, without vector instructions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_agents import build_batch, build_model
from torch import Tensor

from newt.agent.compilation import CompiledInferenceModel, prepare
from newt.agent.config import ConfigError, PlanConfig, Sharing, TrainConfig
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner, PlanResult
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel

pytestmark = pytest.mark.timeout(600)

PLAN = PlanConfig(num_samples=24, num_policy_trajectories=4, num_elites=6, iterations=2)
LONG = [pytest.mark.long, pytest.mark.timeout(900)]
FEW = {"encoder_layers": 1, "num_critics": 2}  # tracing takes as long as there are layers, in every step
HORIZON = 2


@pytest.fixture(autouse=True)
def _quick_generation() -> Iterator[None]:
    """Plain loops: the compiler takes several times as long for vector instructions, and looks for those it has."""
    with torch._inductor.config.patch({"cpp.simdlen": 1, "compile_threads": 1}):
        yield


def updater(compile_with: str | None, value_scale: Sharing = "shared", horizon: int = HORIZON) -> Updater:
    config = TrainConfig(ema_rate=0.1, lr=1e-3, value_scale=value_scale, horizon=horizon)
    model = build_model(**FEW, obs_scaling="none" if value_scale == "shared" else "per_task")
    result = Updater(model, config, seed=3)
    result.compile_with(compile_with)
    return result


def test_code_made_beside_updates_is_the_code_that_later_ones_use() -> None:
    one, eager = updater(None, "per_task"), updater(None, "per_task")
    batches = [build_batch(one.model, horizon=HORIZON, seed=index) for index in range(6)]
    for each in (one, eager):  # gradients and moments are there
        each.pretrain_update(batches[0])
        each.rl_update(batches[1])
    before = one.state_dict()
    with ThreadPoolExecutor(1) as other:
        made = other.submit(one.code_for(batches[2], "aot_eager", pretraining=True, online=True))
        for each in (one, eager):
            each.rl_update(batches[2])
        made.result()
    assert_equal(one.state_dict(), eager.state_dict())  # making it changed nothing
    assert any(not torch.equal(value, before[name]) for name, value in one.state_dict().items())
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    one.compile_with("aot_eager")
    for each in (one, eager):
        each.pretrain_update(batches[3])
        each.rl_update(batches[4])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0  # none of them waited for code
    assert_equal(one.state_dict(), eager.state_dict())


def shift(module: torch.nn.Module, amount: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9))


def assert_equal(compiled: dict[str, Tensor], eager: dict[str, Tensor]) -> None:
    assert compiled.keys() == eager.keys()
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=2e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(
    ("backend", "value_scale", "horizon"),
    [
        ("aot_eager", "shared", HORIZON),
        ("aot_eager", "per_task", HORIZON),
        pytest.param("inductor", "per_task", 1, marks=LONG),
    ],
)
def test_updates_equal_eager_ones(backend: str, value_scale: Sharing, horizon: int) -> None:
    compiled, eager = updater(backend, value_scale, horizon), updater(None, value_scale, horizon)
    for index in range(4):
        results = []
        for one in (compiled, eager):
            batch = build_batch(one.model, horizon=horizon, seed=index)
            results.append(one.pretrain_update(batch) if index < 2 else one.rl_update(batch))
        assert_equal(*results)
    assert_equal(compiled.state_dict(), eager.state_dict())
    target = dict(compiled.model.target_critics.named_parameters())
    online = dict(compiled.model.critics.named_parameters())
    assert all(not torch.equal(target[name], online[name]) for name in target)


def target_of(update: Updater) -> Tensor:
    """The mean TD target of an update that leaves the updater as it was."""
    before = update.state_dict()
    value = update.pretrain_update(build_batch(update.model, horizon=HORIZON))["td_target"]
    update.load_state_dict(before)
    return value


def test_targets_come_from_the_target_critics_as_they_are_now() -> None:
    """What F1 of the published implementation breaks: compiled targets that run the online weights."""
    compiled, eager = updater("aot_eager"), updater(None)
    before = target_of(compiled)
    for one in (compiled, eager):
        shift(one.model.critics, 0.3)
    torch.testing.assert_close(target_of(compiled), before)  # the online critics have no say
    for one in (compiled, eager):
        shift(one.model.target_critics, 0.3)
    after = target_of(compiled)
    assert abs(float(after - before)) > 1e-3
    torch.testing.assert_close(after, target_of(eager))


def test_the_moving_average_reaches_the_targets() -> None:
    """Two updates: the second one's targets come from the target critics that the first has moved."""
    compiled, frozen = updater("aot_eager"), updater("aot_eager")
    shift(compiled.model.critics, 0.5)
    shift(frozen.model.critics, 0.5)
    start = {name: value.clone() for name, value in frozen.model.target_critics.state_dict().items()}
    for one in (compiled, frozen):
        one.pretrain_update(build_batch(one.model, horizon=HORIZON))
    frozen.model.target_critics.load_state_dict(start)
    assert abs(float(target_of(compiled) - target_of(frozen))) > 1e-4


class Traced(CompiledInferenceModel):
    backend = "aot_eager"


class Generated(CompiledInferenceModel):
    backend = "inductor"


def plan(model: InferenceModel, rows: int) -> PlanResult:
    generator = torch.Generator().manual_seed(rows)
    obs = torch.randn(rows, model.config.obs_dim, generator=generator)
    return Planner(model, PLAN).plan(obs, torch.arange(rows) % 4, seeds=torch.arange(rows))


def assert_same_plan(compiled: InferenceModel, eager: InferenceModel, rows: int) -> None:
    mine, expected = plan(compiled, rows), plan(eager, rows)
    for name in ("action", "next_mean", "value"):
        torch.testing.assert_close(getattr(mine, name), getattr(expected, name), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "numbers"), [(Traced, (1, 2, 5, 3)), pytest.param(Generated, (2, 5, 3), marks=LONG)])
def test_plans_equal_eager_ones_for_any_number_of_rows_and_new_weights(
    kind: type[CompiledInferenceModel], numbers: tuple[int, ...]
) -> None:
    first, second = build_model(seed=0, **FEW), build_model(seed=1, **FEW)
    compiled, eager = kind.from_model(first), InferenceModel.from_model(first)
    for rows in numbers:
        assert_same_plan(compiled, eager, rows)
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compilations > 0
    # A new object, as the planner service makes for each version.
    newer = kind.from_model(second)
    assert_same_plan(newer, InferenceModel.from_model(second), 4)
    assert not torch.equal(plan(newer, 4).action, plan(compiled, 4).action)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations


def test_models_of_many_shapes_share_a_process() -> None:
    for width in (8, 16, 24):
        model = build_model(mlp_dim=width, **FEW)
        assert_same_plan(Traced.from_model(model), InferenceModel.from_model(model), 2)


def test_policy_alone_equals_eager(make_model: Callable[..., WorldModel]) -> None:
    model = make_model()
    obs, task, seeds = torch.randn(3, model.config.obs_dim), torch.arange(3), torch.arange(3)
    planners = [Planner(kind.from_model(model), PLAN) for kind in (Traced, InferenceModel)]
    actions = [planner.policy(obs, task, seeds=seeds) for planner in planners]
    torch.testing.assert_close(actions[0], actions[1], rtol=1e-4, atol=1e-5)


def test_a_missing_compiler_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        prepare(tmp_path)
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    prepare(tmp_path)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
