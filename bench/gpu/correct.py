"""The stage that compares the device with float64 on the CPU: losses and gradients, updates, plans, draws."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from bench import agents
from bench.gpu import graphs
from bench.gpu.document import Notebook
from bench.gpu.timing import multiplying
from bench.measure import Effort
from newt.agent.batch import UpdateBatch, UpdateNoise, draw_noise
from newt.agent.config import PlanConfig, Precision, TrainConfig
from newt.agent.inference import InferenceModel
from newt.agent.plan_noise import PlanDraws
from newt.agent.planning import Planner, PlanResult
from newt.agent.update import Updater, model_loss, policy_loss
from newt.agent.world_model import WorldModel

# Of losses, and of gradients by their norm.
_TOLERANCES: dict[Precision, tuple[float, float]] = {
    "float32": (1e-5, 1e-4),
    "tf32": (2e-3, 2e-2),
    "bfloat16": (1e-2, 5e-2),
}
Gradients = dict[str, Tensor]
T = TypeVar("T", UpdateBatch, UpdateNoise)


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Checks a small and the published size."""
    where = torch.device(device)
    for size in effort.pick(full=("XS", "L"), quick=("XS",), tiny=("XS",)):
        model = agents.world_model(size)
        _losses(size, model, where, effort, notebook)
        _updates(size, model, where, effort, notebook)
        _plans(size, model, where, effort, notebook)
        rows = effort.pick(full=(64, 33), quick=(16, 5), tiny=(4, 3))
        graphs.check(size, model, plan_config(effort), rows, where, notebook)
    _draws(where, notebook)
    _waits(where, effort, notebook)


def _losses(size: str, model: WorldModel, where: torch.device, effort: Effort, notebook: Notebook) -> None:
    rows = effort.pick(full=64, quick=16, tiny=4)
    batch = agents.batch(model, rows)
    noise = draw_noise(model, rows, TrainConfig().horizon, torch.tensor(1), pretrain=False)
    truth = _loss_and_gradients(copy.deepcopy(model).double(), _doubled(batch), _doubled(noise))
    for precision, (loss_tolerance, gradient_tolerance) in _TOLERANCES.items():
        there = copy.deepcopy(model).to(where)
        there.multiply_in(torch.bfloat16 if precision == "bfloat16" else None)
        with multiplying(precision, where):
            result = _loss_and_gradients(there, batch.to(where), _moved(noise, where))
        for name, (loss, gradients) in result.items():
            expected, expected_gradients = truth[name]
            notebook.check(f"{size}.{name}.{precision}", abs(loss / expected - 1), loss_tolerance)
            notebook.check(
                f"{size}.{name}_gradients.{precision}", _distance(gradients, expected_gradients), gradient_tolerance
            )


def _loss_and_gradients(
    model: WorldModel, batch: UpdateBatch, noise: UpdateNoise
) -> dict[str, tuple[float, Gradients]]:
    config = TrainConfig()
    loss, latents, _ = model_loss(model, config, batch, noise)
    world = float(loss.detach()), _gradients(model, loss)
    scale = torch.ones((), dtype=latents.dtype, device=latents.device)
    loss, _, _ = policy_loss(model, config, batch, latents.detach(), scale, noise)
    return {"model_loss": world, "policy_loss": (float(loss.detach()), _gradients(model, loss))}


def _gradients(model: WorldModel, loss: Tensor) -> Gradients:
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.double().cpu() for name, p in model.named_parameters() if p.grad is not None}


def _distance(some: Gradients, others: Gradients) -> float:
    """Norm of the difference over the norm."""
    apart = sum(float((some[name] - other).square().sum()) for name, other in others.items())
    return math.sqrt(apart / sum(float(other.square().sum()) for other in others.values()))


