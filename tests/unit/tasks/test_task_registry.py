"""The registry: counts, facts of the official list, selection by name, set, domain and glob."""

import csv
import doctest
from collections import Counter
from importlib import resources

import pytest

from newt.cli import tour
from newt.tasks import registry
from newt.tasks.corrected_scores import CORRECTED_SCORES
from newt.tasks.domains import DOMAINS
from newt.tasks.registry import (
    UnknownTaskError,
    all_tasks,
    get_task,
    select_tasks,
)
from newt.tasks.sets import TASK_SETS
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM


def names(*specs: str) -> list[str]:
    return [task.name for task in select_tasks(list(specs))]


def test_tasks_per_domain_and_split() -> None:
    counts = Counter((task.domain, task.split) for task in all_tasks())
    assert counts == {
        ("dmcontrol", "train"): 21,
        ("dmcontrol-ext", "train"): 16,
        ("metaworld", "train"): 49,
        ("maniskill", "train"): 36,
        ("mujoco", "train"): 6,
        ("box2d", "train"): 8,
        ("robodesk", "train"): 6,
        ("ogbench", "train"): 12,
        ("miniarcade", "train"): 19,
        ("atari", "train"): 27,
        ("dmcontrol-ext", "test"): 5,
        ("maniskill", "test"): 10,
        ("miniarcade", "test"): 3,
        ("ogbench", "test"): 2,
        ("dmcontrol-ext", "extra"): 7,
        ("maniskill", "extra"): 1,
    }


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "walker-stand"),
        (8, "cartpole-balance"),
        (20, "quadruped-run"),
        (21, "walker-walk-backward"),
        (37, "mw-assembly"),
        (55, "mw-handle-press-side"),
        (86, "ms-ant-walk"),
        (121, "ms-cartpole-swingup-sparse"),
        (122, "mujoco-ant"),
        (128, "bipedal-walker-flat"),
        (136, "rd-push-red"),
        (142, "og-ant"),
        (154, "pygame-cowboy"),
        (172, "pygame-point-maze-var3"),
        (173, "atari-alien"),
        (199, "atari-yars-revenge"),
    ],
)
def test_official_order(index: int, name: str) -> None:
    assert get_task(name).index == index
    assert select_tasks(["mmbench"])[index].name == name


def test_official_indices_are_the_training_split_in_order() -> None:
    train = [task for task in all_tasks() if task.split == "train"]
    assert [task.index for task in train] == list(range(200))
    assert all(task.index is None for task in all_tasks() if task.split != "train")


