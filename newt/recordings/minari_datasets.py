"""Minari datasets, with Minari's own library: local ones alone, nothing is downloaded.

Columns are `observations`, `actions`, `rewards`, `terminations`, `truncations`, and what is in nested spaces and
infos by its path: `observations/desired_goal`, `infos/success`. An observation of nested spaces is flattened in the
space's own order, as Newt flattens that of an environment.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import METADATA_FILE_NAME, MinariStorage
from minari.storage.datasets_root_dir import get_dataset_path

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.recordings.columns import assemble
from newt.recordings.mapping import ActionBounds, Columns
from newt.recordings.recorded import Array, Facts, Recorded, names_told, one_width
from newt.wire.episodes import Episode

_DAMAGES = (OSError, KeyError, IndexError, AssertionError, TypeError, ValueError, AttributeError)
_FACTS, _TASK = "newt", "task"
_NAMESPACE = "newt"


class MinariReader:
    """A recording in a Minari dataset.

    Args:
        folder: The dataset's folder, or the id of one in Minari's own folder.
        by_id: It is an id.

    Raises:
        NotFoundError: There is no such dataset here.
        InvalidInputError: It does not tell its spaces, or its observations are no numbers.
        CorruptDataError: It is damaged.
    """

    def __init__(self, folder: str, *, by_id: bool = False) -> None:
        self.source = f"minari:{folder}" if by_id else folder
        root = get_dataset_path(folder) if by_id else Path(folder)
        data = root / "data" if (root / "data").is_dir() else root
        if not (data / METADATA_FILE_NAME).is_file():
            raise NotFoundError(f"no Minari dataset in {root}; download it first, with `minari download`")
        try:
            raw = json.loads((data / METADATA_FILE_NAME).read_text(encoding="utf-8"))
            told = [name for name in ("observation_space", "action_space") if raw.get(name)]
            # The library would else make the environment to ask it: other people's code.
            if len(told) < 2:
                raise InvalidInputError(
                    self.source, f"{METADATA_FILE_NAME} tells only {told} of its two spaces; write it anew with Minari"
                )
            self._storage = MinariStorage.read(data)
        except _DAMAGES as error:
            raise self._damaged(error) from error
        self.bounds = _bounds(self._storage.action_space)

    def episodes(self, columns: Columns) -> Iterator[Recorded]:
        """See `Reader.episodes`."""
        numbers = range(self._storage.total_episodes)
        told = iter(self._storage.get_episode_metadata(numbers))
        data = iter(self._storage.get_episodes(numbers))
        for number in numbers:
            try:
                metadata, episode = next(told), next(data)
                facts = Facts.from_json(str(metadata[_FACTS])) if _FACTS in metadata else None
            except StopIteration as error:
                raise self._damaged(ValueError(f"episode {number} is missing")) from error
            except _DAMAGES as error:
                raise self._damaged(error) from error
            yield assemble(
                _Fields(episode, self._storage, self.source, number),
                columns,
                where=f"episode {number}",
                source=self.source,
                task=str(metadata[_TASK]) if _TASK in metadata else None,
                facts=facts,
            )

    def _damaged(self, error: BaseException) -> CorruptDataError:
        why = f"{type(error).__name__}: {error}"
        return CorruptDataError(f"{self.source}: damaged or cut off ({why}); copy it anew from where it was made")


class _Fields:
    """The arrays of one episode."""

    def __init__(self, episode: Mapping[str, Any], storage: MinariStorage, source: str, number: int) -> None:
        self._source, self._number = source, number
        self._values = {**episode, "infos": episode.get("infos") or {}}
        self._spaces = {"observations": storage.observation_space, "actions": storage.action_space}

    @property
    def names(self) -> Sequence[str]:
        """Paths of all arrays, and of observations and actions as a whole."""
        return [name for name in _paths(self._values) if name != "id"]

    def get(self, name: str) -> Array | None:
        """See `Fields.get`."""
        first, *rest = name.split("/")
        value, space = self._values.get(first), self._spaces.get(first)
        for part in rest:
            if isinstance(space, spaces.Tuple) and isinstance(value, tuple) and part.isdigit():
                index = int(part)
                inside = index < len(value)
                value, space = (value[index], space.spaces[index]) if inside else (None, None)
            else:
                value = value.get(part) if isinstance(value, Mapping) else None
                space = space.spaces.get(part) if isinstance(space, spaces.Dict) else None
        if value is None:
            return None
        if first == "actions" and isinstance(space, spaces.Discrete):
            choices: Array = np.asarray(value) - space.start
            return choices
        if space is not None and first == "observations":
            return self._flat(value, space, name)
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            raise InvalidInputError(
                self._source,
                f"episode {self._number}: {name}: got {array.dtype}{list(array.shape)}, expected a row "
                "of numbers for each step",
            )
        return array

    def _flat(self, value: Any, space: spaces.Space[Any], name: str) -> Array:
        """A row per step, flattened as Newt flattens an environment's observations."""
        match space:
            case spaces.Box() | spaces.MultiBinary():
                rows = np.asarray(value)
                return rows.reshape(len(rows), -1)
            case spaces.Discrete():
                return _hot(np.asarray(value).reshape(-1, 1) - space.start, [int(space.n)])
            case spaces.MultiDiscrete():
                rows = np.asarray(value)
                return _hot(rows.reshape(len(rows), -1) - np.ravel(space.start), np.ravel(space.nvec).tolist())
            case spaces.Dict():
                parts = [self._flat(value[key], part, f"{name}/{key}") for key, part in space.spaces.items()]
                return np.concatenate(parts, axis=1)
            case spaces.Tuple():
                parts = [self._flat(value[i], part, f"{name}/{i}") for i, part in enumerate(space.spaces)]
                return np.concatenate(parts, axis=1)
        raise InvalidInputError(
            self._source,
            f"episode {self._number}: {name}: {type(space).__name__} is no space of numbers; name those that are under "
            f"[columns] of the file for --columns (there are {names_told(self.names)})",
        )


