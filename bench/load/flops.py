"""Counts the arithmetic of planning and updating: `python -m bench.load.flops`.

Matrix products only, two operations for each multiplication with its addition.
"""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from bench import agents
from newt.agent.config import PlanConfig, TrainConfig
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner
from newt.agent.update import Updater


def plan_flops(size: str) -> float:
    """Of one action of one env, with the published budget (512 samples, 6 iterations, horizon 3)."""
    model, config = agents.world_model(size), PlanConfig()
    planner = Planner(InferenceModel.from_model(model, torch.float32), config)
    rows, obs, task = 1, agents.observations(1), agents.spread_tasks(model, 1)
    mean = torch.zeros(rows, config.horizon, 16)
    with FlopCounterMode(display=False) as counter:
        planner.plan(obs, task, seeds=torch.arange(rows), prev_mean=mean)
    return float(counter.get_total_flops())


def update_flops(size: str, batch_size: int = 1024) -> float:
    """Of one online update, forward and backward; nothing is computed for it.

    It is not in proportion to the sequences: the first layers' products with the embeddings are made for each row, or
    for each task where those are fewer.
    """
    model = agents.world_model(size)
    updater = Updater(model, TrainConfig())
    batch = agents.batch(model, batch_size)
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        updater.rl_update(batch)
    return float(counter.get_total_flops())


def main() -> None:
    """Prints a table."""
    print(f"{'size':5} {'GFLOP per plan':>15} {'GFLOP per update of 1024':>25}")
    for size in ("S", "B", "L", "XL"):
        print(f"{size:5} {plan_flops(size) / 1e9:15.2f} {update_flops(size) / 1e9:25.1f}")


if __name__ == "__main__":
    main()
