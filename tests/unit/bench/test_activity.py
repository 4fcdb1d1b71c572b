"""What is read off the kernel about processes: who works, and who waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.activity import Activity, draw, main, watch


def test_who_works_and_who_waits_is_told_apart(tmp_path: Path) -> None:
    programs = {"works": "while True: pass", "waits": "import time; time.sleep(60)"}
    processes = {name: subprocess.Popen([sys.executable, "-c", code]) for name, code in programs.items()}
    try:
        times, activities = watch({name: process.pid for name, process in processes.items()}, 1.5, 0.05)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    works, waits = activities
    # Beside other work it may have no core, but it never waits for another process; the start is another matter.
    assert works.shares[0] + works.shares[1] > 0.6
    assert waits.shares[2] > works.shares[2]
    draw(times, activities, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 1000


def test_shares_of_a_process_with_several_threads() -> None:
    one = Activity("trainer", np.array([2.0, 0.5, 0.0]), np.array([1.0, 1.0, 0.0]))
    assert one.shares == pytest.approx((0.5, 1 / 6, 1 / 3))


def test_a_process_that_has_ended_does_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    _, (gone,) = watch({"gone": process.pid}, 0.1, 0.02)
    assert gone.shares == (0.0, 0.0, 1.0)


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["activity", "--home", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"newt up --home {tmp_path}"):
        main()
