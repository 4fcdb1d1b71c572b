"""Every task has an instruction of its own that is true to its facts and fits the encoders."""

import re

import pytest

from newt.tasks.instructions import load_instructions
from newt.tasks.registry import all_tasks, get_task


def test_every_registered_task_has_an_instruction_and_no_other_has() -> None:
    assert set(load_instructions()) == {task.name for task in all_tasks()}


def test_no_two_tasks_share_a_text() -> None:
    texts = [task.instruction.casefold() for task in all_tasks()]
    assert len(set(texts)) == len(texts)


def test_the_embodiment_comes_first_and_states_the_action_dimensions() -> None:
    for task in all_tasks():
        assert task.instruction.startswith(task.embodiment)
        stated = re.findall(r"(\d+) action dimensions?: ", task.embodiment)
        assert stated == [str(task.action_dim)], task.name


def test_texts_are_whole_sentences() -> None:
    for task in all_tasks():
        for sentence in (task.embodiment, task.goal):
            assert sentence[0].isupper(), task.name
            assert sentence.endswith("."), task.name
            assert sentence == " ".join(sentence.split()), task.name


def test_texts_leave_room_in_clips_77_tokens() -> None:
    # CLIP's vocabulary is not at hand offline; it splits off punctuation and single digits, and a few words
    # into two or three. The longest text measured 67 tokens where this count gives 64.
    for task in all_tasks():
        pieces = re.findall(r"[a-z]+|\d|[^\sa-z\d]", task.instruction.casefold())
        assert len(pieces) <= 68, (task.name, len(pieces))


@pytest.mark.parametrize(
    ("group", "difference"),
    [
        (("cartpole-balance", "cartpole-balance-sparse"), "all others give zero"),
        (("cartpole-swingup", "cartpole-swingup-sparse"), "all others give zero"),
        (("finger-turn-easy", "finger-turn-hard"), "small target"),
        (("mw-handle-press", "mw-handle-press-side"), "left side"),
        (("mw-handle-pull", "mw-handle-pull-side"), "left side"),
        (("mw-plate-slide", "mw-plate-slide-side"), "to the left"),
        (("mw-plate-slide", "mw-plate-slide-back"), "toward the robot"),
        (("mw-plate-slide", "mw-plate-slide-back-side"), "to the right"),
        (("pygame-cartpole-balance", "pygame-cartpole-balance-sparse"), "otherwise zero"),
        (("pygame-cartpole-swingup", "pygame-cartpole-swingup-sparse"), "otherwise zero"),
        (("reacher-easy", "reacher-hard"), "very small"),
        (("walker-walk", "walker-walk-backward"), "backward"),
        (("walker-walk", "walker-walk-incline"), "slope"),
        (("cartpole-balance-sparse", "cartpole-balance-long-sparse"), "longer"),
        (("pygame-reacher-easy", "pygame-reacher-hard"), "small red"),
    ],
)
def test_look_alike_tasks_say_what_differs(group: tuple[str, str], difference: str) -> None:
    plain, special = (get_task(name) for name in group)
    assert plain.embodiment == special.embodiment
    assert difference in special.goal
    assert difference not in plain.goal
