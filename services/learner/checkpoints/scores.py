"""How the checkpoints of a run scored: a small file beside them, written by whoever evaluates the run."""

from __future__ import annotations

from pathlib import Path

import structlog
from pydantic import BaseModel, Field, ValidationError

from newt.runs.record import EvaluationKind

NAME = "scores.json"

log = structlog.get_logger(__name__)


class CheckpointScore(BaseModel):
    """What an evaluation made of a checkpoint: of the one that was the newest when the evaluation began.

    Attributes:
        score: Mean over the tasks of the corrected score.
        kind: Of the evaluation.
        updates: Updates of the checkpoint; another file of the same name has others.
    """

    score: float = Field(allow_inf_nan=False)
    kind: EvaluationKind
    updates: int


class _Scores(BaseModel):
    checkpoints: dict[str, CheckpointScore] = Field(default_factory=dict)


def read_scores(directory: Path) -> dict[str, CheckpointScore]:
    """Scores by the checkpoint's name, of a run's folder; none if the file is missing or cannot be read."""
    path = directory / NAME
    try:
        return _Scores.model_validate_json(path.read_bytes()).checkpoints
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("scores_unreadable", path=str(path), error=str(error)[:300])
        return {}


def note_score(directory: Path, name: str, score: CheckpointScore) -> None:
    """Adds a checkpoint's score, in place of an older one. Raises OSError."""
    scores = _Scores(checkpoints={**read_scores(directory), name: score})
    partial = directory / f".{NAME}"
    partial.write_text(scores.model_dump_json(indent=1))
    partial.replace(directory / NAME)
