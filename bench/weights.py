"""New weights under load: how long until they plan, and whether anybody notices the swap."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from bench import agents, processes
from bench.figures import Figure, Spread, Value
from bench.measure import Effort
from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import PlanConfig
from newt.client.planner import PlannerClient
from newt.client.weights import publish
from newt.errors import NewtError

GOAL_S = 2.0
_MODEL_ID = "bench"
_TIMEOUT_S = 120.0
_CLIENTS = 2


@dataclass(frozen=True)
class _Plan:
    sent_at: float
    answered_at: float
    weights_version: int
    compute_s: float

    @property
    def waited_s(self) -> float:
        """Of the whole call, everything but the caller's own batch."""
        return self.answered_at - self.sent_at - self.compute_s


@dataclass
class _Load:
    """Clients that ask for the next plan as soon as they have the last, like a run's collector groups."""

    plans: list[_Plan] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, version: int, sent_after: float) -> float:
        """Waits until a version has planned; returns when the first answer of it came."""
        with self.arrived:
            there = self.arrived.wait_for(lambda: bool(self._of(version, sent_after)), _TIMEOUT_S)
            if not there:
                raise RuntimeError(f"weights version {version} did not plan within {_TIMEOUT_S:g} s: {self.failures}")
            return min(plan.answered_at for plan in self._of(version, sent_after))

    def _of(self, version: int, after: float) -> list[_Plan]:
        return [p for p in self.plans if p.weights_version >= version and p.answered_at > after]


def run(effort: Effort) -> Iterator[Figure]:
    """Publishes again and again while clients plan without a pause, for each size."""
    for size in effort.pick(full=("S", "B"), quick=("S",), tiny=("XS",)):
        yield from swaps(effort, size)


def swaps(effort: Effort, size: str, device: str = "cpu", *, graphs: bool = False) -> Iterator[Figure]:
    """Publishes again and again while clients plan without a pause.

    Args:
        effort: How often.
        size: Size of the model.
        device: Device of the planner.
        graphs: Whether it repeats what it has recorded.
    """
    rounds = effort.pick(full=20, quick=6, tiny=2)
    model = agents.world_model(size)
    plan_json = json.dumps(PlanConfig(iterations=effort.pick(full=6, quick=6, tiny=1)).to_dict())
    used: list[tuple[float, float]] = []  # Published at, first used at.
    with (
        processes.weights_hub() as hub,
        processes.planner(hub, 1, device, graphs=graphs) as address,
        PlannerClient(address) as client,
    ):
        publish(hub, _MODEL_ID, 1, weights_to_bytes(model), plan_json, timeout_s=_TIMEOUT_S)
        with _load(client) as load:
            start = time.monotonic()
            load.wait_for(1, start)
            batch_s = float(np.median([plan.compute_s for plan in load.plans]))
            for version in range(2, rounds + 2):
                time.sleep(max(6 * batch_s, effort.pick(full=1.0, quick=0.5, tiny=0.0)))  # A time without a swap.
                published_at = time.monotonic()
                publish(hub, _MODEL_ID, version, weights_to_bytes(model), plan_json, timeout_s=_TIMEOUT_S)
                used.append((published_at, load.wait_for(version, published_at)))
    yield from _figures(f"weights.{size}", size, load, used)


def _figures(key: str, size: str, load: _Load, swaps: list[tuple[float, float]]) -> Iterator[Figure]:
    during = [p for p in load.plans if any(p.sent_at < used and p.answered_at > at for at, used in swaps)]
    quiet = [p for p in load.plans if p not in during]
    batch_s = float(np.median([plan.compute_s for plan in quiet]))

    def extra_batches(plans: list[_Plan]) -> list[float]:
        # A plan that comes while another client's batch is under way waits for its end: up to one batch is usual.
        return [plan.waited_s / batch_s - 1 for plan in plans]

    what = f"size {size}, {_CLIENTS} clients of 4 rows without a pause"
    yield Value(
        f"{key}.first_use",
        f"{what}: from publishing to the first answer",
        "s",
        Spread.of([used - at for at, used in swaps]),
        at_most=GOAL_S,
    )
    yield Value(
        f"{key}.failed_plans",
        f"{what}: plans that failed, of {len(load.plans)} in {len(swaps)} swaps",
        "plans",
        Spread.of([float(len(load.failures))]),
        at_most=0,
    )
    late, noise = (sum(extra > 1 for extra in extra_batches(plans)) for plans in (during, quiet))
    yield Value(
        f"{key}.late_plans",
        f"{what}: plans around swaps that waited for more than the batch under way and one more, of {len(during)}; "
        f"between swaps {noise} of {len(quiet)}",
        "plans",
        Spread.of([float(late)]),
        at_most=0,
    )
    yield Value(
        f"{key}.longest_extra_wait",
        f"{what}: longest wait around a swap beyond one batch; between swaps {max(extra_batches(quiet)):.2f}",
        "batches",
        Spread.of([max(extra_batches(during))]),
        at_most=1,
    )
    slower = float(np.median([plan.compute_s for plan in during])) / batch_s
    yield Value(
        f"{key}.slowdown",
        f"{what}: a batch while weights are loaded, compared to others ({1000 * batch_s:.0f} ms)",
        "times",
        Spread.of([slower]),
    )


@contextmanager
def _load(client: PlannerClient, rows: int = 4) -> Iterator[_Load]:
    load, over = _Load(), threading.Event()

    def ask(seed: int) -> None:
        obs = agents.observations(rows, seed).numpy()
        task = np.arange(rows, dtype=np.int32)
        mean = None
        while not over.is_set():
            seed += _CLIENTS
            sent_at = time.monotonic()
            try:
                plan = client.plan(
                    _MODEL_ID,
                    obs,
                    task,
                    np.arange(rows, dtype=np.uint64) + rows * seed,
                    explore=True,
                    prev_mean=mean,
                    timeout_s=_TIMEOUT_S,
                )
            except NewtError as error:
                with load.arrived:
                    load.failures.append(str(error))
                continue
            mean = plan.next_mean
            with load.arrived:
                load.plans.append(_Plan(sent_at, time.monotonic(), plan.weights_version, plan.compute_seconds))
                load.arrived.notify_all()

    threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        over.set()
        for thread in threads:
            thread.join(_TIMEOUT_S)
