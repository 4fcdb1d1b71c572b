"""A robot with a clock: 20 steps a second through a planner that is 5, 20 and 80 ms away; what budgets take."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from bench import agents, far, processes
from bench.figures import Figure, Spread, Value
from bench.measure import Candidate, Effort, interleaved
from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import PlanConfig
from newt.agent.inference import InferenceModel, fastest_dtype
from newt.agent.planning import Planner
from newt.agent.world_model import WorldModel
from newt.client.agent import RemoteAgent
from newt.client.planner import PlannerClient
from newt.client.weights import publish

DELAYS_MS = (0, 5, 20, 80)
STEP_S, DEADLINE_S = 0.05, 0.045
_MODEL_ID, _TASK = "bench", "walker-walk"
_TIMEOUT_S = 60.0
BUDGETS = ((512, 6), (256, 4), (128, 3), (64, 3))  # samples and iterations
ROBOTS_BUDGET = (128, 3)  # what two cores plan within a step
_one_thread = partial(agents.torch_threads, 1)


def run(effort: Effort) -> Iterator[Figure]:
    """One robot alone: delays, of a round trip, with a budget that fits a step; then budgets, in this process."""
    size = effort.pick(full="S", quick="S", tiny="XS")
    small = PlanConfig(num_samples=48, num_policy_trajectories=4, num_elites=8, iterations=2)
    config = effort.pick(full=_budget(*ROBOTS_BUDGET), quick=_budget(*ROBOTS_BUDGET), tiny=small)
    steps = effort.pick(full=400, quick=100, tiny=5)
    model = agents.world_model(size)
    # As `newt up` starts it: a plan of one row is too small for threads that wait for each other.
    with processes.weights_hub() as hub, processes.planner(hub, threads=1) as address:
        publish(hub, _MODEL_ID, 1, weights_to_bytes(model), json.dumps(config.to_dict()), timeout_s=_TIMEOUT_S)
        _wait_for_weights(address)
        for delay_ms in effort.pick(full=DELAYS_MS, quick=DELAYS_MS, tiny=DELAYS_MS[-1:]):
            with far.relay(address, delay_ms / 2000) as there:
                yield from _drive(there, f"robot.{size}.delay_{delay_ms}ms", delay_ms, steps)
    for size in effort.pick(full=("S", "B", "L"), quick=("S",), tiny=("XS",)):
        yield from _budgets(effort, agents.world_model(size), size)


def _budgets(effort: Effort, model: WorldModel, size: str) -> Iterator[Figure]:
    """One row on one thread: which rate does a robot have without a planner service?"""
    inference, random = InferenceModel.from_model(model, fastest_dtype()), np.random.default_rng(0)
    obs, task, seeds = torch.zeros(1, 128), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    obs[0, :24] = torch.from_numpy(random.standard_normal(24))
    any_planner = Planner(inference, PlanConfig())
    candidates = {"policy": Candidate(lambda: any_planner.policy(obs, task, seeds=seeds), _one_thread)}
    for samples, iterations in BUDGETS:
        plan = partial(Planner(inference, _budget(samples, iterations)).plan, obs, task, seeds=seeds)
        candidates[f"{samples}x{iterations}"] = Candidate(plan, _one_thread)
    for name, seconds in interleaved(candidates, effort.repetitions).items():
        taken = Spread.of([1000 * second for second in seconds])
        yield Value(f"robot.{size}.budget_{name}", f"an action by {name}, one thread", "ms", taken)


def _budget(samples: int, iterations: int) -> PlanConfig:
    return PlanConfig(
        num_samples=samples,
        iterations=iterations,
        num_elites=samples // 8,
        num_policy_trajectories=min(24, samples // 16),
    )


def _wait_for_weights(address: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    with PlannerClient(address) as client:
        while not client.models(timeout_s=_TIMEOUT_S):
            if time.monotonic() > deadline:
                raise RuntimeError("the planner has no weights")
            time.sleep(0.05)


def _drive(address: str, key: str, delay_ms: int, steps: int) -> Iterator[Figure]:
    random, acting_ms = np.random.default_rng(0), []
    with RemoteAgent(_MODEL_ID, address, seed=0, deadline_s=DEADLINE_S) as agent:
        agent.act(random.standard_normal(24), _TASK)  # the first step waits
        due = time.monotonic()
        for _ in range(steps):
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic()) + STEP_S
            begun = time.monotonic()
            agent.act(random.standard_normal(24), _TASK)
            acting_ms.append(1000 * (time.monotonic() - begun))
        counts = agent.counts
    what = f"20 Hz, planner {delay_ms} ms away"
    p50, p99 = np.quantile(acting_ms, (0.5, 0.99)).tolist()
    missed = sum(taken > 1000 * STEP_S for taken in acting_ms)
    for name, told, unit, value in (
        ("act_p50", "an action takes", "ms", p50),
        ("act_p99", "the slowest actions take", "ms", p99),
        ("missed", "actions that took longer than the step", "%", 100 * missed / steps),
        ("late", "actions from an earlier plan", "%", 100 * counts.late / steps),
        ("held", "actions behind the end of all plans", "%", 100 * counts.held / steps),
    ):
        yield Value(f"{key}.{name}", f"{what}: {told}", unit, Spread(value, value, value))
