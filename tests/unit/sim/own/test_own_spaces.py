"""Columns of observations and actions, over spaces of all kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from newt.errors import InvalidInputError
from services.sim.domains.own.spaces import action_columns, observation_columns

DTYPES = st.sampled_from([np.float32, np.float64, np.int8, np.uint8, np.int64])
BOXES = st.builds(
    lambda shape, dtype: spaces.Box(0, 100, shape, dtype), st.lists(st.integers(1, 3), max_size=3).map(tuple), DTYPES
)
LEAVES = st.one_of(
    BOXES,
    st.builds(spaces.Discrete, st.integers(1, 5), start=st.integers(-2, 2)),
    st.builds(spaces.MultiBinary, st.integers(1, 4)),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
)
SPACES: st.SearchStrategy[spaces.Space[Any]] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=2).map(spaces.Tuple),
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(SPACES, st.integers(0, 2**31 - 1))
def test_observations_become_as_many_columns_as_gymnasium_counts(space: spaces.Space[Any], seed: int) -> None:
    size = spaces.flatdim(space)
    if not 1 <= size <= 128:
        with pytest.raises(InvalidInputError, match="128"):
            observation_columns(space)
        return
    columns = observation_columns(space)
    space.seed(seed)
    value = space.sample()
    flat = columns.flatten(value)
    assert columns.dim == size
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat, np.asarray(spaces.flatten(space, value), np.float32))


def test_what_is_returned_is_a_copy() -> None:
    reused = np.zeros(3, np.float32)
    flat = observation_columns(spaces.Box(-1, 1, (3,))).flatten(reused)
    reused[:] = 1
    assert flat.tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [np.zeros(2), np.zeros((3, 1)), 0.0])
def test_another_shape_than_the_space_has_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"observation_space: got an observation of shape .*\(3,\)"):
        observation_columns(spaces.Box(-1, 1, (3,))).flatten(value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Dict({"words": spaces.Text(5), "x": spaces.Box(0, 1)}),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Box(0, 255, (64, 64, 3), np.uint8),
    ],
)
def test_observations_that_are_no_columns_are_refused_with_a_remedy(space: spaces.Space[Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"observation_space.*(FilterObservation)"):
        observation_columns(space)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)), min_size=1, max_size=16), st.data())
def test_box_actions_fill_their_bounds_and_no_more(bounds: list[tuple[float, float]], data: st.DataObject) -> None:
    low = np.array([least for least, _ in bounds])
    space = spaces.Box(low, low + [width for _, width in bounds], dtype=np.float64)
    columns = action_columns(space)
    given_columns = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=len(bounds), max_size=len(bounds)))
    chosen = np.array(given_columns, np.float32)
    action = columns.decode(chosen)
    assert space.contains(action)
    np.testing.assert_allclose(columns.encode(action), chosen, atol=1e-4)
    np.testing.assert_allclose(columns.decode(np.full(len(bounds), -1, np.float32)), space.low)
    np.testing.assert_allclose(columns.decode(np.full(len(bounds), 1, np.float32)), space.high)


def test_whole_numbers_are_rounded() -> None:
    columns = action_columns(spaces.Box(0, 10, (2, 1), np.int64))
    action = columns.decode(np.array([0.05, 1.0], np.float32))
    assert action.tolist() == [[5], [10]]
    assert action.dtype == np.int64


@given(st.integers(1, 16), st.integers(-3, 3), st.data())
def test_discrete_actions_are_the_largest_column(n: int, start: int, data: st.DataObject) -> None:
    columns = action_columns(spaces.Discrete(n, start=start))
    action = data.draw(st.integers(start, start + n - 1))
    assert columns.dim == n
    assert columns.decode(columns.encode(action)) == action


@pytest.mark.parametrize(
    ("space", "remedy"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "RescaleAction"),
        (spaces.Box(-3.4e38, 3.4e38, (2,)), "RescaleAction"),
        (spaces.Box(-1, 1, (17,)), "leave some out"),
        (spaces.Discrete(17), "leave some out"),
        (spaces.MultiDiscrete([2, 2]), "TransformAction"),
        (spaces.Text(3), "TransformAction"),
    ],
)
def test_actions_that_are_no_columns_are_refused_with_a_remedy(space: spaces.Space[Any], remedy: str) -> None:
    with pytest.raises(InvalidInputError, match=f"action_space.*{remedy}"):
        action_columns(space)
