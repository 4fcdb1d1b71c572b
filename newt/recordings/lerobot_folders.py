"""LeRobot datasets of version 3, a folder of parquet files; read without LeRobot's library, whose pins fight ours.

    meta/info.json, meta/tasks.parquet, meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet

Columns are the dataset's features: `observation.state`, `action`, `next.reward`, ... Pictures and videos are not read.
LeRobot stores no observation behind the last action; our exports do, beside each episode.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newt.errors import CorruptDataError, InvalidInputError
from newt.recordings.columns import FINAL_OBS, USUAL, assemble, chosen
from newt.recordings.mapping import ActionBounds, Columns
from newt.recordings.npy_streams import reading
from newt.recordings.recorded import Array, Facts, Recorded

INFO = "meta/info.json"
EPISODES = "meta/episodes"
FACTS_COLUMN, FINAL_COLUMN = "newt.facts", "newt.final_obs"

_ROWS_AT_ONCE = 4096
_PICTURES = ("video", "image")
_TOLD = ("episode_index", "tasks", "length", "data/chunk_index", "data/file_index")


class LeRobotReader:
    """A recording in a LeRobot folder.

    Args:
        folder: The dataset's folder.

    Raises:
        InvalidInputError: Another version of the format.
        CorruptDataError: It is damaged.
    """

    bounds: ActionBounds | None = None

    def __init__(self, folder: Path) -> None:
        self.source, self._folder = str(folder), folder
        with reading(f"{self.source}/{INFO}"):
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        version = str(info.get("codebase_version")) if isinstance(info, dict) else "nothing"
        if not version.startswith("v3."):
            raise InvalidInputError(
                f"{self.source}/{INFO}",
                f"codebase_version: got {version}, expected v3.0; convert it with LeRobot's own tool for that",
            )
        try:
            self._path, self._total = str(info["data_path"]), int(info["total_episodes"])
            self._widths = {
                str(name): int(np.prod(feature["shape"], dtype=np.int64))
                for name, feature in info["features"].items()
                if feature["dtype"] not in (*_PICTURES, "string")
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptDataError(
                f"{self.source}/{INFO}: expected data_path, total_episodes and features with shape and dtype "
                f"({type(error).__name__}: {error}); copy it anew"
            ) from error

    def episodes(self, columns: Columns) -> Iterator[Recorded]:
        """See `Reader.episodes`."""
        wanted = {name for role in USUAL for name in chosen(role, columns, list(self._widths))}
        stream: _Rows | None = None
        count = 0
        for episode in self._listed():
            place = (int(episode["data/chunk_index"]), int(episode["data/file_index"]))
            number, length = int(episode["episode_index"]), int(episode["length"])
            if stream is None or stream.place != place:
                if stream is not None:
                    stream.finish()
                try:
                    path = self._folder / self._path.format(chunk_index=place[0], file_index=place[1])
                except (KeyError, IndexError, ValueError) as error:
                    raise CorruptDataError(f"{self.source}/{INFO}: data_path {self._path!r}: {error}") from error
                stream = _Rows(path, place, sorted(wanted & set(self._widths)), self._widths)
            arrays = stream.take(number, length)
            facts, final = episode.get(FACTS_COLUMN), episode.get(FINAL_COLUMN)
            if final is not None:
                arrays[FINAL_OBS] = np.asarray([final], np.float32)
            tasks = list(dict.fromkeys(episode["tasks"] or []))
            if len(tasks) > 1:
                raise InvalidInputError(
                    self.source, f"episode {number}: task: got {len(tasks)} tasks ({tasks[0]!r}, ...), expected one"
                )
            yield assemble(
                _Fields(arrays, list(self._widths) + ([FINAL_OBS] if final is not None else [])),
                columns,
                where=f"episode {number}",
                source=self.source,
                task=str(tasks[0]) if tasks else None,
                facts=self._facts(facts, number),
            )
            count += 1
        if stream is not None:
            stream.finish()
        if count != self._total:
            raise CorruptDataError(
                f"{self.source}: {EPISODES} lists {count} episodes, {INFO} says {self._total}: copy it anew"
            )

    def _listed(self) -> Iterator[dict[str, Any]]:
        """What `meta/episodes` tells of each episode, in their order."""
        for path in sorted((self._folder / EPISODES).glob("*/*.parquet")):
            with reading(str(path)), pq.ParquetFile(path) as file:
                names = set(file.schema_arrow.names)
                missing = [name for name in _TOLD if name not in names]
                if missing:
                    raise InvalidInputError(str(path), f"expected the columns {', '.join(missing)} of LeRobot v3")
                ours = [name for name in (FACTS_COLUMN, FINAL_COLUMN) if name in names]
                listed: list[dict[str, Any]] = []
                for batch in file.iter_batches(256, columns=[*_TOLD, *ours]):
                    listed += batch.to_pylist()
            yield from listed

    def _facts(self, text: Any, number: int) -> Facts | None:
        try:
            return None if text is None else Facts.from_json(str(text))
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptDataError(f"{self.source}: episode {number}: {FACTS_COLUMN}: {error}") from error


class _Fields:
    """The arrays of one episode."""

    def __init__(self, arrays: Mapping[str, Array], names: Sequence[str]) -> None:
        self._arrays, self.names = arrays, names

    def get(self, name: str) -> Array | None:
        """See `Fields.get`."""
        return self._arrays.get(name)


class _Rows:
    """The frames of one data file, from its first to its last."""

    def __init__(self, path: Path, place: tuple[int, int], names: Sequence[str], widths: Mapping[str, int]) -> None:
        self.place, self._path, self._widths = place, path, widths
        self._names = list(names)
        with reading(str(path)):
            self._file = pq.ParquetFile(path)
            there = set(self._file.schema_arrow.names)
            missing = [name for name in (*names, "episode_index") if name not in there]
            if missing:
                raise InvalidInputError(str(path), f"no column {missing[0]}, which {INFO} tells of")
            columns = list(dict.fromkeys([*names, "episode_index"]))
            self._batches = self._file.iter_batches(_ROWS_AT_ONCE, columns=columns)
        self._held: pa.Table | None = None

    def take(self, episode: int, rows: int) -> dict[str, Array]:
        """The next frames, which must be those of an episode."""
        parts: list[pa.Table] = []
        left = rows
        while left > 0:
            if self._held is None or not self._held.num_rows:
                with reading(str(self._path)):
                    batch = next(self._batches, None)
                if batch is None:
                    raise CorruptDataError(
                        f"{self._path}: ends {left} frames before episode {episode} does: it is cut off; copy it anew"
                    )
                self._held = pa.Table.from_batches([batch])
            parts.append(self._held.slice(0, left))
            self._held = self._held.slice(left)
            left -= parts[-1].num_rows
        if not parts:
            raise InvalidInputError(str(self._path), f"episode {episode}: got 0 frames, expected one at least")
        table = pa.concat_tables(parts)
        if set(table["episode_index"].to_pylist()) != {episode}:
            raise CorruptDataError(f"{self._path}: has frames of other episodes where {episode} belongs; copy it anew")
        return {name: self._array(table[name].combine_chunks(), name, rows) for name in self._names}

    def finish(self) -> None:
        """Refuses frames that belong to no episode."""
        with reading(str(self._path)):
            more = (self._held is not None and self._held.num_rows) or next(self._batches, None) is not None
            self._file.close()
        if more:
            raise CorruptDataError(f"{self._path}: has frames that {EPISODES} does not list; copy the folder anew")

    def _array(self, values: Any, name: str, rows: int) -> Array:
        """[rows, ...] of a column of numbers or lists of them."""
        while isinstance(values, pa.ChunkedArray) or pa.types.is_list(values.type) or _is_list(values.type):
            if values.null_count:
                break
            values = values.flatten()
        if values.null_count or len(values) != rows * self._widths[name]:
            raise InvalidInputError(
                str(self._path),
                f"{name}: got {len(values)} numbers in {rows} frames, {values.null_count} of them missing; "
                f"expected {self._widths[name]} in each",
            )
        array: Array = values.to_numpy(zero_copy_only=False)
        return array.reshape(rows, -1) if self._widths[name] > 1 else array


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind))
