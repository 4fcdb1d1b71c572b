"""The tour's run, shortened: env steps per second of its online phase, simulation, planning and training together."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bench import agents
from bench.baselines.lockstep import LockstepLoop
from bench.figures import Figure, Ratio, Spread
from bench.measure import Effort
from newt.cli.rest import Api
from newt.local import control
from newt.local.stack import StackConfig
from newt.runs.record import Run
from newt.runs.spec import RunSpec

_POLL_S = 0.2
_TIMEOUT_S = 1200.0
_PARTS = 3
_SKIPPED = 0.3  # Share of the online phase before measuring begins.


def run(effort: Effort) -> Iterator[Figure]:
    """Lock-step before and after the run, so that a slower or faster machine meets both.

    One run has no repetitions: its spread is that of its thirds. The lock-step loop gets the number of threads that
    suits it best.
    """
    request = _request(effort)
    spec = RunSpec.model_validate(request)
    seconds = effort.pick(full=20.0, quick=10.0, tiny=1.0)
    with closing(LockstepLoop(spec)) as lockstep:
        lockstep.seed(spec.seed_env_steps())
        threads = _best_threads(lockstep, agents.thread_counts(effort), seconds / 2)
        with agents.torch_threads(threads):
            plain = [lockstep.run(seconds / _PARTS) for _ in range(_PARTS)]
        ours = _measure(request, spec, _PARTS)
        with agents.torch_threads(threads):
            plain += [lockstep.run(seconds / _PARTS) for _ in range(_PARTS)]
    base = Spread.of(plain)
    yield Ratio(
        "loop.tour",
        f"{len(spec.task_list())} task(s) of the tour, {spec.schedule.total_env_steps:,} steps; plain: lock-step loop "
        f"in one process, {threads} thread(s)",
        "env steps/s",
        ours=Spread.of(ours),
        plain=base,
        ratio=Spread.of([rate / base.median for rate in ours]),
    )


def _best_threads(lockstep: LockstepLoop, counts: list[int], seconds: float) -> int:
    rates = {}
    for threads in counts:
        with agents.torch_threads(threads):
            rates[threads] = lockstep.run(seconds)
    return max(rates, key=lambda threads: rates[threads])


def _request(effort: Effort) -> dict[str, Any]:
    """The tour's request with fewer steps; demonstrations and pretraining are not what is measured."""
    total = effort.pick(full=12_000, quick=6_000, tiny=400)
    return {
        "name": "bench",
        "preset": "laptop",
        "tasks": effort.pick(full=["tour"], quick=["tour"], tiny=["mw-button-press"]),
        "schedule": {
            "total_env_steps": total,
            "seed_env_steps": effort.pick(full=3_000, quick=3_000, tiny=100),
            "pretrain_updates": 20,
        },
        "demos": {"scripted_episodes": 1},
        "evaluation": {"episodes_per_task": 1, "videos": False},
    }


def _measure(request: dict[str, Any], spec: RunSpec, parts: int) -> list[float]:
    """Env steps per second of the online phase, in equal parts of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        domains = tuple(sorted({task.domain for task in spec.task_list()}))
        state = control.up(StackConfig(home=home, domains=domains, fixed_ports=False))
        try:
            api = Api(state.rest_url)
            run_id = Run.model_validate(api.post("/runs", request)).id
            track = _follow(api, run_id, spec)
        finally:
            control.down(home)
    seeded, total = spec.seed_env_steps(), spec.schedule.total_env_steps
    # Episodes count when they end. Those that were begun while seeding had their first steps without planning.
    start = seeded + _SKIPPED * (total - seeded)
    cuts = np.linspace(start, track[-1][1], parts + 1)
    times = np.interp(cuts, [work for _, work in track], [at for at, _ in track])
    rates: list[float] = (np.diff(cuts) / np.diff(times)).tolist()
    return rates


def _follow(api: Api, run_id: str, spec: RunSpec) -> list[tuple[float, float]]:
    """(seconds, env steps that are both stored and trained on) since the end of seeding, until nothing is left."""
    seeded, ratio = spec.seed_env_steps(), spec.schedule.updates_per_env_step
    track: list[tuple[float, float]] = []
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        run = Run.model_validate(api.get(f"/runs/{run_id}"))
        progress = run.progress
        if progress.env_steps >= seeded:
            # Neither side counts without the other: the run is as far as the slower one.
            done = min(progress.env_steps, seeded + progress.updates / ratio)
            if not track or done > track[-1][1]:
                track.append((time.monotonic(), done))
            if progress.updates >= spec.online_updates() and progress.env_steps >= spec.schedule.total_env_steps:
                return track
        if run.state.finished:
            raise RuntimeError(f"the run {run.state.value} before its last step: {run.error}")
        time.sleep(_POLL_S)
    raise RuntimeError(f"run {run_id} took longer than {_TIMEOUT_S:g} s")