def write_minari(path: Path, episodes: Iterable[Episode]) -> int:
    """Writes episodes as a dataset folder, all of them or nothing; returns how many.

    Image features are not part of it. The dataset's id is the path below Minari's own folder, or the folder's name.

    Raises:
        InvalidInputError: Their widths differ.
        OSError: The folder cannot be written.
    """
    checked = one_width(episodes)
    first = next(checked, None)
    if first is None:
        return 0
    told: list[tuple[str, Facts]] = []

    def buffers() -> Iterator[EpisodeBuffer]:
        episode: Episode | None = first
        while episode is not None:
            T = episode.transitions
            last = np.arange(T) == T - 1
            told.append((episode.task, Facts.of(episode)._replace(image_encoder="")))
            yield EpisodeBuffer(
                id=len(told) - 1,
                seed=episode.seed,
                observations=episode.obs,
                actions=episode.action,
                rewards=episode.reward,
                terminations=last & episode.terminated,
                truncations=last & (not episode.terminated),
                infos={},
            )
            episode = next(checked, None)

    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-") as work:
        data = Path(work) / path.name / "data"
        data.parent.mkdir()
        storage = MinariStorage.new(
            data,
            spaces.Box(-np.inf, np.inf, first.obs.shape[1:], np.float32),
            spaces.Box(-1.0, 1.0, first.action.shape[1:], np.float32),
        )
        storage.update_metadata(
            {"dataset_id": _id_of(path), "minari_version": minari.__version__, "description": "Demonstrations of Newt."}
        )
        storage.update_episodes(buffers())
        storage.update_episode_metadata({_TASK: task, _FACTS: facts.to_json()} for task, facts in told)
        if path.exists():
            shutil.rmtree(path)
        data.parent.replace(path)
    return len(told)


def _id_of(path: Path) -> str:
    root = get_dataset_path().absolute()
    below = path.absolute().relative_to(root).as_posix() if path.absolute().is_relative_to(root) else None
    name = below or f"{_NAMESPACE}/{path.name}"
    plain = re.sub(r"[^\w/-]", "-", name)
    return plain if re.search(r"-v\d+$", plain) else f"{plain}-v0"


def _bounds(space: spaces.Space[Any]) -> ActionBounds | None:
    """What a Box says of its actions; bounds that are none are not told."""
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        return None
    low, high = np.ravel(space.low).tolist(), np.ravel(space.high).tolist()
    return (
        ActionBounds(low=tuple(low), high=tuple(high)) if all(a < b for a, b in zip(low, high, strict=True)) else None
    )


def _hot(chosen: Array, sizes: Sequence[int]) -> Array:
    """Columns of 0 and 1: [T, sum(sizes)] of the choices [T, len(sizes)]."""
    return np.concatenate(
        [(chosen[:, i, None] == np.arange(size)).astype(np.float32) for i, size in enumerate(sizes)], axis=1
    )


def _paths(values: Mapping[str, Any], above: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        path = f"{above}{name}"
        members = dict(enumerate(value)) if isinstance(value, tuple) else value
        if isinstance(members, Mapping):
            found += [path] if not above and members else []
            found += _paths({str(key): item for key, item in members.items()}, f"{path}/")
        elif value is not None:
            found.append(path)
    return found
