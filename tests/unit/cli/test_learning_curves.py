"""What the lines of the demo's plots are made of."""

from __future__ import annotations

import pytest

from newt.cli.plots import mean_curve, running_mean


def test_a_line_is_the_mean_of_the_last_five_episodes() -> None:
    scores = [1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 1.0]
    line = running_mean([(10 * i, score) for i, score in enumerate(scores)])
    assert [x for x, _ in line] == [0, 10, 20, 30, 40, 50, 60]
    assert [y for _, y in line] == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4, 2.5 / 5, 1.5 / 5, 2.5 / 5])


def test_the_mean_begins_when_every_task_has_a_score() -> None:
    assert mean_curve([[(1, 0.0), (4, 1.0)], [(3, 0.5)]]) == [(3, 0.25), (4, 0.75)]
    assert mean_curve([[(1, 0.0)], []]) == []
