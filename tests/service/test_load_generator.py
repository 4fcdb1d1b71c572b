"""The load generator against real services, for a moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.load.__main__ import split
from newt.tasks.registry import select_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_instances_are_spread_over_tasks_and_grouped_by_domain() -> None:
    tasks = select_tasks(["mmbench"])
    groups = split(tasks, 2 * len(tasks))
    assert sum(map(len, groups)) == 2 * len(tasks)
    assert all(len({task.domain for task in group}) == 1 for group in groups)
    counts = [sum(group.count(task) for group in groups) for task in tasks]
    assert set(counts) == {2}


def test_a_short_run_reports_what_a_step_costs(tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    command = ["--envs", "200", "--seconds", "4", "--warm-up", "4", "--batch-size", "64", "--output", str(output)]
    done = subprocess.run([sys.executable, "-m", "bench.load", *command], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(output.read_text())
    assert measured["env_steps"] >= 200
    cost = measured["per_env_step"]
    # A row's observation alone is 512 bytes, its plan's mean 192 each way.
    assert cost["bytes"]["planner"] > 512 + 2 * 192
    assert cost["cpu_microseconds"]["planner"] > 0
    # The limiter holds: never more batches than the stored steps allow.
    assert measured["queues"]["batches_behind"]["mean"] > -1
