"""Part of the stage of checks: updates and plans that a device repeats by itself, beside those that Python starts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from bench import agents
from bench.gpu.document import Notebook
from bench.gpu.timing import multiplying
from newt.agent.config import PlanConfig, TrainConfig
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner
from newt.agent.recorded import WARM_UPS, Recorder, Tensors, recorder_for
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel


class Counted:
    """A recorder that counts: work that cannot be recorded goes on without a graph, and would seem right.

    Attributes:
        recorded: Pieces of work.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.recorded = 0

    def run(self, work: Callable[[], Tensors]) -> Tensors:
        """As `Recorder.run`."""
        return self._recorder.run(work)

    def record(self, work: Callable[[], Tensors]) -> Callable[[], Tensors]:
        """As `Recorder.record`."""
        replay = self._recorder.record(work)
        self.recorded += 1
        return replay


def check(
    size: str, model: WorldModel, plan: PlanConfig, rows: tuple[int, int], where: torch.device, notebook: Notebook
) -> None:
    """Compares losses and plans, and says what was not recorded.

    Args:
        size: Name of the model's size.
        model: The model, on the CPU.
        plan: Budget of plans.
        rows: Sequences of an update, and rows of a plan.
        where: Device.
        notebook: Gets the comparisons.
    """
    calls = WARM_UPS + 3
    batches = [agents.batch(model, rows[0], seed=seed).to(where) for seed in range(calls)]
    recorders = [Counted(recorder_for(where)) for _ in range(2)]
    with multiplying("float32", where):
        losses = []
        for recorder in (None, recorders[0]):
            updater = Updater(copy.deepcopy(model).to(where), TrainConfig(), seed=3)
            updater.record_with(recorder)
            metrics = [updater.rl_update(batch) for batch in batches]
            losses.append(torch.stack([found["total_loss"] for found in metrics]).double().cpu())
        notebook.check(f"{size}.graph.loss", float((losses[1] / losses[0] - 1).abs().max()), 1e-4)
        notebook.check(f"{size}.graph.updates_not_recorded", 1 - recorders[0].recorded, 0)
        prepared = InferenceModel.from_model(model, torch.float32, where)
        plain, replayed = Planner(prepared, plan), Planner(prepared, plan, recorders[1])
        inputs, seeds = (agents.observations(rows[1]), agents.spread_tasks(model, rows[1])), torch.arange(rows[1])
        for _ in range(calls):
            again = replayed.plan(*inputs, seeds=seeds)
        apart = (again.action - plain.plan(*inputs, seeds=seeds).action).abs().amax(1)
    notebook.check(f"{size}.graph.share_of_plans_that_differ", float((apart > 1e-3).float().mean()), 0.05)
    notebook.check(f"{size}.graph.plans_not_recorded", float(recorders[1].recorded == 0), 0)
