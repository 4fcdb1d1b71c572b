"""Reports drawn from records: numbers, gaps, and what cannot be read."""

from __future__ import annotations

import csv
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import Commands
from experiment_files import TASKS, TINY, record, results, write

from newt.cli.main import app
from newt.errors import InvalidInputError, NotFoundError
from newt.report.document import Report
from newt.report.lines import lines_of_experiment, lines_of_runs
from newt.report.records import RunRecord, read_folder, save
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.expansion import Experiment
from newt.runs.record import Evaluation, OpenLoopStats, RunState
from newt.runs.shelf import Shelf
from newt.runs.standing import match

# Final scores by variant and seed, of the two tasks.
FINAL = {("a", 1): (0.4, 0.8), ("a", 2): (0.6, 1.0), ("b", 1): (0.1, 0.3), ("b", 2): (0.1, 0.5)}


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def records_of(experiment: Experiment, without: tuple[tuple[str, int], ...] = ()) -> list[RunRecord]:
    """A record for each run: random policy 0, halfway there, at the end the final scores."""
    found = []
    for number, planned in enumerate(experiment.runs()):
        if (planned.key.variant, planned.key.seed) not in without:
            run = record(planned, number=number)
            final = FINAL[planned.key.variant, planned.key.seed]
            shares = (0, 0.25, 0.5, 0.75, 1)
            scores = {task: [score * x for x in shares] for task, score in zip(TASKS, final, strict=True)}
            found.append(RunRecord(run=run, results=results(run, scores)))
    return found


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    drawings = [
        {"kind": "bars", "title": "Final"},
        {"kind": "bars", "name": "iqm", "title": "Final", "statistic": "iqm"},
        {"kind": "curves", "title": "Learning"},
        {"kind": "task_curves", "title": "By task"},
        {"kind": "domains", "title": "By domain"},
        {"kind": "task_table", "title": "Table"},
    ]
    published = [{"variant": "a", "value": 0.75, "what": "mean score after all steps", "source": "the text"}]
    return write(tmp_path / "experiments", tiny={**TINY, "drawings": drawings, "published": published})


def drawn(shelf: Path, records: list[RunRecord], name: str = "mini/tiny", *arguments: str) -> tuple[Path, str]:
    """The folder of a report, and what the command printed."""
    folder = shelf.parent / "kept"
    save(records, folder)
    output = shelf.parent / "report"
    where = ("--from", folder, "--folder", shelf, "--output", output)
    return output, Commands(app).succeed("report", "--experiment", name, *where, *arguments)


def test_the_numbers_of_a_report(shelf: Path) -> None:
    output, said = drawn(shelf, records_of(Shelf(shelf).load("mini/tiny")))
    assert "missing:" not in said
    ours, theirs = table(output / "bars.csv")
    # a: (0.4 + 0.8 + 0.6 + 1.0) / 4; b: (0.1 + 0.3 + 0.1 + 0.5) / 4
    assert (ours["variant"], float(ours["value"]), ours["seeds"]) == ("a", 0.7, "2")
    assert float(theirs["value"]) == 0.25
    assert float(theirs["minus_first"]) == -0.45
    # of four scores one is dropped at either end: (0.6 + 0.8) / 2 and (0.1 + 0.3) / 2
    assert [float(row["value"]) for row in table(output / "iqm.csv")] == [0.7, 0.2]
    # each task of a is one of two seeds: the mean of both lies in 0.6 to 0.8, P(0.6) = 1/16 > 2.5%
    assert (float(ours["low"]), float(ours["high"])) == (0.6, 0.8)
    points = [row for row in table(output / "curves.csv") if row["variant"] == "a"]
    assert [(float(row["env_steps_of_a_task"]), float(row["value"])) for row in points] == [
        (0, 0), (500, 0.175), (1000, 0.35), (1500, 0.525), (2000, 0.7),
    ]  # fmt: skip
    page = (output / "report.md").read_text()
    assert "| Variant B | 2 of 2 | 0.250 (0.200 to 0.300) | -0.450" in page
    assert "| pygame-cowboy | 0.50 (0.40 to 0.60) | 0.10 (0.10 to 0.10) |" in page
    assert "another scale" in page
    assert "Published" not in page
    for stem in ("bars", "curves", "task-curves", "domains"):
        assert (output / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert (output / f"{stem}.svg").read_text().startswith("<?xml")


def test_a_report_is_one_file_in_which_words_stay_words(shelf: Path) -> None:
    words = shelf.parent / "words.md"
    words.write_text(
        "It **works**: [see](javascript:alert(1)), [there](https://example.org), ![x](http://elsewhere.example/x.png) "
        "<script>alert(2)</script>\n\n<img src=x onerror=alert(3)>\n"
    )
    records = records_of(Shelf(shelf).load("mini/tiny"))
    output, said = drawn(shelf, records, "mini/tiny", "--html", "--text", str(words))
    assert said.strip().endswith("report.html")
    page = (output / "report.html").read_text()
    assert "<strong>works</strong>" in page
    assert '<a href="https://example.org" rel=' in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"<script|<img[^>]* onerror|src=\"http|href=\"javascript", page)
    pictures = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)">', page)
    assert [alt for _, alt in pictures] == ["Final", "Final", "Learning", "By task", "By domain"]
    assert b64decode(pictures[0][0]) == (output / "bars.svg").read_bytes()
    assert 'download="bars.csv"' in page
    assert "default-src &#x27;none&#x27;" in page
    refused = Commands(app).refused(
        InvalidInputError, "report", "--from", shelf.parent / "kept", "--text", output, "--output", output
    )
    assert "--text" in refused


