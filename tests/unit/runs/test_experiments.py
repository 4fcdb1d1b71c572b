"""Experiments: the files of this project, what they expand to, and what is refused."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import experiment_files
import pytest
from experiment_files import TASKS, TINY, record, write

from newt.errors import InvalidInputError, NotFoundError
from newt.runs.costs import Estimates, Work
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.expansion import RunKey, differing
from newt.runs.experiments import Speeds
from newt.runs.record import RunState
from newt.runs.shelf import Shelf
from newt.runs.standing import Standing, match, match_evaluations
from newt.tasks.registry import get_task

OURS = Shelf(Path(__file__).parents[3] / "experiments")


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The tiny experiment with dotted paths set."""
    content = copy.deepcopy(TINY)
    for path, value in changes.items():
        *above, last = path.split(".")
        below = content
        for part in above:
            below = below.setdefault(part, {})
        below[last] = value
    return content


@pytest.mark.parametrize("name", OURS.names())
def test_every_experiment_expands_to_runs_that_the_learner_takes(name: str) -> None:
    experiment = OURS.load(name)
    runs = experiment.runs()
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        if run.key.seed == 1:
            spec = run.spec
            assert RunKey.of(spec) == run.key
            assert len(spec.name) <= 64
            assert (spec.init_from is not None) == (run.starts_from is not None)
    for variant in experiment.variants():
        assert experiment.runs_of(variant, 1)
    assert all(OURS.published(item.file) for item in experiment.file.published_tasks)
    assert all(request.tasks is None or request.tasks for _, _, request in experiment.evaluations())


def test_there_is_an_experiment_for_every_figure_and_table() -> None:
    shown = " ".join(OURS.load(name).file.shows for name in OURS.names())
    for what in ("Figures 1 and 7", "Figure 8", "Figure 9", "Table 1", "Table 2", "Table 8", "Table 9"):
        assert what in shown
    for what in ("Figure 5", "Figure 14", "Figure 15", "Figures 16 to 25", "Figure 26"):
        assert what in shown


def test_settings_come_in_layers(tmp_path: Path) -> None:
    content = changed(
        {
            "run": {"train": {"lr": 0.1, "tau": 0.1, "rho": 0.1}},
            "scales": {"mini": {"run": {"train": {"tau": 0.2, "rho": 0.2}}}},
            "variants.b": {"title": "B", "run": {"train": {"rho": 0.3}}, "scales": {"paper": {"train": {"rho": 0.4}}}},
        }
    )
    shelf = Shelf(write(tmp_path, tiny=content))
    assert shelf.names() == ["mini/tiny", "paper/tiny"]
    assert shelf.load("mini/tiny").settings("b")["train"] == {"lr": 0.1, "tau": 0.2, "rho": 0.3}
    assert shelf.load("paper/tiny").settings("b")["train"] == {"lr": 0.1, "tau": 0.1, "rho": 0.4}
    assert shelf.load("mini/tiny").settings("a")["schedule"]["total_env_steps"] == 4000


def test_an_algorithm_wins_over_what_all_runs_have(tmp_path: Path) -> None:
    scales = copy.deepcopy(experiment_files.SCALES)
    scales["scales"]["mini"]["run"]["demos"] = {"scripted_episodes": 10}
    content = changed({"variants.b": {"title": "B", "run": {"algorithm": {"name": "tdmpc2"}}}})
    settings = Shelf(write(tmp_path, scales, tiny=content)).load("mini/tiny").settings("b")
    assert settings["demos"] == {"scripted_episodes": 0, "sets": []}
    assert settings["algorithm"]["language"] is False


def test_runs_are_in_order_of_seeds_and_each_is_there_once(tmp_path: Path) -> None:
    other = changed({"variants": {"same": {"title": "A", "same_as": "tiny.a"}, "c": {"title": "C"}}})
    shelf = Shelf(write(tmp_path, tiny=TINY, other=other))
    runs = shelf.load("mini/other").runs([1, 5])
    assert [run.key for run in runs] == [
        RunKey("mini/tiny", "a", "", 1),
        RunKey("mini/other", "c", "", 1),
        RunKey("mini/tiny", "a", "", 5),
        RunKey("mini/other", "c", "", 5),
    ]
    request = runs[2].request()
    assert request["labels"] == {"experiment": "mini/tiny", "variant": "a"}
    assert (request["seed"], request["name"]) == (5, "mini-tiny-a-s5")


