"""Writing LeRobot datasets of version 3 (see `lerobot_folders`)."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newt.recordings.lerobot_folders import EPISODES, FACTS_COLUMN, FINAL_COLUMN, INFO
from newt.recordings.recorded import Array, Facts, one_width
from newt.wire.episodes import Episode

_PATH = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_FILES_PER_CHUNK = 1000
_FILE_BYTES = 100_000_000


def write_lerobot(path: Path, episodes: Iterable[Episode], steps_per_s: float) -> int:
    """Writes episodes as a dataset folder, all of them or nothing; returns how many.

    Image features are not part of it. A dataset has one clock, of whole frames per second: `steps_per_s`, rounded.

    Raises:
        InvalidInputError: Their widths differ.
        OSError: The folder cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-") as work:
        folder = Path(work) / path.name
        writer = _Writer(folder, steps_per_s)
        try:
            for episode in one_width(episodes):
                writer.add(episode)
        finally:
            writer.close()
        if writer.episodes:
            writer.finish()
            if path.exists():
                shutil.rmtree(path)
            folder.replace(path)
    return len(writer.episodes)


class _Writer:
    """A dataset that grows by an episode at a time."""

    def __init__(self, folder: Path, steps_per_s: float) -> None:
        self._folder, self._fps = folder, max(1, round(steps_per_s))
        self.episodes: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._frames = self._file_frames = self._files = 0
        self._file: pq.ParquetWriter | None = None
        self._widths = (0, 0)
        self._statistics: dict[str, _Statistics] = {}

    def add(self, episode: Episode) -> None:
        """Writes its frames, and keeps what is told beside them."""
        T, number = episode.transitions, len(self.episodes)
        self._widths = (episode.obs.shape[1], episode.action.shape[1])
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        last = np.arange(T) == T - 1
        arrays = {"observation.state": episode.obs[:-1], "action": episode.action, "next.reward": episode.reward}
        for name, values in arrays.items():
            self._statistics.setdefault(name, _Statistics()).add(values)
        frames = pa.table(
            {
                **{name: _column(values) for name, values in arrays.items()},
                "next.done": last,
                "next.terminated": last & episode.terminated,
                "timestamp": (np.arange(T) / self._fps).astype(np.float32),
                "frame_index": np.arange(T),
                "episode_index": np.full(T, number),
                "index": np.arange(self._frames, self._frames + T),
                "task_index": np.full(T, task),
            }
        )
        if self._file is not None and self._file_frames * 4 * sum(self._widths) > _FILE_BYTES:
            self.close()
        if self._file is None:
            place = self._folder / "data" / _place(self._files)
            place.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._file_frames = pq.ParquetWriter(place, frames.schema), 0
            self._files += 1
        self._file.write_table(frames)
        chunk, file = divmod(self._files - 1, _FILES_PER_CHUNK)
        self.episodes.append(
            {
                "episode_index": number,
                "tasks": [episode.task],
                "length": T,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + T,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                FACTS_COLUMN: Facts.of(episode)._replace(image_encoder="").to_json(),
                FINAL_COLUMN: episode.obs[-1].tolist(),
            }
        )
        self._frames, self._file_frames = self._frames + T, self._file_frames + T

    def close(self) -> None:
        """Ends the data file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """Writes what is told of the whole."""
        told = self._folder / EPISODES / _place(0)
        told.parent.mkdir(parents=True)
        columns = pa.Table.from_pylist(self.episodes)
        position = columns.schema.get_field_index(FINAL_COLUMN)
        pq.write_table(
            columns.set_column(position, FINAL_COLUMN, columns[FINAL_COLUMN].cast(pa.list_(pa.float32()))), told
        )
        pq.write_table(_tasks(list(self._tasks)), self._folder / "meta" / "tasks.parquet")
        statistics = {name: found.told() for name, found in self._statistics.items()}
        (self._folder / "meta" / "stats.json").write_text(json.dumps(statistics, indent=1), encoding="utf-8")
        (self._folder / INFO).write_text(json.dumps(self._info(), indent=1), encoding="utf-8")

    def _info(self) -> dict[str, Any]:
        obs_dim, action_dim = self._widths

        def feature(dtype: str, width: int, name: str | None = None) -> dict[str, Any]:
            names = [f"{name}_{i}" for i in range(width)] if name else None
            return {"dtype": dtype, "shape": [width], "names": names}

        whole = ("frame_index", "episode_index", "index", "task_index")
        return {
            "codebase_version": "v3.0",
            "robot_type": "newt",
            "total_episodes": len(self.episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _FILES_PER_CHUNK,
            "data_files_size_in_mb": _FILE_BYTES // 1_000_000,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self.episodes)}"},
            "data_path": f"data/{_PATH}",
            "video_path": None,
            "features": {
                "observation.state": feature("float32", obs_dim, "state"),
                "action": feature("float32", action_dim, "action"),
                "next.reward": feature("float32", 1),
                "next.done": feature("bool", 1),
                "next.terminated": feature("bool", 1),
                "timestamp": feature("float32", 1),
                **{name: feature("int64", 1) for name in whole},
            },
        }


class _Statistics:
    """Running statistics of a feature, column by column."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._squares = np.zeros(1)
        self._low, self._high = np.full(1, np.inf), np.full(1, -np.inf)

    def add(self, values: Array) -> None:
        """More rows."""
        rows = values.reshape(len(values), -1).astype(np.float64)
        self._count += len(rows)
        self._sum, self._squares = self._sum + rows.sum(0), self._squares + (rows**2).sum(0)
        self._low, self._high = np.minimum(self._low, rows.min(0)), np.maximum(self._high, rows.max(0))

    def told(self) -> dict[str, list[float]]:
        """As LeRobot has them."""
        mean = self._sum / self._count
        std = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))
        numbers = {"min": self._low, "max": self._high, "mean": mean, "std": std, "count": np.array([self._count])}
        return {name: values.tolist() for name, values in numbers.items()}


def _place(number: int) -> str:
    chunk, file = divmod(number, _FILES_PER_CHUNK)
    return _PATH.format(chunk_index=chunk, file_index=file)


def _column(values: Array) -> Any:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _tasks(names: list[str]) -> pa.Table:
    """The table of tasks, whose index is their text: as pandas writes it, which LeRobot reads it with."""
    table = pa.table({"task_index": pa.array(range(len(names)), pa.int64()), "task": names})

    def column(name: str, kind: str, numpy_type: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}

    told = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(told)})
