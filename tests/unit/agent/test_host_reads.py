"""Updates and plans never wait for their device: on a GPU, every number that Python reads empties its queue of work."""

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from host_reads import host_reads
from small_agents import build_batch, build_model
from torch import Tensor

from newt.agent.compilation import CompiledInferenceModel
from newt.agent.config import PlanConfig, Sharing, TrainConfig
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner, PlanResult
from newt.agent.update import Updater, read_metrics

PLAN = PlanConfig(num_samples=48, num_policy_trajectories=6, num_elites=8, iterations=3)
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: float(x[0]),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.tensor([1.0], device=x.device),
    ],
)
def test_the_counter_sees(read: Callable[[Tensor], object]) -> None:
    x = torch.arange(3.0)
    with host_reads() as reads:
        read(x)
    assert reads


@pytest.mark.parametrize("value_scale", ["shared", "per_task"])
def test_updates_read_nothing(value_scale: Sharing) -> None:
    updater = Updater(build_model(), TrainConfig(value_scale=value_scale, warmup_updates=10))
    batch = build_batch(updater.model)
    with host_reads() as reads:
        for _ in range(2):
            metrics = {**updater.pretrain_update(batch), **updater.rl_update(batch)}
    assert reads == []
    with host_reads() as reads:
        numbers = read_metrics(metrics)
    assert reads == ["tolist"]
    assert numbers == {name: float(value) for name, value in metrics.items()}


def plan(planner: Planner, rows: int, device: str = "cpu") -> PlanResult:
    generator = torch.Generator().manual_seed(1)
    obs, task = torch.randn(rows, 10, generator=generator), torch.arange(rows) % 4
    return planner.plan(obs.to(device), task.to(device), seeds=torch.arange(rows), constraint_weight=0.5)


@pytest.mark.parametrize("kind", [InferenceModel, CompiledInferenceModel])
def test_plans_on_a_device_read_nothing(kind: type[InferenceModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device whose tensors have no numbers, reading one is an error."""
    monkeypatch.setattr(CompiledInferenceModel, "backend", "eager")
    monkeypatch.setattr("newt.agent.planning._GPU_SAMPLES_PER_PASS", 4 * PLAN.num_samples)
    planner = Planner(kind.from_model(build_model(), torch.bfloat16, "meta"), PLAN)
    result = plan(planner, rows=6)
    assert {getattr(result, field.name).device.type for field in fields(result)} == {"meta"}
    assert result.sequence.shape == (6, 3, 4)
    obs, task = torch.zeros(6, 10), torch.zeros(6, dtype=torch.int64)
    assert planner.policy(obs, task, seeds=task).device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_critics", [2, 5])
def test_critics_gathered_on_a_device_value_what_chosen_ones_do(dtype: torch.dtype, num_critics: int) -> None:
    model = build_model(num_critics=num_critics)
    chosen, gathered = (InferenceModel.from_model(model, dtype, gather=gather) for gather in (False, True))
    generator = torch.Generator().manual_seed(1)
    task = torch.arange(7) % 4
    z = torch.rand(7, 9, 32, generator=generator)
    action = torch.rand(7, 9, 4, generator=generator)
    pairs = torch.stack([torch.randperm(num_critics, generator=generator)[:2] for _ in range(7)])
    values = [fast.value(fast.task_terms(task), z, action, pairs) for fast in (chosen, gathered)]
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(values[1], values[0], rtol=tolerance, atol=tolerance)
    assert float(values[0].std()) > 5 * tolerance
    # Both keep one copy of the weights: those of single critics are views.
    assert float(gathered.mean_value(gathered.task_terms(task), z, action).sum()) == pytest.approx(
        float(chosen.mean_value(chosen.task_terms(task), z, action).sum()), rel=1e-4
    )


def test_plans_of_gathered_critics_equal_those_of_chosen_ones() -> None:
    model = build_model()
    results = [plan(Planner(InferenceModel.from_model(model, gather=gather), PLAN), rows=5) for gather in (False, True)]
    torch.testing.assert_close(results[1].value, results[0].value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[1].next_mean, results[0].next_mean, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@NO_GPU
def test_a_gpu_is_not_waited_for() -> None:
    updater = Updater(build_model().to("cuda"), TrainConfig(value_scale="per_task"))
    batch = build_batch(updater.model).to("cuda")
    planner = Planner(InferenceModel.from_model(updater.model, torch.bfloat16), PLAN)
    updater.pretrain_update(batch), updater.rl_update(batch), plan(planner, 5)  # libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        updater.pretrain_update(batch)
        updater.rl_update(batch)
        plan(planner, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("obs_scaling", ["none", "per_task"])
def test_a_gpu_updates_the_same_each_time(obs_scaling: str) -> None:
    states = []
    for _ in range(2):
        updater = Updater(build_model(obs_scaling=obs_scaling).to("cuda"), TrainConfig(), seed=3)
        for seed in range(3):
            updater.rl_update(build_batch(updater.model, seed=seed).to("cuda"))
        states.append(updater.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