def test_published_numbers_stand_beside_ours_at_their_scale(shelf: Path) -> None:
    (shelf / "published").mkdir()
    (shelf / "published" / "old.csv").write_text(f"task,score\n{TASKS[0]},0.625\n")
    content = yaml.safe_load((shelf / "tiny.yaml").read_text())
    content["published_tasks"] = [{"file": "old", "title": "Old agent", "source": "a paper"}]
    write(shelf, tiny=content)
    output, _ = drawn(shelf, records_of(Shelf(shelf).load("paper/tiny")), "paper/tiny")
    assert [row["published"] for row in table(output / "bars.csv")] == ["0.75", ""]
    page = (output / "report.md").read_text()
    assert "| Score (95% interval) | Minus the first | Published |" in page
    assert "| pygame-cowboy | 0.50 (0.40 to 0.60) | 0.10 (0.10 to 0.10) | 0.62 |" in page
    assert "- Old agent: a paper" in page
    output, _ = drawn(shelf, records_of(Shelf(shelf).load("mini/tiny")))
    assert "Old agent" not in (output / "report.md").read_text()
    (shelf / "published" / "old.csv").write_text("task,score\nwalker-wlak,1\n")
    with pytest.raises(InvalidInputError, match=r"old\.csv.*walker-walk"):
        Shelf(shelf).published("old")


def test_a_missing_seed_is_a_gap_and_never_a_mean_of_the_rest(shelf: Path) -> None:
    output, said = drawn(shelf, records_of(Shelf(shelf).load("mini/tiny"), without=(("b", 2),)))
    assert "missing: mini/tiny b seed 2: missing" in said
    ours, theirs = table(output / "bars.csv")
    assert float(ours["value"]) == 0.7
    assert (theirs["value"], theirs["minus_first"], theirs["seeds"], theirs["seeds_expected"]) == ("", "", "1", "2")
    assert all(row["value"] == "" for row in table(output / "curves.csv") if row["variant"] == "b")
    page = (output / "report.md").read_text()
    assert "## Missing" in page
    assert "| Variant B | 1 of 2 | - | - |" in page
    # asked for the seed that is there, the report is whole
    output, said = drawn(shelf, records_of(Shelf(shelf).load("mini/tiny")), "mini/tiny", "--seeds", "1")
    assert "missing:" not in said
    assert [float(row["value"]) for row in table(output / "bars.csv")] == [0.6, 0.2]


def test_before_anything_has_ended_everything_is_a_gap(shelf: Path, tmp_path: Path) -> None:
    experiment = Shelf(shelf).load("mini/tiny")
    lines = lines_of_experiment(experiment, [1, 2], match(experiment.runs(), []), {})
    Report("nothing yet", lines).write(tmp_path / "report")
    assert all(row["value"] == "" for row in table(tmp_path / "report" / "bars.csv"))
    assert table(tmp_path / "report" / "curves.csv") == []
    assert (tmp_path / "report" / "report.md").read_text().count(": missing") == 4


def test_runs_that_failed_do_not_count(shelf: Path) -> None:
    experiment = Shelf(shelf).load("mini/tiny")
    records = records_of(experiment)
    run = records[0].run.model_copy(update={"state": RunState.FAILED, "error": "out of memory"})
    output, said = drawn(shelf, [RunRecord(run=run, results=records[0].results), *records[1:]])
    assert "missing: mini/tiny a seed 1: failed" in said
    assert "out of memory" in (output / "report.md").read_text()
    assert table(output / "bars.csv")[0]["value"] == ""


def test_records_of_another_version_are_told_of(shelf: Path) -> None:
    """One that cannot be read, and one with a setting that this version does not know."""
    records = records_of(Shelf(shelf).load("mini/tiny"))
    folder = shelf.parent / "kept"
    save(records, folder)
    for damaged, setting, value in ((records[-1], "seed", "x"), (records[0], "flux", 1)):
        path = folder / f"{damaged.run.id}.run.json"
        content = json.loads(path.read_text())
        content["run"]["spec"][setting] = value
        path.write_text(json.dumps(content))
    loaded = read_folder(folder)
    assert len(loaded.records) == 3
    assert len(loaded.problems) == 2
    assert {"seed", "flux"} <= set(re.findall(r"\w+", " ".join(loaded.problems)))
    output = shelf.parent / "report"
    said = Commands(app).succeed(
        "report", "--experiment", "mini/tiny", "--from", str(folder), "--folder", str(shelf), "--output", str(output)
    )
    assert "flux" in said
    assert "mini/tiny b seed 2: missing" in said
    assert table(output / "bars.csv")[1]["value"] == ""


