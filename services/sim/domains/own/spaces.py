"""Spaces of Gymnasium environments as Newt's columns: observations flattened, actions made of [-1, 1].

Letters: O columns of an observation, A columns of an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from newt.errors import InvalidInputError
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM

UNBOUNDED = 1e30
"""Bounds beyond it are none: some environments write the largest float instead of infinity."""

Columns = npt.NDArray[np.float32]
Flatten = Callable[[Any], Columns]


@dataclass(frozen=True)
class ObservationColumns:
    """How an observation becomes columns.

    Attributes:
        dim: O.
        flatten: Takes an observation, returns float32[O] of its own. Raises ValueError where it is not of the space.
    """

    dim: int
    flatten: Flatten


def observation_columns(space: spaces.Space[Any]) -> ObservationColumns:
    """Flattens Box, Discrete, MultiBinary and MultiDiscrete, and Dict and Tuple of them, in the space's own order.

    A Discrete takes a column for each value, one of which is 1.

    Raises:
        InvalidInputError: Another space, or more columns than an agent observes; says what to do.
    """
    columns = _columns(space, "observation_space")
    if not 1 <= columns.dim <= PADDED_OBS_DIM:
        raise InvalidInputError(
            "observation_space",
            f"{columns.dim} columns, expected 1 to {PADDED_OBS_DIM}; leave out pictures (Newt draws its own), "
            "and choose what matters with gymnasium.wrappers.FilterObservation or TransformObservation",
        )
    return columns


def _columns(space: spaces.Space[Any], path: str) -> ObservationColumns:
    match space:
        case spaces.Box():
            return ObservationColumns(math.prod(space.shape), _flat_box(space.shape, path))
        case spaces.Discrete():
            return ObservationColumns(int(space.n), _one_hot([int(space.n)], [int(space.start)], path))
        case spaces.MultiDiscrete():
            sizes = np.ravel(space.nvec).tolist()
            return ObservationColumns(sum(sizes), _one_hot(sizes, np.ravel(space.start).tolist(), path))
        case spaces.MultiBinary():
            return ObservationColumns(math.prod(space.shape), _flat_box(space.shape, path))
        case spaces.Dict():
            parts = {key: _columns(part, f"{path}[{key!r}]") for key, part in space.spaces.items()}
            return ObservationColumns(sum(part.dim for part in parts.values()), _joined(parts))
        case spaces.Tuple():
            members = {row: _columns(part, f"{path}[{row}]") for row, part in enumerate(space.spaces)}
            return ObservationColumns(sum(part.dim for part in members.values()), _joined(members))
    raise InvalidInputError(
        path,
        f"{type(space).__name__} cannot be flattened to numbers; expected Box, Discrete, MultiBinary, MultiDiscrete, "
        "or Dict and Tuple of them: leave it out with gymnasium.wrappers.FilterObservation, or encode it yourself",
    )


def _flat_box(shape: tuple[int, ...], path: str) -> Flatten:
    def flatten(value: Any) -> Columns:
        # A copy, always: environments may write the next observation into the array of this one.
        array = np.array(value, np.float32)
        if array.shape != shape:
            raise ValueError(f"{path}: got an observation of shape {array.shape}, the space has {shape}")
        return array.reshape(-1)

    return flatten


def _one_hot(sizes: list[int], starts: list[int], path: str) -> Flatten:
    offsets = np.cumsum([0, *sizes[:-1]])

    def flatten(value: Any) -> Columns:
        chosen = np.ravel(np.asarray(value)).astype(np.int64) - starts
        if len(chosen) != len(sizes) or (chosen < 0).any() or (chosen >= sizes).any():
            raise ValueError(f"{path}: got {value}, which is not in the space")
        hot = np.zeros(sum(sizes), np.float32)
        hot[offsets + chosen] = 1.0
        return hot

    return flatten


def _joined(parts: dict[Any, ObservationColumns]) -> Flatten:
    def flatten(value: Any) -> Columns:
        return np.concatenate([part.flatten(value[key]) for key, part in parts.items()]) if parts else np.zeros(0, "f4")

    return flatten


@dataclass(frozen=True)
class ActionColumns:
    """How columns become an action, and an expert's action columns.

    Attributes:
        dim: A.
        decode: Takes float32[A] in [-1, 1], returns an action as the environment takes it.
        encode: The inverse, as far as there is one: float32[A] in [-1, 1].
    """

    dim: int
    decode: Callable[[Columns], Any]
    encode: Callable[[Any], Columns]


def action_columns(space: spaces.Space[Any]) -> ActionColumns:
    """Takes Box with finite bounds, and Discrete.

    Raises:
        InvalidInputError: Another space, bounds that are infinite, or more columns than an agent has; says what to do.
    """
    if isinstance(space, spaces.Box):
        columns = _box_actions(space)
    elif isinstance(space, spaces.Discrete):
        columns = _discrete_actions(int(space.n), int(space.start))
    else:
        raise InvalidInputError(
            "action_space",
            f"{space} is neither Box nor Discrete; make one of it with gymnasium.wrappers.TransformAction or a "
            "wrapper of your own",
        )
    if not 1 <= columns.dim <= PADDED_ACTION_DIM:
        raise InvalidInputError(
            "action_space", f"{space} needs {columns.dim} columns, expected 1 to {PADDED_ACTION_DIM}; leave some out"
        )
    return columns


def _box_actions(space: spaces.Box) -> ActionColumns:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not (np.abs(low) < UNBOUNDED).all() or not (np.abs(high) < UNBOUNDED).all():
        raise InvalidInputError(
            "action_space",
            f"{space} has no finite bounds, to which [-1, 1] could be stretched; give it bounds that make sense, with "
            "gymnasium.spaces.Box(low, high) or gymnasium.wrappers.RescaleAction",
        )
    width = high - low
    whole = np.issubdtype(space.dtype, np.integer)

    def decode(columns: Columns) -> Any:
        value = low + (columns.astype(np.float64).reshape(space.shape) + 1.0) * 0.5 * width
        # The last digits may not lead out of the bounds.
        return np.clip(np.rint(value) if whole else value, low, high).astype(space.dtype)

    def encode(action: Any) -> Columns:
        value = np.asarray(action, np.float64).reshape(space.shape)
        share = np.divide(value - low, width, out=np.full(space.shape, 0.5), where=width > 0)
        columns: Columns = np.clip(2.0 * share - 1.0, -1.0, 1.0).astype(np.float32).reshape(-1)
        return columns

    return ActionColumns(math.prod(space.shape), decode, encode)


def _discrete_actions(n: int, start: int) -> ActionColumns:
    def decode(columns: Columns) -> Any:
        return int(np.argmax(columns)) + start

    def encode(action: Any) -> Columns:
        columns = np.full(n, -1.0, np.float32)
        columns[int(action) - start] = 1.0
        return columns

    return ActionColumns(n, decode, encode)
