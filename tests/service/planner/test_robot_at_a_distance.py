"""A simulator in real time, 20 steps a second, by an agent whose planner is 5, 20 and 80 ms away.

docs/performance.md has what a quiet machine measures (`bench/robot.py`); here stands what holds on any.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from agent_files import INFO, PLAN, small_model
from planner_rig import Hub, until, version_served

from bench import far
from newt.agent.checkpoints import weights_to_bytes
from newt.client import RemoteAgent, RemoteEnv
from newt.client.planner import PlannerClient
from newt.client.weights import publish
from services.planner.service import PlannerService
from services.sim.service import SimService
from services.sim.settings import SimSettings

STEP_S, DEADLINE_S = 0.05, 0.045
STEPS = 40
HORIZON = 6  # bridges 0.25 s


@pytest.fixture(scope="module")
def sim() -> Iterator[str]:
    service = SimService(SimSettings(port=0, domains=("noop",), workers=1, log_level="ERROR"))
    service.server.start()
    service.warm_up()
    yield service.server.address
    service.server.stop(0.5)
    service.close()


@pytest.mark.parametrize("delay_ms", [5, 20, 80])
def test_a_simulator_is_driven_in_real_time(
    hub: Hub, planner: PlannerService, client: PlannerClient, sim: str, delay_ms: int
) -> None:
    entries = {name: value for name, value in INFO.items() if name != "spec"}
    publish(hub.address, "run", 1, weights_to_bytes(small_model(1), entries), json.dumps(PLAN.to_dict()), timeout_s=10)
    until(lambda: version_served(client, "run") == 1)
    acting_ms, rewards = [], []
    with (
        far.relay(planner.server.address, delay_ms / 2000) as there,
        RemoteEnv("noop", address=sim) as env,
        RemoteAgent("run", there, seed=0, deadline_s=DEADLINE_S, horizon=HORIZON) as agent,
    ):
        obs, _ = env.reset(seed=1)
        due = time.monotonic()
        for _ in range(STEPS):
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic()) + STEP_S
            begun = time.monotonic()
            action = agent.act(obs, "walk")
            acting_ms.append(1000 * (time.monotonic() - begun))
            obs, reward, *_ = env.step(action)
            rewards.append(reward)
        counts = agent.counts
    p50, p99 = np.quantile(acting_ms, (0.5, 0.99))
    print(f"{delay_ms} ms away: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {counts}")
    assert len(rewards) == counts.steps == STEPS
    assert counts.held <= counts.late < STEPS
    assert counts.failed == 0
    assert acting_ms[0] > delay_ms  # the first plan is waited for
    if delay_ms > 1000 * DEADLINE_S:
        assert counts.late > STEPS // 2  # all but the first, unless this process is held up until the plan is there
        assert p50 > 1000 * DEADLINE_S - 1  # the deadline is used up, in the hope of the plan
