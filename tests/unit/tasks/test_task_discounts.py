"""The discount rule and the discounts of all 200 tasks."""

from collections import Counter

import pytest

from newt.tasks.discounts import discount
from newt.tasks.registry import get_task, select_tasks


@pytest.mark.parametrize(
    ("episode_length", "expected"),
    [(1, 0.95), (25, 0.95), (50, 0.95), (100, 0.95), (200, 0.975), (250, 0.98), (500, 0.99), (1000, 0.995)],
)
def test_heuristic(episode_length: int, expected: float) -> None:
    assert discount(episode_length) == pytest.approx(expected, abs=1e-12)


def test_heuristic_is_clipped_above() -> None:
    assert discount(100_000) == 0.995


def test_override_wins() -> None:
    assert discount(1000, 0.99) == 0.99


@pytest.mark.parametrize("override", [0.0, -0.1, 1.01, float("nan")])
def test_override_out_of_range(override: float) -> None:
    with pytest.raises(ValueError, match="override"):
        discount(100, override)


def test_episode_length_out_of_range() -> None:
    with pytest.raises(ValueError, match="episode_length"):
        discount(0)


def test_table_of_the_200_tasks() -> None:
    table = Counter((task.episode_length, round(task.discount, 6)) for task in select_tasks(["mmbench"]))
    assert table == {
        (25, 0.95): 26,
        (50, 0.95): 2,
        (100, 0.95): 61,
        (200, 0.975): 10,
        (250, 0.99): 10,
        (500, 0.99): 62,
        (1000, 0.99): 29,
    }


def test_tasks_with_their_own_discount() -> None:
    assert get_task("atari-pong").discount == 0.99
    assert get_task("ms-hopper-hop").discount == 0.99
    assert get_task("mujoco-reacher").discount == 0.95
