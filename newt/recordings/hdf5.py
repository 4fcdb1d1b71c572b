"""HDF5 with a group for each episode: robomimic's files, ManiSkill's, and what is like them.

    data/demo_0/actions [T, A], rewards [T], obs/NAME [T, ...], next_obs/NAME [T, ...]       (robomimic)
    traj_0/actions [T, A], rewards [T], obs [T+1, O], terminated [T], success [T]            (ManiSkill)

Columns are called by their paths within the episode: `obs/robot0_eef_pos`. A file or an episode may name its task in an
attribute `task`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py

from newt.errors import CorruptDataError, InvalidInputError
from newt.recordings.columns import assemble
from newt.recordings.mapping import ActionBounds, Columns
from newt.recordings.npy_streams import reading
from newt.recordings.recorded import Array, Recorded, names_told, text_of

_ROOT = "data"
_TASK = "task"


class Hdf5Reader:
    """A recording in an HDF5 file.

    Args:
        path: The file.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: No HDF5, or cut off.
    """

    bounds: ActionBounds | None = None

    def __init__(self, path: Path) -> None:
        self.source, self._path = str(path), path
        self._open().close()

    def episodes(self, columns: Columns) -> Iterator[Recorded]:
        """See `Reader.episodes`."""
        with self._open() as file:
            root = file[_ROOT] if isinstance(file.get(_ROOT), h5py.Group) else file
            names = [name for name in root if isinstance(root.get(name), h5py.Group)]
            if not names:
                raise InvalidInputError(
                    self.source,
                    f"expected a group for each episode, in data or at the top; it has {names_told(list(file))}",
                )
            for name in sorted(names, key=_natural):
                group = root[name]
                task = next((part.attrs[_TASK] for part in (group, root, file) if _TASK in part.attrs), None)
                yield assemble(
                    _Group(group, self.source),
                    columns,
                    where=group.name.strip("/"),
                    source=self.source,
                    task=None if task is None else text_of(task),
                )

    def _open(self) -> h5py.File:
        with reading(self.source):
            return h5py.File(self._path, "r")


class _Group:
    """The arrays of one episode."""

    def __init__(self, group: h5py.Group, source: str) -> None:
        self._group, self._source = group, source

    @cached_property
    def names(self) -> Sequence[str]:
        """Paths of all arrays."""
        found: list[str] = []
        self._group.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return [*found, *(name for name, item in self._group.items() if isinstance(item, h5py.Group))]

    def get(self, name: str) -> Array | None:
        """See `Fields.get`."""
        item: Any = self._group.get(name)
        if item is None:
            return None
        if isinstance(item, h5py.Group):
            raise InvalidInputError(
                self._source,
                f"{self._group.name.strip('/')}: {name}: got a group of {names_told(list(item))}; say which, and "
                f'in which order, under [columns] of the file for --columns: ["{name}/...", ...]',
            )
        try:
            values: Array = item[()]
        except (OSError, ValueError, TypeError) as error:
            raise CorruptDataError(f"{self._source}: {item.name}: damaged or cut off ({error})") from error
        if getattr(values, "ndim", 0) == 0:
            raise InvalidInputError(self._source, f"{item.name}: got one value, expected a row for each step")
        return values


def _natural(name: str) -> list[int | str]:
    """Sorts demo_2 before demo_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
