"""Planning: 512 samples, 6 iterations, by size and rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import torch

from bench import agents, processes
from bench.baselines.plain_model import PlainModel
from bench.baselines.plain_mppi import PlainPlanner
from bench.figures import Figure, Spread, Value
from bench.measure import Candidate, Effort, duration_ratio, interleaved
from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import PlanConfig
from newt.agent.inference import InferenceModel, fastest_dtype
from newt.agent.planning import Planner
from newt.agent.world_model import WorldModel
from newt.client.planner import PlannerClient
from newt.client.weights import publish

GOALS = {"S": 8.0, "B": 6.0, "L": 6.0}  # where the processor multiplies bfloat16 in tiles (AMX)
_MODEL_ID = "bench"
_TIMEOUT_S = 60.0


def run(effort: Effort) -> Iterator[Figure]:
    """Ours against plain with one thread, as a laptop's stack plans, and size S with one per core; then the service."""
    cases = effort.pick(full=[("S", 8), ("B", 8), ("L", 1), ("L", 8)], quick=[("S", 8)], tiny=[("XS", 2)])
    config = effort.pick(
        full=PlanConfig(),
        quick=PlanConfig(),
        tiny=PlanConfig(num_samples=48, num_policy_trajectories=4, num_elites=8, iterations=2),
    )
    for size, rows in cases:
        model = agents.world_model(size)
        for threads in agents.thread_counts(effort) if size == "S" else [1]:
            key = f"planner.{size}.b{rows}{agents.thread_suffix(threads)}"
            yield from _with_threads(effort, model, config, rows, threads, key, GOALS.get(size))


def _with_threads(
    effort: Effort, model: WorldModel, config: PlanConfig, rows: int, threads: int, key: str, goal: float | None
) -> Iterator[Figure]:
    obs, task = agents.observations(rows), agents.spread_tasks(model, rows)
    seeds, mean = torch.arange(rows), torch.zeros(rows, config.horizon, 16)
    dtype = fastest_dtype()
    ours = Planner(InferenceModel.from_model(model, dtype), config)
    single = Planner(InferenceModel.from_model(model, torch.float32), config)
    plain = PlainPlanner(PlainModel(model), config)
    what = f"plan {rows} rows, {config.num_samples} samples, {config.iterations} iterations, {threads} thread(s)"
    with processes.weights_hub() as hub, processes.planner(hub, threads) as address, PlannerClient(address) as client:
        publish(hub, _MODEL_ID, 1, weights_to_bytes(model), json.dumps(config.to_dict()), timeout_s=_TIMEOUT_S)
        served = partial(
            client.plan,
            _MODEL_ID,
            obs.numpy(),
            task.numpy(),
            seeds.numpy(),
            explore=True,
            prev_mean=mean.numpy(),
            timeout_s=_TIMEOUT_S,
        )
        setting = partial(agents.torch_threads, threads)
        seconds = interleaved(
            {
                "ours": Candidate(lambda: ours.plan(obs, task, seeds=seeds, prev_mean=mean), setting),
                "plain": Candidate(lambda: plain.plan(obs, task, mean), setting),
                "float32": Candidate(lambda: single.plan(obs, task, seeds=seeds, prev_mean=mean), setting),
                "service": Candidate(served),
            },
            effort.repetitions,
        )
    name = str(dtype).removeprefix("torch.")
    yield duration_ratio(key, f"{what}: ours in {name}", seconds["ours"], seconds["plain"], at_least=goal)
    yield duration_ratio(f"{key}.float32", f"{what}: ours in float32", seconds["float32"], seconds["plain"])
    yield duration_ratio(f"{key}.service", f"{what}: through the service", seconds["service"], seconds["plain"])
    extra = [1000 * (s - o) for s, o in zip(seconds["service"], seconds["ours"], strict=True)]
    yield Value(
        f"{key}.service_overhead", "what the service adds to a plan (2 ms are its wait)", "ms", Spread.of(extra)
    )
