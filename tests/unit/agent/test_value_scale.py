"""Equation (6): the spread of values, shared and per task."""

from __future__ import annotations

import pytest
import torch

from newt.agent.config import ConfigError, TrainConfig
from newt.agent.value_scale import RECENT, ValueScale, outline


def per_task(tasks: int, ema_rate: float = 0.01) -> ValueScale:
    return ValueScale(TrainConfig(value_scale="per_task", ema_rate=ema_rate), tasks)


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.long)


def test_a_shared_scale_moves_towards_the_spread_of_a_batch() -> None:
    scale = ValueScale(TrainConfig(), num_tasks=3)
    scale.update(torch.linspace(0, 100, 101), zeros(101))
    assert float(scale.value) == pytest.approx(1 + 0.01 * (90 - 1))
    narrow = ValueScale(TrainConfig(), num_tasks=3)
    narrow.update(torch.linspace(0, 0.5, 101), zeros(101))
    assert float(narrow.value) == 1
    assert float(narrow.of(torch.tensor([2, 0]))) == 1


def test_tasks_have_scales_of_their_own() -> None:
    """Of 0, 10, ..., 100 the 5th percentile is 5 and the 95th 95; of 0 to 1 the spread is 0.9, which counts as 1."""
    scale = per_task(3, ema_rate=0.5)
    values = torch.cat([torch.linspace(0, 100, 11), torch.linspace(0, 1, 11)])
    task = torch.tensor([2] * 11 + [0] * 11)
    mixed = torch.randperm(22, generator=torch.Generator().manual_seed(1))
    scale.update(values[mixed], task[mixed])
    assert scale.value.tolist() == pytest.approx([1.0, 1.0, 1 + 0.5 * (90 - 1)])
    assert scale.of(torch.tensor([2, 1, 2])).tolist() == pytest.approx([45.5, 1.0, 45.5])


def test_a_task_without_values_keeps_its_scale() -> None:
    scale = per_task(2, ema_rate=0.5)
    scale.update(torch.tensor([0.0, 100.0]), zeros(2))  # P5 and P95 of two values: 5 and 95.
    scale.update(torch.tensor([7.0]), torch.tensor([1]))
    assert scale.value.tolist() == pytest.approx([45.5, 1.0])


def test_single_values_per_batch_make_a_spread() -> None:
    """One value of the task per batch, 0, 1, 2, ..., 299: the last 100 spread over 0.9 x 99."""
    scale = per_task(1, ema_rate=1.0)
    for value in range(300):
        scale.update(torch.tensor([float(value)]), zeros(1))
    assert float(scale.value) == pytest.approx(0.9 * (RECENT - 1))


def test_of_many_values_the_last_ones_count() -> None:
    scale = per_task(1, ema_rate=1.0)
    scale.update(torch.cat([torch.full((250,), 1e6), torch.arange(float(RECENT))]), zeros(350))
    assert float(scale.value) == pytest.approx(0.9 * (RECENT - 1))
    scale.update(torch.zeros(RECENT), zeros(RECENT))
    assert float(scale.value) == 1


def test_the_outline_is_that_of_the_state() -> None:
    for config in (TrainConfig(), TrainConfig(value_scale="per_task")):
        state, expected = ValueScale(config, 4).state_dict(), outline(config, 4)
        assert {name: (value.shape, value.dtype) for name, value in state.items()} == {
            name: (value.shape, value.dtype) for name, value in expected.items()
        }


def test_unknown_sharing_is_refused() -> None:
    with pytest.raises(ConfigError, match="value_scale must be one of"):
        TrainConfig(value_scale="domain")  # type: ignore[arg-type]
