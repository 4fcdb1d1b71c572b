"""How fast tasks are shown. What the simulators' own clocks say is checked where these are built."""

from __future__ import annotations

from dataclasses import replace

import pytest

from newt.miniarcade import make_game
from newt.runs.plays import pace_of
from newt.tasks.pace import DEFAULT_STEPS_PER_S, real_time
from newt.tasks.registry import get_task, select_tasks

WALKER, CHEETAH = get_task("walker-walk"), get_task("cheetah-run")
SILENT = replace(WALKER, steps_per_s=None)


def test_games_have_their_own_pace_and_consoles_sixty_frames() -> None:
    for task in select_tasks(["pygame-*"]):
        assert task.steps_per_s == make_game(task.name).FPS
    assert {task.steps_per_s * task.action_repeat for task in select_tasks(["atari"]) if task.steps_per_s} == {60}
    box2d = pytest.importorskip("services.sim.domains.box2d.episode")
    assert {task.steps_per_s for task in select_tasks(["box2d"])} == {box2d.STEPS_PER_SECOND / 2}


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([WALKER, get_task("walker-run")], 20.0),
        ([WALKER, CHEETAH], DEFAULT_STEPS_PER_S),
        ([WALKER, SILENT], DEFAULT_STEPS_PER_S),
        ([SILENT], DEFAULT_STEPS_PER_S),
    ],
)
def test_several_tasks_have_a_pace_if_they_agree(tasks: list, expected: float) -> None:
    assert real_time(tasks) == expected


def test_a_play_is_no_faster_than_a_play_may_be() -> None:
    assert pace_of(get_task("mujoco-hopper")) == 60.0  # of 62.5
    assert pace_of(replace(WALKER, steps_per_s=0.2)) == 1.0
    assert pace_of(CHEETAH) == 50.0
