"""Episodes to write as recordings, and how to compare what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from newt.errors import InvalidInputError
from newt.recordings.formats import open_recording
from newt.recordings.importing import Recordings
from newt.recordings.mapping import RecordingMap
from newt.recordings.recorded import TaskShape
from newt.tasks.registry import UnknownTaskError, get_task
from newt.wire.episodes import Behaviour, Episode


def episodes(task: str, count: int, *, length: int = 6, images: int = 0, prefix: str = "e") -> list[Episode]:
    """Episodes with every field in use: odd ones terminated, of growing length."""
    facts, random = get_task(task), np.random.default_rng(len(task) + count)
    made = []
    for i in range(count):
        T = length + i
        made.append(
            Episode(
                f"{prefix}/{task}:{i}",
                task,
                random.standard_normal((T + 1, facts.obs_dim), np.float32),
                random.random((T, facts.action_dim), np.float32) * 2 - 1,
                random.random(T, np.float32) + 1,
                terminated=i % 2 == 1,
                success=(float("nan"), 1.0, 0.0)[i % 3],
                score=float(np.float32(0.1 * i)),
                behaviour=Behaviour.EXPERT,
                weights_versions=(i, 2**60 + i),
                seed=2**63 - 1 - i,
                image=random.random((T + 1, images), np.float32) if images else None,
                image_encoder="facebook/some-encoder" if images else "",
            )
        )
    return made


def same(one: Sequence[Episode], other: Sequence[Episode]) -> bool:
    """Whether two lists hold the same episodes to the bit, in the same order; an undefined success equals itself."""
    return [e.to_proto().SerializeToString(deterministic=True) for e in one] == [
        e.to_proto().SerializeToString(deterministic=True) for e in other
    ]


def shape_of(name: str) -> TaskShape:
    """A task of the registry, as the command looks it up."""
    try:
        task = get_task(name)
    except UnknownTaskError as error:
        raise InvalidInputError("task", str(error)) from error
    return TaskShape(name, task.obs_dim, task.action_dim)


def imported(
    *sources: Path | str, task: str | None = None, renamed: RecordingMap | None = None, take_all: bool = False
) -> list[Episode]:
    """The demonstrations that an import of these files stores."""
    readers = [open_recording(str(source)) for source in sources]
    recordings = Recordings(readers, shape_of, task=task, renamed=renamed, take_all=take_all)
    recordings.judge()
    return [episode for _, episode in recordings.episodes()]
