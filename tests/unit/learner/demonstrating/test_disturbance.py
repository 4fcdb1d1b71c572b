"""Noise on scripted experts: as large, as often and as repeatable as it says."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest

from newt.runs.sections import SCRIPTED_SET_NAME
from newt.runs.spec import RunSpec
from newt.tasks.registry import get_task
from services.learner.demonstrating.disturbance import Disturbance

REACHER = get_task("reacher-easy")


def episode_of_noise(seed: int, largest: float) -> npt.NDArray[np.float32]:
    disturbance = Disturbance(REACHER, seed, largest)
    return np.stack([disturbance.noise() for _ in range(REACHER.episode_length)])


def test_bursts_leave_time_to_recover_and_the_end_is_calm() -> None:
    noisy = episode_of_noise(3, 1.0).any(axis=1)
    eighth = REACHER.episode_length // 8
    assert noisy[: eighth // 4].all()
    assert not noisy[eighth // 4 + 1 : eighth].any()
    assert not noisy[-eighth:].any()
    assert noisy.mean() == pytest.approx(7 / 8 / 4, abs=0.02)
    starts = np.flatnonzero(noisy & ~np.roll(noisy, 1))
    assert len(starts) == 7


def test_amplitudes_of_episodes_spread_over_a_decade() -> None:
    peaks = np.array([np.abs(episode_of_noise(seed, 0.5)).max() for seed in range(60)])
    assert peaks.max() <= 0.5
    assert peaks.min() > 0.04
    assert np.median(peaks) == pytest.approx(0.5 / np.sqrt(10), rel=0.35)


def test_noise_points_nowhere_and_does_not_foretell_the_next() -> None:
    noise = np.concatenate([episode_of_noise(seed, 1.0) for seed in range(40)])
    following = noise[1:][noise[:-1].any(axis=1) & noise[1:].any(axis=1)]
    before = noise[:-1][noise[:-1].any(axis=1) & noise[1:].any(axis=1)]
    assert np.abs(noise.mean(axis=0)).max() < 0.01
    assert abs(np.corrcoef(before[:, 0], following[:, 0])[0, 1]) < 0.05
    assert abs(np.corrcoef(before[:, 0], before[:, 1])[0, 1]) < 0.05


def test_the_seed_says_which_noise() -> None:
    np.testing.assert_array_equal(episode_of_noise(5, 1.0), episode_of_noise(5, 1.0))
    assert not np.array_equal(episode_of_noise(5, 1.0), episode_of_noise(6, 1.0))
    assert not episode_of_noise(5, 0.0).any()


@pytest.mark.parametrize(
    ("disturbance", "name"),
    [(0.0, "scripted-4"), (0.5, "scripted-4-disturbed0.5"), (1e-7, "scripted-4-disturbed1e-07")],
)
def test_sets_with_other_noise_have_other_names_that_nobody_else_may_use(disturbance: float, name: str) -> None:
    spec = RunSpec.model_validate({"tasks": ["mw-push"], "demos": {"scripted_episodes": 4, "disturbance": disturbance}})
    assert spec.scripted_set() == name
    assert re.fullmatch(SCRIPTED_SET_NAME, name)
