from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from services.planner.device import choose_device
from services.planner.settings import PlannerSettings

ROOT = Path(__file__).parents[3]


def test_a_cpu_is_not_padded_unless_told_so() -> None:
    device = choose_device(PlannerSettings(device="cpu"))
    assert [device.padded(rows) for rows in (1, 3, 31)] == [1, 3, 31]


def test_padding_knows_few_sizes_and_the_limit() -> None:
    device = choose_device(PlannerSettings(device="cpu", pad="always", max_rows=60))
    assert {device.padded(rows) for rows in range(1, 61)} == {1, 2, 4, 8, 16, 32, 48, 60}
    assert all(device.padded(rows) >= rows for rows in range(1, 61))
    assert choose_device(PlannerSettings(device="cpu", pad="always", max_rows=256)).padded(200) == 208


def test_costly_plans_come_in_small_passes() -> None:
    device = choose_device(PlannerSettings(device="cpu"))
    assert [device.rows_per_pass(cost) for cost in (0.0, 1.0, 2.0, 100.0)] == [32, 32, 16, 1]


def test_people_are_told_what_it_is() -> None:
    told = choose_device(PlannerSettings(device="cpu", precision="bfloat16")).computing()
    assert (told.device, told.precision, told.compiled) == ("cpu", "bfloat16", False)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_precision_can_be_fixed(precision: str, dtype: torch.dtype) -> None:
    assert choose_device(PlannerSettings(device="cpu", precision=precision)).dtype == dtype


def test_a_queue_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_queued_rows 10 must not be below max_rows 20"):
        PlannerSettings(max_rows=20, max_queued_rows=10)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_PLANNER_MAX_WAIT_MS", "7.5")
    assert PlannerSettings().max_wait_ms == 7.5
    monkeypatch.setenv("NEWT_PLANNER_MAX_WAIT", "7.5")
    with pytest.raises(ValueError, match="unknown setting NEWT_PLANNER_MAX_WAIT;"):
        PlannerSettings()


THREADS = """
import os, time, torch
from services.planner.service import apart

def work():
    return float((torch.ones(512, 512) @ torch.ones(512, 512)).sum())

def more():
    return len(os.listdir("/proc/self/task")) - before

torch.set_num_threads(2)
before = len(os.listdir("/proc/self/task"))
assert apart(work) == 512.0**3
deadline = time.monotonic() + 10
while more() and time.monotonic() < deadline:
    time.sleep(0.01)
left = more()
work()
print(left, more())
"""


def test_loading_leaves_no_threads_behind_that_plans_would_wait_for() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    left, kept = map(int, done.stdout.split())
    assert left == 0
    assert kept > 0  # what computing in this thread leaves
