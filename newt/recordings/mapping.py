"""The file that says which columns of a recording are which, where they have other names than expected.

[columns]
obs = ["obs/robot0_eef_pos", "obs/object"]  # joined in this order
reward = "rewards"

[actions]
low = -2.0  # or one number per column
high = 2.0

[tasks]
"Push the T to the goal" = "push-t"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from newt.errors import InvalidInputError, NotFoundError
from newt.runs.base import problems_of

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Numbers = Annotated[
    tuple[float, ...], BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,))
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Part):
    """Names in the recording, by what they are to us; several are joined in their order. None: as is usual."""

    obs: Names | None = None
    next_obs: Names | None = None
    action: Names | None = None
    reward: Names | None = None
    terminated: Names | None = None
    truncated: Names | None = None
    success: Names | None = None
    score: Names | None = None
    task: Names | None = None


class ActionBounds(_Part):
    """What the recorded actions lie between; they become [-1, 1]. One number, or one per column."""

    low: Numbers
    high: Numbers

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        try:
            low, high = np.broadcast_arrays(self.low, self.high)
        except ValueError as error:
            raise ValueError(f"low has {len(self.low)} numbers and high {len(self.high)}, expected as many") from error
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ValueError("expected finite numbers, low below high")
        return self


class RecordingMap(_Part):
    """The whole file.

    Attributes:
        columns: Names of columns.
        actions: Bounds of the recorded actions; None: those that the recording tells, or else [-1, 1].
        tasks: Our names of tasks by the recording's.
    """

    columns: Columns = Columns()
    actions: ActionBounds | None = None
    tasks: dict[str, str] = Field(default_factory=dict)


def read_map(path: Path) -> RecordingMap:
    """Reads the file.

    Raises:
        NotFoundError: No such file.
        InvalidInputError: It makes no sense; names the field.
    """
    try:
        return RecordingMap.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}") from error
    except ValidationError as error:
        raise InvalidInputError(str(path), problems_of(error)) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(str(path), f"cannot be read as TOML: {error}") from error
