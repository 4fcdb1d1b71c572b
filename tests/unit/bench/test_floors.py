"""Ratios that must not be lost, and those of the releases."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import floors, history, report
from bench.measure import duration_ratio


def test_a_ratio_below_its_floor_is_tried_again_and_its_best_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floors, "FLOORS", {"a.x": 2.0, "a.y": 2.0})
    figures = [duration_ratio("a.x", "", [1.0], [3.0]), duration_ratio("a.y", "", [1.0], [1.5])]
    below = floors.still_below({"a.x": 0.0, "a.y": 0.0}, figures)
    assert below == {"a.y": 1.5}
    slower = [duration_ratio("a.y", "", [1.0], [1.2])]
    assert floors.still_below(below, slower) == {"a.y": 1.5}
    assert floors.still_below(below, [duration_ratio("a.y", "", [1.0], [2.0])]) == {}
    with pytest.raises(KeyError):
        floors.still_below(below, [])


def test_every_floor_is_below_what_was_measured() -> None:
    measured = report.read(report.RESULTS)
    assert all(floor < measured[f"{key}.ratio"] for key, floor in floors.FLOORS.items())


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_ratio_has_fallen_below_its_floor() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("as fast as it was") == 4


def test_a_release_is_kept_once_and_drawn(tmp_path: Path) -> None:
    results = tmp_path / "latest.json"
    results.write_text(json.dumps({"loop.tour.ratio": 1.5, "loop.tour.ratio.low": 1.0}))
    for release in ("0.10.0", "0.9.0"):
        history.keep(release, results, tmp_path / "history")
    with pytest.raises(ValueError, match="is there already"):
        history.keep("0.9.0", results, tmp_path / "history")
    with pytest.raises(ValueError, match="expected the number of a release"):
        history.keep("newest", results, tmp_path / "history")
    found = history.ratios(tmp_path / "history")
    assert list(found["loop.tour"]) == ["0.9.0", "0.10.0"]
    history.draw(found, tmp_path / "drawn.svg")
    assert "0.10.0" in (tmp_path / "drawn.svg").read_text()
