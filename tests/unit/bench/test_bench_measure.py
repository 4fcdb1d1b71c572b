"""The arithmetic of figures, and the results file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import machine, registry, report
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
    assert values["a.commit"]
    assert values["b.machine.cores"] >= 1


def test_each_subject_keeps_the_machine_that_it_was_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, effort, here = tmp_path / "latest.json", Effort("full"), machine.describe()
    figure = {name: Value(f"{name}.x", "", "s", Spread.of([1.0])) for name in "abcd"}
    for subject, processor, commit in (("a", "First", "1"), ("b", "Second", "2"), ("c", "First", "3")):
        about = here | {"machine.processor": processor, "machine.cores": 8, "machine.memory_gb": 16.0, "commit": commit}
        monkeypatch.setattr(machine, "describe", about.copy)
        report.store(results, subject, [figure[subject]], effort, 0.5)
    values = report.read(results)
    assert [values[f"{subject}.machine.processor"] for subject in "abc"] == ["First", "Second", "First"]
    assert [values[f"{subject}.commit"] for subject in "abc"] == ["1", "2", "3"]
    text = _page(tmp_path, results)
    assert "- **A**: First, 8 cores, 16.0 GB; python" in text
    assert "- **B**: Second, 8 cores, 16.0 GB; python" in text
    assert "**C**" not in text
    assert [_cells(text, f"`{subject}.x`")[-1] for subject in "abc"] == ["A", "B", "A"]
    assert [_cells(text, subject)[1:3] for subject in "abc"] == [["A", "1"], ["B", "2"], ["A", "3"]]


def test_a_file_that_told_the_machine_once_is_read_and_claims_no_machine_for_its_other_subjects(
    tmp_path: Path,
) -> None:
    results = tmp_path / "latest.json"
    old = {"machine.processor": "Old", "machine.cores": 2, "machine.memory_gb": 8.0, "versions.python": "3.11.0"}
    of_a = {"a.commit": "1", "a.date": "2026-01-01", "a.effort": "full", "a.load_before": 0.0, "a.x": 2.0}
    results.write_text(json.dumps({**old, **of_a, "a.x.unit": "s", "commit": "2", "date": "2026-02-01"}))
    assert _cells(_page(tmp_path, results), "`a.x`")[-1] == "unknown"
    report.store(results, "b", [Value("b.x", "", "s", Spread.of([1.0]))], Effort("full"), 0.0)
    values = report.read(results)
    assert not {*old, "commit", "date"} & set(values)
    text = _page(tmp_path, results)
    assert (_cells(text, "a")[1:3], _cells(text, "`a.x`")[-1]) == (["unknown", "1"], "unknown")
    assert (_cells(text, "b")[1], _cells(text, "`b.x`")[-1]) == ("A", "A")
    assert "Old" not in text


def test_every_stored_figure_tells_its_machine() -> None:
    values = report.read(report.RESULTS)
    subjects = {key.partition(".")[0] for key in values}
    assert subjects <= set(registry.SUBJECTS)
    for name in ("commit", "date", "load_before", "machine.processor", "machine.cores", "versions.torch"):
        assert {subject for subject in subjects if f"{subject}.{name}" not in values} == set()


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
        assert "| `a.x` | 10 steps/s | 2.5 steps/s | 4.00 (4 to 4) | >= 5 | **missed** | A |" in text
        assert "| `a.y` | 1 s |  |  | <= 1.5 | met | A |" in text
        assert "old" not in text
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert text.count("| `a.x` |") == 1
    page.write_text("no marks")
    with pytest.raises(ValueError, match="must contain the lines"):
        report.update_page(page, report.read(results))


def _page(folder: Path, results: Path) -> str:
    page = folder / "page.md"
    page.write_text("<!-- figures: begin (written by python -m bench) -->\n<!-- figures: end -->\n")
    report.update_page(page, report.read(results))
    return page.read_text()


def _cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return next(row for row in rows if row[0] == first)
