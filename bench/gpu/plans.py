"""The stage that times plans: rows in one call, and the latency of a single row."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from bench import agents
from bench.baselines.plain_model import PlainModel
from bench.baselines.plain_mppi import PlainPlanner
from bench.gpu.correct import plan_config
from bench.gpu.document import Notebook
from bench.gpu.timing import on_device
from bench.measure import Candidate, Effort, interleaved
from newt.agent.compilation import CompiledInferenceModel, prepare
from newt.agent.inference import InferenceModel, fastest_dtype
from newt.agent.planning import Planner
from newt.agent.recorded import WARM_UPS, recorder_for


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Milliseconds per call with inputs from the host, plain and ours side by side."""
    where, config = torch.device(device), plan_config(effort)
    size = effort.pick(full="L", quick="L", tiny="XS")
    model = agents.world_model(size)
    dtype = fastest_dtype(where)
    kinds: dict[str, type[InferenceModel]] = {"eager": InferenceModel}
    if effort.level != "tiny":
        prepare(None)
        kinds["compiled"] = CompiledInferenceModel
    planners: dict[str, Planner] = {}
    for name, kind in kinds.items():
        prepared = kind.from_model(model, dtype, where)
        planners[name] = Planner(prepared, config)
        planners[f"{name}.graph"] = Planner(prepared, config, recorder_for(where))
    with torch.device(where):
        plain = PlainPlanner(PlainModel(model.to(where)), config)
    for rows in effort.pick(full=(1, 8, 32, 64, 200, 256), quick=(1, 32), tiny=(1, 2)):
        obs, task, seeds = agents.observations(rows), agents.spread_tasks(model, rows), torch.arange(rows)
        mean = torch.zeros(rows, config.horizon, 16, device=where)

        def plain_plan(obs: torch.Tensor = obs, task: torch.Tensor = task, mean: torch.Tensor = mean) -> object:
            with torch.device(where):
                return plain.plan(obs.to(where), task.to(where), mean)

        candidates: dict[str, Candidate] = {"plain_tf32": on_device(plain_plan, where, "tf32")}
        for name, planner in planners.items():
            candidates[name] = on_device(partial(planner.plan, obs, task, seeds=seeds), where, "tf32")
        seconds = interleaved(candidates, effort.pick(full=15, quick=5, tiny=1), WARM_UPS + 1)
        for name, times in seconds.items():
            ratio = {"plain_tf32": round(float(np.median(np.divide(seconds["plain_tf32"], times))), 2)}
            more = {} if name == "plain_tf32" else {"ratio_to": ratio}
            notebook.figure(f"plan.{size}.rows{rows}.{name}", "ms", [1000 * s for s in times], **more)
    _latency(planners, size, effort, where, notebook)


def _latency(planners: dict[str, Planner], size: str, effort: Effort, where: torch.device, notebook: Notebook) -> None:
    obs, task = agents.observations(1), torch.zeros(1, dtype=torch.int64)
    for name, planner in planners.items():
        work = on_device(partial(planner.plan, obs, task, seeds=torch.arange(1)), where, "tf32")
        times = interleaved({name: work}, effort.pick(full=300, quick=50, tiny=2))[name]
        p50, p99 = np.quantile(times, (0.5, 0.99)) * 1000
        notebook.figure(f"plan.{size}.one_row.{name}", "ms", [1000 * s for s in times], p50=p50, p99=p99)
