"""A plain npz: arrays with the steps of all episodes one behind the other.

| Key | Type | |
|---|---|---|
| `obs` | [N, O] | what was seen before each of N steps |
| `action` | [N, A] | in [-1, 1], or [N] whole numbers for a choice |
| `reward` | [N] | |
| `terminated`, `truncated` | bool[N] | true in the last step of an episode: the task ended, or it was cut off |
| `episode_ends` | int[E] | number of steps up to each episode's end; instead of `truncated` |
| `final_obs` | [E, O] | what each episode's last action led to; or `next_obs`, [N, O]. Without, that step is left out |
| `task` | text, or text[E] | |
| `success`, `score` | [E] or [N] | at the last step |

Exports have more, each [E]: `episode_id`, `behaviour`, `weights_versions` [E, 2], `seed`, `image_encoder`; and with
image features `image` [N, X] and `final_image` [E, X].
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from newt.errors import InvalidInputError
from newt.recordings.columns import FINAL_OBS, USUAL, assemble, chosen, remedy_of
from newt.recordings.mapping import ActionBounds, Columns
from newt.recordings.npy_streams import NpyStream, NpzWriter, reading
from newt.recordings.recorded import Array, Facts, Recorded, facts_told, one_width, text_of
from newt.wire.episodes import Episode

_ENDS = "episode_ends"
_FACTS = ("episode_id", "success", "score", "behaviour", "weights_versions", "seed", "image_encoder")
_ALWAYS_BY_EPISODE = (FINAL_OBS, "final_image")


class NpzReader:
    """A recording in an npz archive, compressed or not.

    Args:
        path: The file.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: No archive, or a damaged one.
    """

    bounds: ActionBounds | None = None

    def __init__(self, path: Path) -> None:
        self.source, self._path = str(path), path
        with reading(self.source), zipfile.ZipFile(path) as archive:
            self._names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]

    def episodes(self, columns: Columns) -> Iterator[Recorded]:
        """See `Reader.episodes`."""
        with reading(self.source):
            archive = zipfile.ZipFile(self._path)
        with archive:
            ends = self._ends(archive, columns)
            arrays = _Arrays(archive, self._names, self.source, columns, len(ends))
            start = 0
            for number, end in enumerate(ends.tolist()):
                arrays.begin(end - start)
                facts = facts_told({name: value[0] for name in _FACTS if (value := arrays.one(name)) is not None})
                task = arrays.task()
                yield assemble(
                    arrays,
                    columns,
                    where=f"episode {number}",
                    source=self.source,
                    task=None if task is None else text_of(task),
                    facts=facts,
                    image=arrays.image(),
                )
                start = end
            arrays.finish(start)

    def _ends(self, archive: zipfile.ZipFile, columns: Columns) -> Array:
        """int64[E], the number of steps up to each end."""
        if _ENDS in self._names:
            ends = NpyStream(archive, _ENDS, self.source).all().reshape(-1)
            if ends.dtype.kind not in "iu" or not len(ends) or (np.diff(ends.astype(np.int64), prepend=0) < 1).any():
                raise InvalidInputError(
                    self.source, f"{_ENDS}: expected growing whole numbers from 1, got {ends[:8].tolist()}"
                )
            return ends.astype(np.int64)
        names = [name for role in ("terminated", "truncated") for name in chosen(role, columns, self._names)]
        if not names:
            raise InvalidInputError(
                self.source,
                f"{_ENDS}: nothing tells where episodes end, expected {_ENDS}, or terminated and truncated; "
                f"{remedy_of(self._names)}",
            )
        flags: Array = np.zeros(0, np.bool_)
        for name in names:
            if name not in self._names:
                raise InvalidInputError(self.source, f"{name}: no such column; {remedy_of(self._names)}")
            values = NpyStream(archive, name, self.source).all().reshape(-1) != 0
            if len(flags) not in (0, len(values)):
                raise InvalidInputError(self.source, f"{name}: got {len(values)} rows, expected {len(flags)}")
            flags = values | flags if len(flags) else values
        if not len(flags) or not flags[-1]:
            raise InvalidInputError(
                self.source,
                f"{' and '.join(names)}: the last of {len(flags)} steps ends no episode, so the file may be cut off; "
                "set truncated in it, or leave the unfinished episode out",
            )
        return np.flatnonzero(flags) + 1


class _Arrays:
    """The arrays of one episode after the other; each is opened when it is first asked for."""

    def __init__(
        self, archive: zipfile.ZipFile, names: Sequence[str], source: str, columns: Columns, episodes: int
    ) -> None:
        self._archive, self.names, self._source, self._episodes = archive, names, source, episodes
        self._streams: dict[str, NpyStream] = {}
        self._now: dict[str, Array] = {}
        self._steps = 0
        self._task = next(iter(chosen("task", columns, names)), None)
        self._constant: Array | None = None

    def begin(self, steps: int) -> None:
        """Goes on to an episode of so many steps."""
        self._steps, self._now = steps, {}

    def get(self, name: str) -> Array | None:
        """See `Fields.get`."""
        if name not in self.names:
            return None
        if name not in self._now:
            stream = self._stream(name)
            by_episode = stream.shape[:1] == (self._episodes,)
            if name in _ALWAYS_BY_EPISODE and not by_episode:
                raise InvalidInputError(
                    self._source,
                    f"{name}: got {list(stream.shape)}, expected a row for each of {self._episodes} episodes",
                )
            self._now[name] = stream.take(1 if by_episode else self._steps)
        return self._now[name]

    def one(self, name: str) -> Array | None:
        """What is told once per episode, [1, ...]; None if it is told by step, or not at all."""
        if name not in self.names or self._stream(name).shape[:1] != (self._episodes,):
            return None
        return self.get(name)

    def task(self) -> Array | None:
        """The task, if it is told."""
        if self._task is None or self._task not in self.names:
            return None
        stream = self._stream(self._task)
        if stream.shape in ((), (1,)):
            self._constant = stream.all() if self._constant is None else self._constant
            return self._constant
        if self._task not in self._now:
            self._now[self._task] = stream.take(1 if stream.shape[0] == self._episodes else self._steps)
        return self._now[self._task][-1:]

    def image(self) -> Array | None:
        """float32[T+1, X], if both parts are there."""
        steps, final = (self.get(name) for name in ("image", "final_image"))
        return None if steps is None or final is None else np.concatenate([steps, final])

    def finish(self, steps: int) -> None:
        """Looks at what is left when all episodes were read."""
        for name, stream in self._streams.items():
            rows = stream.shape[0] if stream.shape else 1
            if stream.taken != rows:
                raise InvalidInputError(
                    self._source, f"{name}: got {rows} rows, expected {steps}, as many as there are steps up to the end"
                )
            stream.finish()

    def _stream(self, name: str) -> NpyStream:
        if name not in self._streams:
            self._streams[name] = NpyStream(self._archive, name, self._source)
        return self._streams[name]


def write_npz(path: Path, episodes: Iterable[Episode]) -> int:
    """Writes episodes, all of them or nothing; returns how many.

    Raises:
        InvalidInputError: Their widths differ, or some have image features and others not.
        OSError: The file cannot be written.
    """
    writer = NpzWriter(path)
    told: list[tuple[str, Facts]] = []
    try:
        for episode in one_width(episodes):
            T = episode.transitions
            last = np.arange(T) == T - 1
            writer.add("obs", episode.obs[:-1])
            writer.add("action", episode.action)
            writer.add("reward", episode.reward)
            writer.add("terminated", last & episode.terminated)
            writer.add("truncated", last & (not episode.terminated))
            writer.add(FINAL_OBS, episode.obs[-1:])
            if episode.image is not None:
                writer.add("image", episode.image[:-1])
                writer.add("final_image", episode.image[-1:])
            told.append((episode.task, Facts.of(episode)))
        if told:
            writer.save(_small(told))
    finally:
        writer.close()
    return len(told)


def _small(told: Sequence[tuple[str, Facts]]) -> dict[str, Array]:
    facts = [found for _, found in told]
    return {
        USUAL["task"][0]: np.array([task for task, _ in told]),
        "episode_id": np.array([one.episode_id for one in facts]),
        "success": np.array([one.success for one in facts], np.float32),
        "score": np.array([one.score for one in facts], np.float32),
        "behaviour": np.array([one.behaviour for one in facts], np.int32),
        "weights_versions": np.array([one.weights_versions for one in facts], np.uint64),
        "seed": np.array([one.seed for one in facts], np.uint64),
        "image_encoder": np.array([one.image_encoder for one in facts]),
    }
