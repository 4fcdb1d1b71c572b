"""The stage that compiles beside the others, into the cache that they share: seconds of a cold start."""

from __future__ import annotations

import time

import torch

from bench import agents
from bench.gpu.document import Notebook
from bench.measure import Effort
from newt.agent import devices
from newt.agent.compilation import BACKEND, CompiledInferenceModel, prepare
from newt.agent.config import PlanConfig, TrainConfig
from newt.agent.inference import fastest_dtype
from newt.agent.planning import Planner
from newt.agent.update import Updater


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Compiles the update and the plan; in the smallest size nothing, which takes minutes even there."""
    if effort.level == "tiny":
        return
    where = torch.device(device)
    prepare(None)
    devices.set_precision("tf32", where)
    model = agents.world_model("L").to(where)
    begun = time.perf_counter()
    planner = Planner(CompiledInferenceModel.from_model(model, fastest_dtype(where)), PlanConfig())
    for rows in (1, 2):
        seeds = torch.arange(rows)
        planner.plan(agents.observations(rows), agents.spread_tasks(model, rows), seeds=seeds).action.cpu()
    notebook.table("compile", {"plan_cold_s": time.perf_counter() - begun})
    begun = time.perf_counter()
    updater = Updater(model, TrainConfig())
    updater.compile_with(BACKEND)
    float(updater.rl_update(agents.batch(model, 1024).to(where))["total_loss"])
    notebook.table("compile", {"update_cold_s": time.perf_counter() - begun})
