"""What a program hands over as observations, checked and padded for the agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.acting.facts import AgentFacts
from newt.acting.plans import Floats
from newt.errors import InvalidInputError

Obs = npt.ArrayLike | Sequence[npt.ArrayLike]
Row = npt.NDArray[np.float64]


def rows_of(obs: Obs) -> tuple[list[Row], bool]:
    """The rows of an observation, and whether it is the one of a single robot.

    Raises:
        InvalidInputError: Neither float[O], nor float[B, O], nor a sequence of float[O].
    """
    parts: list[Any] = list(obs) if isinstance(obs, list | tuple) else [obs]
    try:
        rows = [np.asarray(part, np.float64) for part in parts]
    except (TypeError, ValueError) as error:
        raise InvalidInputError("obs", f"got {type(obs).__name__}, expected numbers: {error}") from error
    if isinstance(obs, list | tuple):
        if rows and all(row.ndim == 0 for row in rows):
            return [np.stack(rows)], True
    elif rows[0].ndim == 1:
        return rows, True
    elif rows[0].ndim == 2:
        rows = list(rows[0])
    if not rows or any(row.ndim != 1 for row in rows):
        shapes = ", ".join(str(list(row.shape)) for row in rows[:3]) or "no row"
        raise InvalidInputError("obs", f"got {shapes}, expected [columns], [rows, columns] or a list of [columns]")
    return rows, False


def padded(rows: Sequence[Row], tasks: npt.NDArray[np.int32], facts: AgentFacts) -> Floats:
    """Observations as the agent takes them.

    Args:
        rows: B rows, each of the columns of its task; zeros may follow.
        tasks: int32[B], rows of the task table.
        facts: The agent.

    Returns:
        float32[B, O], zero-padded.

    Raises:
        InvalidInputError: A row has other columns, or a number in it is not finite.
    """
    result = np.zeros((len(rows), facts.obs_width), np.float32)
    for at, (row, task) in enumerate(zip(rows, tasks, strict=True)):
        where = f"row {at}: " if len(rows) > 1 else ""
        _check_columns(row, int(task), facts, where)
        with np.errstate(over="ignore"):
            result[at, : len(row)] = row
        wrong = np.flatnonzero(~np.isfinite(result[at]))
        if wrong.size:
            column = wrong[0]
            raise InvalidInputError("obs", f"{where}column {column} is {row[column]}, expected a finite float32")
    return result


def _check_columns(row: Row, task: int, facts: AgentFacts, where: str) -> None:
    known, name = facts.obs_dims[task], facts.tasks[task]
    if not (known or 1) <= len(row) <= facts.obs_width:
        expected = known or f"1 to {facts.obs_width}"
        raise InvalidInputError(
            "obs", f"{where}got {len(row)} columns, expected {expected} for {name}, as its simulator gives them"
        )
    if known and np.any(row[known:]):
        raise InvalidInputError(
            "obs",
            f"{where}got {len(row)} columns with numbers behind the {known} that {name} has, expected zeros there",
        )


def checked_features(image: npt.ArrayLike | None, rows: int, single: bool, facts: AgentFacts) -> Floats | None:
    """Image features float32[B, X], or None for an agent that does not see.

    Raises:
        InvalidInputError: They are missing, not wanted, of another shape, or not finite.
    """
    width = facts.image_dim
    if image is None:
        if width:
            raise InvalidInputError("image", f"got none, but this agent sees: expected {width} columns of features")
        return None
    features = np.asarray(image, np.float32)
    features = features[None] if single and features.ndim == 1 else features
    if not width or features.shape != (rows, width):
        expected = f"[{rows}, {width}]" if width else "none: this agent does not see"
        raise InvalidInputError("image", f"got shape {list(features.shape)}, expected {expected}")
    if not np.isfinite(features).all():
        raise InvalidInputError("image", "got NaN or infinity, expected finite numbers")
    return features