def test_a_variant_can_have_a_run_for_each_task_and_fine_tune_another(tmp_path: Path) -> None:
    content = changed(
        {
            "variants.single": {
                "title": "each",
                "each_task": True,
                "run": {"train": {"lr": 0.5}},
                "for_tasks": {"pygame-land*": {"train": {"lr": 0.25}}},
            },
            "variants.tuned": {"title": "tuned", "starts_from": "a", "each_task": True},
        }
    )
    experiment = Shelf(write(tmp_path, tiny=content)).load("mini/tiny")
    single = experiment.runs_of("single", 3)
    assert [run.key.task for run in single] == TASKS
    assert [run.settings["tasks"] for run in single] == [[task] for task in TASKS]
    assert [run.settings["train"]["lr"] for run in single] == [0.5, 0.25]
    runs = experiment.runs([2], ["tuned"])
    assert [run.key.variant for run in runs] == ["a", "tuned", "tuned"]
    assert runs[1].starts_from == runs[0].key
    assert runs[1].request("run-of-a")["init_from"] == "run-of-a"
    assert experiment.tasks_of("single") == TASKS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, ["tiny.yaml", "colour", "not permitted"]),
        ({"variants.a.rnu": {}}, ["variants.a.rnu", "not permitted"]),
        ({"variants": {}}, ["variants", "at least 1"]),
        ({"drawings": [{"kind": "pie", "title": "x"}]}, ["drawings.0.kind"]),
        ({"drawings": [{"kind": "bars", "title": "x", "variants": ["z"]}]}, ["'z' is unknown", "a, b"]),
        ({"drawings": [{"kind": "losses", "title": "x"}]}, ["metrics"]),
        ({"drawings": [{"kind": "evaluations", "title": "x", "evaluations": ["z"]}]}, ["'z' is unknown"]),
        ({"drawings": [{"kind": "bars", "title": "x"}] * 2}, ["one name"]),
        ({"variants.c": {"title": "C", "same_as": "a", "run": {"seed": 1}}}, ["variants.c", "same_as stands alone"]),
        ({"published": [{"variant": "z", "value": 1.0, "what": "x", "source": "y"}]}, ["'z' is unknown"]),
        ({"scales": {"mini": {"seeds": 0}}}, ["scales.mini.seeds", "greater"]),
    ],
)
def test_a_file_that_makes_no_sense_names_the_field(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Shelf(write(tmp_path, tiny=changed(changes))).load("mini/tiny")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants.b.run": {"trian": {}}}, ["mini/tiny b seed 1", "trian", "not permitted"]),
        ({"variants.b.run": {"tasks": ["walker-wlak"]}}, ["mini/tiny b seed 1", "walker-walk"]),
        ({"variants.b": {"title": "B", "same_as": "nothing.a"}}, ["variants.b.same_as", "unknown experiment"]),
        ({"variants.b": {"title": "B", "same_as": "z"}}, ["unknown variant 'z'"]),
        ({"variants.b": {"title": "B", "starts_from": "z"}}, ["unknown variant 'z'"]),
        (
            {"evaluations": {"e": {"title": "x", "variants": ["a"], "request": {"mode": "guess"}}}},
            ["evaluations.e", "mode"],
        ),
        (
            {"evaluations": {"e": {"title": "x", "variants": ["a"], "request": {"instructions": {"pong": "x"}}}}},
            ["evaluations.e", "unknown task 'pong'"],
        ),
    ],
)
def test_settings_that_make_no_sense_name_run_and_field(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    experiment = Shelf(write(tmp_path, tiny=changed(changes))).load("mini/tiny")
    with pytest.raises(InvalidInputError) as caught:
        _ = [run.spec for run in experiment.runs()] + list(experiment.evaluations())
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"scales\.yaml"):
        Shelf(tmp_path)
    write(tmp_path, tiny=TINY)
    with pytest.raises(NotFoundError, match="mini/tiny, paper/tiny"):
        Shelf(tmp_path).load("mini/other")
    (tmp_path / "torn.yaml").write_text("a: [")
    with pytest.raises(InvalidInputError, match=r"torn\.yaml: cannot be read as YAML"):
        Shelf(tmp_path).load("mini/torn")


def test_records_are_matched_by_label_and_seed(tmp_path: Path) -> None:
    planned = Shelf(write(tmp_path, tiny=TINY)).load("mini/tiny").runs()
    first, second, third, fourth = planned
    runs = [
        record(first, RunState.FAILED, 1),
        record(first, RunState.SUCCEEDED, 2),
        record(first, RunState.QUEUED, 3),
        record(second, RunState.TRAINING, 4, train={"lr": 0.5}),
        record(third, RunState.DELETING, 5),
        record(fourth, RunState.CANCELLED, 6, labels={}),
    ]
    cells = match(planned, runs)
    assert [cell.state for cell in cells] == ["succeeded", "training", "missing", "missing"]
    assert [run.id for run in cells[0].others] == [runs[2].id, runs[0].id]
    assert cells[0].changes() == []
    assert cells[1].changes() == ["train.lr 0.5 instead of 0.002"]
    assert [cell.key for cell in Standing(cells).startable()] == [third.key, fourth.key]


