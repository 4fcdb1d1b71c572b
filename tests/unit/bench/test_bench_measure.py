"""The arithmetic of figures, and the results file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry, report
from bench.figures import Spread, Value
from bench.measure import Candidate, Effort, duration_ratio, interleaved, rate_ratio


def test_candidates_take_turns() -> None:
    order: list[str] = []
    candidates = {name: Candidate(lambda name=name: order.append(name)) for name in "ab"}  # type: ignore[misc]
    seconds = interleaved(candidates, repetitions=3, warm_up=1)
    assert order == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_the_median_of_the_repetitions_ratios() -> None:
    figure = duration_ratio("x", "", ours=[1.0, 2.0, 1.0], plain=[2.0, 6.0, 5.0], at_least=3.0)
    assert figure.ratio.median == 3.0
    assert figure.ours.median == 1000.0
    assert figure.met is True
    assert rate_ratio("x", "", "1/s", 10, [1.0], [4.0], at_least=5.0).met is False


def test_a_subject_replaces_its_own_keys_only(tmp_path: Path) -> None:
    path, effort = tmp_path / "r" / "latest.json", Effort("tiny")
    report.store(path, "a", [Value("a.old", "", "s", Spread.of([1.0]))], effort, 0.0)
    report.store(path, "b", [Value("b.x", "", "s", Spread.of([1.0, 3.0]), at_most=1.5)], effort, 0.0)
    report.store(path, "a", [Value("a.new", "", "s", Spread.of([5.0]))], effort, 0.25)
    values = report.read(path)
    assert "a.old" not in values
    assert (values["a.new"], values["b.x"], values["b.x.met"], values["a.load_before"]) == (5.0, 2.0, False, 0.25)
    assert values["commit"]
    assert values["machine.cores"] >= 1


def test_unknown_subjects_are_refused() -> None:
    assert registry.chosen(["sims", "planner"]) == ["planner", "sims"]
    with pytest.raises(ValueError, match="unknown subject plannr; known are planner"):
        registry.chosen(["plannr"])


def test_the_page_gets_the_table_of_the_results(tmp_path: Path) -> None:
    results, page = tmp_path / "latest.json", tmp_path / "page.md"
    figures = [
        rate_ratio("a.x", "", "steps/s", 10, [1.0], [4.0], at_least=5.0),
        Value("a.y", "", "s", Spread.of([1.0]), at_most=1.5),
    ]
    report.store(results, "a", figures, Effort("full"), 0.0)
    page.write_text("before\n<!-- figures: begin (written by python -m bench) -->\nold\n<!-- figures: end -->\nafter\n")
    for _ in range(2):  # Writing it again changes nothing.
        report.update_page(page, report.read(results))
        text = page.read_text()
        assert "| `a.x` | 10 steps/s | 2.5 steps/s | 4.00 (4 to 4) | >= 5 | **missed** |" in text
        assert "| `a.y` | 1 s |  |  | <= 1.5 | met |" in text
        assert "old" not in text
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert text.count("| `a.x` |") == 1
    page.write_text("no marks")
    with pytest.raises(ValueError, match="must contain the lines"):
        report.update_page(page, report.read(results))