def test_runs_alone_are_grouped_by_all_settings_but_the_seed(shelf: Path, tmp_path: Path) -> None:
    records = records_of(Shelf(shelf).load("mini/tiny"))
    lines = lines_of_runs(records)
    assert [(line.name, line.seeds) for line in lines] == [("a", (1, 2)), ("b", (1, 2))]
    save(records, tmp_path / "kept")
    output = tmp_path / "report"
    ids = [records[0].run.id, records[2].run.id]
    Commands(app).succeed("report", *ids, "--from", tmp_path / "kept", "--output", output)
    assert [float(row["value"]) for row in table(output / "bars.csv")] == [0.7]
    assert (output / "scores.csv").read_text().count("final") == 4


def test_an_evaluation_that_was_late_is_where_it_was_due(shelf: Path) -> None:
    experiment = Shelf(shelf).load("mini/tiny")
    records = records_of(experiment)
    late = records[0].results.evaluations[1]
    late.env_steps += 130
    cells = match(experiment.runs(), [item.run for item in records])
    line = lines_of_experiment(experiment, [1, 2], cells, {item.run.id: item for item in records})[0]
    assert line.curve.env_steps.tolist() == [0, 500, 1000, 1500, 2000]
    assert not np.isnan(line.curve.scores).any()
    late.env_steps += 1000  # one is missing, two are at the same place: the later counts, and there is a gap
    line = lines_of_experiment(experiment, [1, 2], cells, {item.run.id: item for item in records})[0]
    assert np.isnan(line.curve.scores).any(axis=(1, 2)).tolist() == [False, True, False, False, False]


def test_evaluations_that_were_asked_for(shelf: Path) -> None:
    body: dict[str, Any] = {"episodes": 3}
    content = {
        **TINY,
        "evaluations": {
            "planned": {"title": "planner", "variants": ["a"], "request": {**body, "mode": "planner"}},
            "open": {"title": "open", "variants": ["a"], "request": {"mode": "open_loop", "plan_steps": 24}},
        },
        "drawings": [
            {"kind": "evaluations", "title": "Asked", "evaluations": ["planned"], "variants": ["a"]},
            {"kind": "open_loop", "title": "Open loop", "evaluations": ["open"]},
            {"kind": "instructions", "title": "Texts"},
        ],
    }
    write(shelf, tiny=content)
    experiment = Shelf(shelf).load("mini/tiny")
    records = records_of(experiment)
    for item in records:
        if item.run.spec.labels["variant"] == "a":
            score = 0.25 * item.run.spec.seed
            for name, _, request in experiment.evaluations():
                asked = {**request.model_dump(), "checkpoint": f"{item.run.id}/last", "tasks": TASKS}
                stats = item.results.evaluations[-1].tasks[TASKS[0]].model_copy(update={"corrected_score": score})
                told = {"open_return": 1, "closed_return": 2, "fraction": score}
                points = [{"share": share, "steps": round(24 * share), **told} for share in (1 / 3, 2 / 3, 1)]
                loops = {TASKS[0]: {"plan_steps": 24, "episodes": 3, "points": points}} if name == "open" else {}
                result = Evaluation(
                    kind="requested",
                    mode=request.mode,
                    env_steps=4000,
                    tasks=dict.fromkeys(TASKS, stats),
                    open_loop={task: OpenLoopStats.model_validate(loop) for task, loop in loops.items()},
                )
                item.evaluations.append(
                    EvaluationJob(
                        id=f"{item.run.id}-{name}",
                        state="succeeded",
                        request=CheckpointEvaluationRequest.model_validate(asked),
                        checkpoint_sha256="",
                        created_at=item.run.created_at,
                        result=result,
                    )
                )
    output, said = drawn(shelf, records)
    assert "missing:" not in said
    rows = table(output / "evaluations.csv")
    assert [(row["group"], float(row["value"]), row["seeds"]) for row in rows] == [
        ("all tasks", 0.375, "2"),
        (TASKS[0], 0.375, "2"),
        (TASKS[1], 0.375, "2"),
    ]
    assert "| pygame-cowboy | 24 | 0.38 | 0.38 | 0.38 |" in (output / "report.md").read_text()
    assert len(table(output / "instructions.csv")) == 2


def test_what_makes_no_sense_is_refused(shelf: Path, tmp_path: Path) -> None:
    commands, folder = Commands(app), ("--folder", str(shelf))
    assert "not both" in commands.refused(InvalidInputError, "report")
    assert "not both" in commands.refused(InvalidInputError, "report", "run", "--experiment", "mini/tiny", *folder)
    assert "no records in" in commands.refused(NotFoundError, "report", "run", "--from", str(tmp_path))