def test_data_file_is_well_formed() -> None:
    text = resources.files("newt.tasks").joinpath("tasks.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len({row["name"] for row in rows}) == len(rows) == 228
    for row in rows:
        assert None not in row, row
        assert row["split"] in {"train", "test", "extra"}
        assert {row["has_success"], row["has_expert"]} <= {"0", "1"}


def test_every_task_fits_the_padded_shapes_and_a_known_domain() -> None:
    for task in all_tasks():
        assert task.domain in DOMAINS
        assert 0 < task.obs_dim <= PADDED_OBS_DIM
        assert 0 < task.action_dim <= PADDED_ACTION_DIM
        assert task.episode_length >= 25
        assert task.action_repeat >= 1


def test_success_and_experts() -> None:
    with_expert = {task.domain for task in all_tasks() if task.has_expert}
    assert with_expert == {"dmcontrol", "dmcontrol-ext", "metaworld", "mujoco", "box2d", "ogbench", "miniarcade"}
    assert {task.name for task in select_tasks(["og-*"]) if task.has_expert} == set(names("og-point-*"))
    assert all(task.has_expert and task.has_success for task in select_tasks(["metaworld"]))
    no_success = {"dmcontrol", "dmcontrol-ext", "mujoco", "box2d", "atari"}
    assert not any(task.has_success for task in all_tasks() if task.domain in no_success)
    assert get_task("og-antball").has_success
    assert not get_task("og-ant").has_success
    assert get_task("pygame-point-maze-var4").has_success
    assert not get_task("ms-cartpole-balance").has_success


def test_select_keeps_the_order_of_the_specs_and_drops_duplicates() -> None:
    assert names("reacher-hard", "mw-handle-pull*", "reacher-hard", "mw-handle-pull") == [
        "reacher-hard",
        "mw-handle-pull-side",
        "mw-handle-pull",
    ]


def test_a_domain_stands_for_its_training_tasks_only() -> None:
    assert len(names("maniskill")) == 36
    assert all(task.split == "train" for task in select_tasks(list(DOMAINS)))
    assert len(select_tasks(list(DOMAINS))) == 200


def test_a_glob_matches_all_names() -> None:
    assert names("spinner-*-four") == ["spinner-spin-four", "spinner-spin-backward-four", "spinner-jump-four"]
    assert len(names("mw-*")) == 49
    assert names("reacher-?asy") == ["reacher-easy"]


def test_sets() -> None:
    assert len(names("mmbench")) == 200
    assert len(names("test20")) == 20
    assert len(names("extra8")) == 8
    for task_set in TASK_SETS.values():
        assert names(task_set.name) == task_set.members(all_tasks())


def test_the_tour_mixes_three_domains_and_tasks_with_and_without_demonstrations() -> None:
    tasks = select_tasks(["tour"])
    assert {task.domain for task in tasks} == {"dmcontrol-ext", "mujoco", "metaworld"}
    asked = select_tasks(tour.RUN["demos"]["scripted_tasks"])
    guided = [task for task in tasks if task in asked]
    assert len(guided) >= 4
    assert len(tasks) - len(guided) >= 2
    assert all(task.has_expert for task in guided)


def test_the_mini_benchmark_has_an_expert_for_every_task_of_seven_domains() -> None:
    tasks = select_tasks(["mmbench-mini"])
    assert len(tasks) == 16
    assert len({task.domain for task in tasks}) >= 7
    assert all(task.has_expert and task.split == "train" for task in tasks)
    # whole episodes, at least 20, in 10,000 steps each
    assert all(10_000 % task.episode_length == 0 and task.episode_length <= 500 for task in tasks)
    assert len({(task.obs_dim, task.action_dim) for task in tasks}) >= 8


def test_four_tasks_are_for_learning_from_nothing() -> None:
    tasks = select_tasks(["mini-scratch"])
    assert len(tasks) == 4
    assert len({task.domain for task in tasks}) >= 3


def test_a_set_keeps_the_name_that_stored_runs_know() -> None:
    assert select_tasks(["laptop-demo"]) == select_tasks(["tour"])


def test_no_set_or_domain_hides_behind_a_task_name() -> None:
    task_names = {task.name for task in all_tasks()}
    assert not task_names & (TASK_SETS.keys() | DOMAINS.keys())
    assert not TASK_SETS.keys() & DOMAINS.keys()


def test_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(UnknownTaskError, match=r"unknown task 'walker-wlak'.*did you mean walker-walk") as caught:
        get_task("walker-wlak")
    assert caught.value.suggestions[0] == "walker-walk"


@pytest.mark.parametrize("spec", ["mw-no-such-*", "metawrld", "", "Walker-Walk"])
def test_a_spec_that_selects_nothing_is_refused(spec: str) -> None:
    with pytest.raises(UnknownTaskError) as caught:
        select_tasks(["walker-walk", spec])
    assert caught.value.spec == spec


def test_close_domains_and_sets_are_suggested_too() -> None:
    with pytest.raises(UnknownTaskError, match="metaworld"):
        select_tasks(["metawrld"])
    with pytest.raises(UnknownTaskError, match="test20"):
        select_tasks(["test_20"])


def test_a_plain_string_or_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a list"):
        select_tasks("walker-walk")
    with pytest.raises(ValueError, match="expected a list"):
        select_tasks([])


def test_corrected_scores_are_named_in_the_registry() -> None:
    corrected = {task.name for task in all_tasks() if task.corrected_score}
    assert corrected == set(CORRECTED_SCORES)
    assert get_task("cup-spin").corrected_score == CORRECTED_SCORES["cup-spin"]


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(registry)
    assert result.attempted > 0
    assert result.failed == 0