def _updates(size: str, model: WorldModel, where: torch.device, effort: Effort, notebook: Notebook) -> None:
    """The same updates here and there; and whether the device makes the same ones again."""
    rows, updates = effort.pick(full=64, quick=16, tiny=4), effort.pick(full=20, quick=5, tiny=2)
    batches = [agents.batch(model, rows, seed=seed) for seed in range(updates)]

    def train(device: torch.device) -> tuple[float, dict[str, Tensor]]:
        updater = Updater(copy.deepcopy(model).to(device), TrainConfig(precision="float32"), seed=3)
        with multiplying("float32", device):
            for batch in batches:
                metrics = updater.rl_update(batch.to(device))
        return float(metrics["total_loss"]), updater.state_dict()

    here, there, again = train(torch.device("cpu")), train(where), train(where)
    notebook.check(f"{size}.loss_after_{updates}_updates", abs(there[0] / here[0] - 1), 1e-4)
    different = sum(not torch.equal(there[1][name], again[1][name]) for name in there[1])
    notebook.check(f"{size}.tensors_that_differ_when_repeated", different, 0)


def _plans(size: str, model: WorldModel, where: torch.device, effort: Effort, notebook: Notebook) -> None:
    config, rows = plan_config(effort), effort.pick(full=32, quick=8, tiny=3)
    inputs = agents.observations(rows), agents.spread_tasks(model, rows)

    def plan(device: torch.device, dtype: torch.dtype, some: slice = slice(None)) -> PlanResult:
        planner = Planner(InferenceModel.from_model(model, dtype, device), config)
        with multiplying("float32", device):
            result = planner.plan(*(x[some] for x in inputs), seeds=torch.arange(rows)[some], explore=False)
        return PlanResult(*(getattr(result, field.name).float().cpu() for field in fields(result)))

    exact = plan(torch.device("cpu"), torch.float32)
    there, reduced = plan(where, torch.float32), plan(where, torch.bfloat16)
    # Where two candidates are nearly equal, rounding decides who is an elite: then whole plans differ.
    apart = (there.action - exact.action).abs().amax(1)
    notebook.check(f"{size}.share_of_plans_that_differ", float((apart > 1e-3).float().mean()), 0.05)
    values = ((reduced.value - exact.value).abs() / exact.value.abs().clamp(min=1)).median()
    notebook.check(f"{size}.value_of_bfloat16_plans", float(values), 0.01)
    alone = plan(where, torch.float32, slice(1, 2))
    notebook.check(f"{size}.plan_alone", float((alone.action[0] - there.action[1]).abs().max()), 1e-3)


def plan_config(effort: Effort) -> PlanConfig:
    """The published budget, or next to nothing."""
    tiny = PlanConfig(num_samples=48, num_policy_trajectories=4, num_elites=8, iterations=2)
    return effort.pick(full=PlanConfig(), quick=PlanConfig(), tiny=tiny)


def _draws(where: torch.device, notebook: Notebook) -> None:
    seeds = torch.tensor([0, 1, -1, 2**63 - 1])
    noises = [
        PlanDraws(PlanConfig(), 16, 16, 5, device).plan(seeds.to(device), 3) for device in (torch.device("cpu"), where)
    ]
    for field in fields(noises[0]):
        here, there = (getattr(noise, field.name) for noise in noises)
        notebook.check(f"draws.{field.name}", float((here != there.cpu()).sum()), 0)


def _waits(where: torch.device, effort: Effort, notebook: Notebook) -> None:
    """Whether an update or a plan reads anything before it is over."""
    if where.type != "cuda":
        return
    model = agents.world_model("XS").to(where)
    updater, batch = Updater(model, TrainConfig()), agents.batch(model, 16).to(where)
    planner = Planner(InferenceModel.from_model(model, torch.bfloat16), plan_config(effort))
    obs, task, seeds = agents.observations(2), torch.arange(2), torch.arange(2)
    works: dict[str, Callable[[], object]] = {
        "update": partial(updater.rl_update, batch),
        "plan": partial(planner.plan, obs, task, seeds=seeds),
    }
    for name, work in works.items():
        work()
        try:
            with _no_waiting():
                work()
            waited = 0
        except RuntimeError:
            waited = 1
        notebook.check(f"waits_in_{name}", waited, 0)


@contextmanager
def _no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _doubled(rowwise: T) -> T:
    return _mapped(rowwise, lambda x: x.double() if x.is_floating_point() else x)


def _moved(rowwise: T, where: torch.device) -> T:
    return _mapped(rowwise, lambda x: x.to(where))


def _mapped(rowwise: T, change: Callable[[Tensor], Tensor]) -> T:
    values = {field.name: getattr(rowwise, field.name) for field in fields(rowwise)}
    return replace(rowwise, **{name: change(value) for name, value in values.items() if value is not None})
