"""A robot with a clock: 20 steps a second through a planner that is 5, 20 and 80 ms away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np

from bench import agents, far, processes
from bench.figures import Figure, Spread, Value
from bench.measure import Effort
from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import PlanConfig
from newt.client.agent import RemoteAgent
from newt.client.planner import PlannerClient
from newt.client.weights import publish

DELAYS_MS = (0, 5, 20, 80)
STEP_S, DEADLINE_S = 0.05, 0.045
_MODEL_ID, _TASK = "bench", "walker-walk"
_TIMEOUT_S = 60.0


def run(effort: Effort) -> Iterator[Figure]:
    """One robot alone, with the published budget; delays are those of a round trip."""
    size = effort.pick(full="S", quick="S", tiny="XS")
    small = PlanConfig(num_samples=48, num_policy_trajectories=4, num_elites=8, iterations=2)
    config = effort.pick(full=PlanConfig(), quick=PlanConfig(), tiny=small)
    steps = effort.pick(full=400, quick=100, tiny=5)
    model = agents.world_model(size)
    threads = agents.thread_counts(effort)[-1]
    with processes.weights_hub() as hub, processes.planner(hub, threads) as address:
        publish(hub, _MODEL_ID, 1, weights_to_bytes(model), json.dumps(config.to_dict()), timeout_s=_TIMEOUT_S)
        _wait_for_weights(address)
        for delay_ms in effort.pick(full=DELAYS_MS, quick=DELAYS_MS, tiny=DELAYS_MS[-1:]):
            with far.relay(address, delay_ms / 2000) as there:
                yield from _drive(there, f"robot.{size}.delay_{delay_ms}ms", delay_ms, steps)


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
