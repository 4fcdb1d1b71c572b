"""Which format a recording has, by its name and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from newt.errors import InvalidInputError, NotFoundError
from newt.extras import require

if TYPE_CHECKING:
    from newt.recordings.recorded import Reader
    from newt.wire.episodes import Episode

PUBLISHED = ".pt"
EXPORTS = ("pt", "npz", "minari", "lerobot")
FOLDERS = {"minari": "data/metadata.json", "lerobot": "meta/info.json"}
"""Formats that are folders, each with a file that every such folder has."""
MINARI_ID = "minari:"


def open_recording(source: str) -> Reader:
    """Opens a recording: a file, a folder, or `minari:` and the id of a local dataset.

    Raises:
        NotFoundError: There is no such file or dataset.
        InvalidInputError: Nothing that we read.
        CorruptDataError: It is damaged.
        UnavailableError: The library that reads it is not installed.
    """
    path = Path(source)
    if path.suffix == ".npz":
        from newt.recordings.npz import NpzReader

        return NpzReader(path)
    if path.suffix in (".hdf5", ".h5"):
        require("h5py", "hdf5")
        from newt.recordings.hdf5 import Hdf5Reader

        return Hdf5Reader(path)
    if source.startswith(MINARI_ID) or any((path / place).is_file() for place in (FOLDERS["minari"], "metadata.json")):
        require("minari", "minari")
        from newt.recordings.minari_datasets import MinariReader

        return MinariReader(source.removeprefix(MINARI_ID), by_id=source.startswith(MINARI_ID))
    if (path / FOLDERS["lerobot"]).is_file():
        require("pyarrow", "lerobot")
        from newt.recordings.lerobot_folders import LeRobotReader

        return LeRobotReader(path)
    if not path.exists():
        raise NotFoundError(f"no file or folder {source}")
    raise InvalidInputError(source, "expected FILE.npz, .hdf5, .h5 or .pt, minari:ID, or a folder of Minari or LeRobot")


def writer_of(kind: str, steps_per_s: float) -> Callable[[Path, Iterable[Episode]], int]:
    """What writes episodes in a format (of `EXPORTS`): all of them or nothing; it returns how many.

    Args:
        kind: The format.
        steps_per_s: Steps that are a second, for a format with a clock.

    Raises:
        UnavailableError: The library that writes it is not installed.
    """
    if kind == "npz":
        from newt.recordings.npz import write_npz

        return write_npz
    if kind == "minari":
        require("minari", "minari")
        from newt.recordings.minari_datasets import write_minari

        return write_minari
    if kind == "lerobot":
        require("pyarrow", "lerobot")
        from newt.recordings.lerobot_writing import write_lerobot

        return partial(write_lerobot, steps_per_s=steps_per_s)
    return _write_published


def _write_published(path: Path, episodes: Iterable[Episode]) -> int:
    from newt.official.demos import write_demos

    whole = list(episodes)
    write_demos(path, whole)
    return len(whole)
