"""Which columns of a recording are which: by the names that are usual, or those of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from newt.errors import InvalidInputError
from newt.recordings.mapping import Columns
from newt.recordings.recorded import Array, Facts, Recorded, names_told
from newt.wire.episodes import Floats

USUAL: dict[str, tuple[str, ...]] = {
    "obs": ("obs", "observations", "observation", "observation.state"),
    "next_obs": ("next_obs", "next_observations"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards", "next.reward"),
    "terminated": ("terminated", "terminations", "terminals", "next.terminated"),
    "truncated": ("truncated", "truncations", "timeouts", "next.truncated"),
    "success": ("success", "infos/success", "next.success"),
    "score": ("score",),
    "task": ("task",),
}
"""What is looked for without a map, the first one first."""
FINAL_OBS = "final_obs"


class Fields(Protocol):
    """The arrays of one episode by name."""

    @property
    def names(self) -> Sequence[str]:
        """All names, for messages."""
        ...

    def get(self, name: str) -> Array | None:
        """An array, first axis time; None if there is none of that name.

        Raises:
            InvalidInputError: Not an array.
        """
        ...


def remedy_of(names: Sequence[str]) -> str:
    """How to name other columns than those that were found."""
    return f"name others under [columns] of the file for --columns (there are {names_told(names)})"


def chosen(role: str, columns: Columns, names: Sequence[str]) -> tuple[str, ...]:
    """Names of what plays a role: those of the map, or the usual one that is there; empty if none is."""
    given: tuple[str, ...] | None = getattr(columns, role)
    return given if given is not None else next(((name,) for name in USUAL[role] if name in names), ())


def assemble(
    fields: Fields,
    columns: Columns,
    *,
    where: str,
    source: str,
    task: str | None = None,
    facts: Facts | None = None,
    image: Floats | None = None,
) -> Recorded:
    """An episode of its arrays.

    Args:
        fields: The arrays.
        columns: Names that differ from the usual ones.
        where: The episode's name in messages.
        source: The file's.
        task: Its task, if the file tells.
        facts: What else the file tells.
        image: Its image features.

    Raises:
        InvalidInputError: A column is missing or makes no sense.
    """

    def read(role: str, required: bool = False) -> Array | None:
        names = chosen(role, columns, fields.names)
        found = [fields.get(name) for name in names]
        missing = [name for name, values in zip(names, found, strict=True) if values is None]
        if missing or (required and not names):
            usual = " or ".join(USUAL[role])
            wanted = f"expected {', '.join(missing)}" if missing else f"expected one that is called {usual}"
            raise InvalidInputError(source, f"{where}: {role}: no such column, {wanted}; {remedy_of(fields.names)}")
        arrays = [values for values in found if values is not None]
        if len(arrays) <= 1:
            return arrays[0] if arrays else None
        if len({len(values) for values in arrays}) != 1:
            raise InvalidInputError(
                source, f"{where}: {role}: {', '.join(names)} have {[len(v) for v in arrays]} rows, expected as many"
            )
        return np.concatenate([values.reshape(len(values), -1) for values in arrays], axis=1)

    def needed(role: str) -> Array:
        values = read(role, required=True)
        assert values is not None
        return values

    action, obs, reward = needed("action"), needed("obs"), needed("reward")
    final = fields.get(FINAL_OBS) if FINAL_OBS in fields.names and columns.next_obs is None else None
    following = None if final is not None else read("next_obs")
    last_obs = final[0] if final is not None else following[-1] if following is not None and len(following) else None
    ends = read("terminated")
    terminated = False
    if ends is not None and len(ends):
        flags = np.asarray(ends).reshape(len(ends), -1)[:, -1] != 0
        if len(flags) != len(action) or flags[:-1].any():
            raise InvalidInputError(
                source,
                f"{where}: terminated: expected one flag for each of {len(action)} actions, true in the last at most; "
                f"got {len(flags)} with {int(flags[:-1].sum())} before the last",
            )
        terminated = bool(flags[-1])
    facts = facts or Facts()
    success, score = _last(read("success")), _last(read("score"))
    facts = facts._replace(success=facts.success if success is None else success)
    facts = facts._replace(score=facts.score if score is None else score)
    return Recorded(where, obs, last_obs, action, reward, terminated, task, facts, image)


def _last(values: Array | None) -> float | None:
    if values is None or not np.size(values) or values.dtype.kind not in "fiub":
        return None
    return float(values.reshape(-1)[-1])