def test_a_run_waits_for_the_one_that_it_starts_from(tmp_path: Path) -> None:
    content = changed({"variants.b": {"title": "B", "starts_from": "a"}})
    planned = Shelf(write(tmp_path, tiny=content)).load("mini/tiny").runs([1])
    assert [cell.key.variant for cell in Standing(match(planned, [])).startable()] == ["a"]
    training = Standing(match(planned, [record(planned[0], RunState.TRAINING)]))
    assert training.startable() == []
    done = Standing(match(planned, [record(planned[0])]))
    assert [cell.key.variant for cell in done.startable()] == ["b"]


def test_a_fine_tuned_run_takes_over_what_it_starts_from(tmp_path: Path) -> None:
    content = changed({"variants.b": {"title": "B", "starts_from": "a"}})
    planned = Shelf(write(tmp_path, tiny=content)).load("mini/tiny").runs([1])[1]
    stored = record(planned, model={"size": "S"}, init_from="r/best")
    assert differing(planned.spec, stored.spec) == []


def test_evaluations_are_matched_by_what_they_ask_for(tmp_path: Path) -> None:
    body = {"mode": "policy", "episodes": 3, "instructions": {TASKS[0]: f"${TASKS[1]}"}}
    content = changed({"evaluations": {"told": {"title": "told", "variants": ["a"], "request": body}}})
    experiment = Shelf(write(tmp_path, tiny=content)).load("mini/tiny")
    cells = match(experiment.runs([1]), [record(planned) for planned in experiment.runs([1])])
    (item,) = match_evaluations(experiment, cells, [])
    assert item.cell.key.variant == "a"
    assert item.state == "missing"
    assert item.request.instructions == {TASKS[0]: get_task(TASKS[1]).instruction}

    def job(number: int, **changes: Any) -> EvaluationJob:
        assert item.cell.run is not None
        asked = {**item.request.model_dump(), "checkpoint": f"{item.cell.run.id}/last", "tasks": TASKS, **changes}
        return EvaluationJob(
            id=f"e{number}",
            state="running",
            request=CheckpointEvaluationRequest.model_validate(asked),
            checkpoint_sha256="",
            created_at=experiment_files.NOON,
        )

    jobs = [job(1, episodes=4), job(2, checkpoint="another/last"), job(3, tasks=TASKS[:1]), job(4)]
    # how the agent was trained to act is for the learner to say
    del body["mode"]
    plain = Shelf(write(tmp_path, tiny=content)).load("mini/tiny")
    (other,) = match_evaluations(plain, cells, jobs)
    assert other.job is not None
    assert (other.job.id, other.request.mode) == ("e4", "planner")
    (found,) = match_evaluations(experiment, cells, jobs)
    assert found.job is not None
    assert found.job.id == "e4"


def test_what_a_run_costs(tmp_path: Path) -> None:
    experiment = Shelf(write(tmp_path, tiny=TINY)).load("mini/tiny")
    planned = experiment.runs()
    # random, three on the way, final; 500 + 200 steps of four episodes each; updates after 400 of 4,000 steps
    work = Work.of(planned[0].spec)
    assert work == Work(env_steps=4000, evaluation_steps=5 * 4 * 700, updates=720)
    shared = Speeds(env_steps_per_s=100, updates_per_s=10, together=True, machine="x")
    assert work.seconds(shared) == 140 + 40 + 72
    assert work.seconds(shared.model_copy(update={"together": False})) == 140 + 72
    # a took an hour; b, which has not run, costs as much by the model
    cells = match(planned, [record(planned[0])])
    estimates = Estimates(cells, shared)
    assert [estimates.seconds(cell) for cell in cells] == [3600, 3600, 3600, 3600]
    assert [estimates.seconds_left(cell) for cell in cells] == [0, 3600, 3600, 3600]
    assert Estimates(match(planned, []), None).seconds(cells[0]) is None


def test_the_example_in_the_docs_is_an_experiment(tmp_path: Path) -> None:
    page = (OURS.folder.parent / "docs" / "experiments.md").read_text()
    shutil.copytree(OURS.folder, tmp_path / "experiments")
    (tmp_path / "experiments" / "mine.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    experiment = Shelf(tmp_path / "experiments").load("mini/mine")
    runs = experiment.runs([1])
    assert [run.key.variant for run in runs] == ["newt", "fast", *["each"] * 4, "tuned"]
    assert all(run.spec for run in runs)
    assert [name for name, _, _ in experiment.evaluations()] == ["told"]
    for stem in OURS.folder.glob("*.yaml"):
        assert stem.stem == "scales" or f"| `{stem.stem}` |" in page
