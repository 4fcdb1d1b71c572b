"""Recordings as demonstrations: checked whole, judged, and only then handed out.

The accept rule is that of all demonstrations (`newt.tasks.demo_rule`). It looks at the returns of all of a task's
episodes, so files are read twice: once to check and judge, once to hand out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from newt.errors import InvalidInputError
from newt.recordings.columns import USUAL
from newt.recordings.mapping import RecordingMap
from newt.recordings.recorded import Reader, TaskShape, to_episode
from newt.tasks.demo_rule import accepted, must_succeed, threshold
from newt.wire.episodes import Behaviour, Episode

_REMEDY = "name other columns under [columns] of the file for --columns"


@dataclass(frozen=True)
class Judged:
    """What becomes of an episode.

    Attributes:
        task: Its task.
        kept: Whether it becomes a demonstration.
        behaviour: What it is stored with.
    """

    task: str
    kept: bool
    behaviour: int


@dataclass
class _Seen:
    """Episodes of a task that are to be judged: number of reader and of episode, return, success."""

    places: list[tuple[int, int]] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)


class Recordings:
    """Recordings that are imported together.

    Args:
        readers: The recordings.
        lookup: Finds a task by its name; raises InvalidInputError for one that is unknown.
        task: The task of all episodes; None: what the recordings tell, or else the name of the file.
        renamed: What the recordings' columns and tasks are called.
        take_all: Keep episodes that the accept rule leaves out.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        lookup: Callable[[str], TaskShape],
        *,
        task: str | None = None,
        renamed: RecordingMap | None = None,
        take_all: bool = False,
    ) -> None:
        self._readers, self._task, self._take_all = readers, task, take_all
        self._map = renamed or RecordingMap()
        self._lookup, self._known = lookup, dict[str, TaskShape]()
        self._judged: dict[tuple[int, int], Judged] = {}

    def judge(self) -> dict[tuple[int, int], Judged]:
        """Reads everything, checks it, and says what becomes of each episode, by numbers of reader and episode.

        Raises:
            InvalidInputError: Something is wrong, or no episode of a task is accepted; names file, field and remedy.
            CorruptDataError: A file is damaged.
        """
        seen: dict[str, _Seen] = {}
        ids: set[tuple[int, str]] = set()
        for place, episode in self._all():
            if (place[0], episode.episode_id) in ids:
                raise InvalidInputError(
                    self._readers[place[0]].source,
                    f"episode {place[1]}: episode_id: got {episode.episode_id!r} again, expected another for each",
                )
            ids.add((place[0], episode.episode_id))
            if self._take_all or episode.behaviour == Behaviour.EXPERT:
                # Ours say so themselves: they were judged among more episodes than these.
                self._judged[place] = Judged(episode.task, True, episode.behaviour)
                continue
            of_task = seen.setdefault(episode.task, _Seen())
            of_task.places.append(place)
            of_task.returns.append(float(episode.reward.sum(dtype=np.float64)))
            of_task.successes.append(episode.success)
        for task, found in seen.items():
            good = accepted(task, found.returns, found.successes)
            if not good.any() and not any(judged.task == task for judged in self._judged.values()):
                raise self._none_of(task, found)
            for place, kept in zip(found.places, good.tolist(), strict=True):
                self._judged[place] = Judged(task, kept, Behaviour.EXPERT)
        for number, reader in enumerate(self._readers):
            if not any(place[0] == number for place in self._judged):
                raise InvalidInputError(reader.source, "got no episode, expected one at least")
        return self._judged

    def episodes(self) -> Iterator[tuple[int, Episode]]:
        """The demonstrations, each with the number of its reader; `judge` first."""
        for place, episode in self._all():
            judged = self._judged.get(place)
            if judged is None:
                raise InvalidInputError(
                    self._readers[place[0]].source, "has changed while it was read; import it again"
                )
            if judged.kept:
                yield place[0], replace(episode, behaviour=judged.behaviour)

    def _all(self) -> Iterator[tuple[tuple[int, int], Episode]]:
        for number, reader in enumerate(self._readers):
            bounds = self._map.actions or reader.bounds
            for position, recorded in enumerate(reader.episodes(self._map.columns)):
                task = self._task_of(recorded.task, reader.source, recorded.where)
                yield (
                    (number, position),
                    to_episode(recorded, position, task, bounds, reader.source, _REMEDY),
                )

    def _task_of(self, told: str | None, source: str, where: str) -> TaskShape:
        name = None if told is None else self._map.tasks.get(told, told)
        if name is not None and self._task is not None and name != self._task:
            renamed = f' or put "{told}" = "{self._task}" under [tasks] of the file for --columns'
            raise InvalidInputError(
                source, f"{where}: task: the file says {told!r}, --task says {self._task!r}; leave --task out,{renamed}"
            )
        name = name or self._task or Path(source).stem
        if name not in self._known:
            try:
                self._known[name] = self._lookup(name)
            except InvalidInputError as error:
                raise InvalidInputError(
                    source,
                    f"{where}: {error}; say which with --task, or under [tasks] of the file for --columns: "
                    f'"{told or name}" = "TASK"',
                ) from error
        return self._known[name]

    def _none_of(self, task: str, found: _Seen) -> InvalidInputError:
        source = self._readers[found.places[0][0]].source
        wanted = f"exceeds the return {threshold(found.returns):g}"
        remedy = "--all-episodes keeps them all"
        if must_succeed(task):
            wanted += " and ends in success"
            if all(math.isnan(success) for success in found.successes):
                usual = " or ".join(USUAL["success"])
                remedy = f"no success is told, expected a column {usual}, or another one's name in --columns; {remedy}"
        return InvalidInputError(
            source, f"{task}: none of {len(found.returns)} episodes is good enough: none {wanted}; {remedy}"
        )
