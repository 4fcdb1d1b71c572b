"""Arrays of an npz archive, read row by row, and archives written column by column: no array is ever whole in memory.

Never pickled: an array of objects is refused.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.recordings.recorded import Array

_DAMAGES = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@contextmanager
def reading(source: str) -> Iterator[None]:
    """What goes wrong within is damage to the file.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: It is damaged or cut off.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {source}") from error
    except _DAMAGES as error:
        raise CorruptDataError(
            f"{source}: damaged or cut off ({error}); copy it anew from where it was made"
        ) from error


class NpyStream:
    """One array of an archive, taken from its first row to its last.

    Attributes:
        shape: Shape of the whole array.
        dtype: Its dtype.

    Args:
        archive: The archive.
        name: Name of the array.
        source: The file, for messages.

    Raises:
        InvalidInputError: Its layout or dtype cannot be read row by row.
        CorruptDataError: It is damaged.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str, source: str) -> None:
        self._source, self._name = source, name
        with reading(source):
            self._file: IO[bytes] = archive.open(f"{name}.npy")
            version = npy.read_magic(self._file)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = header(self._file)
        self.shape: tuple[int, ...] = tuple(shape)
        self.dtype: np.dtype[Any] = dtype
        if dtype.hasobject or dtype.kind not in "fiubUS":
            raise InvalidInputError(source, f"{name}: got dtype {dtype}, expected numbers, flags or texts")
        if fortran and len(shape) > 1:
            raise InvalidInputError(
                source, f"{name}: got columns one after the other (Fortran order); save np.ascontiguousarray of it"
            )
        self.taken = 0

    def take(self, rows: int) -> Array:
        """The next rows: [rows, ...]; less are an error. A scalar is one row."""
        shape = (rows, *self.shape[1:])
        size = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        if size > self._left():
            raise InvalidInputError(
                self._source, f"{self._name}: got {self.shape[0] if self.shape else 1} rows, expected more"
            )
        with reading(self._source):
            data = self._file.read(size)
            if len(data) != size:
                raise EOFError(f"{self._name} ends early")
        self.taken += rows
        return np.frombuffer(data, self.dtype).reshape(shape)

    def all(self) -> Array:
        """The whole array; for small ones."""
        return self.take(self.shape[0] if self.shape else 1)

    def finish(self) -> None:
        """Reads on to the end, where the archive's checksum is compared."""
        with reading(self._source):
            while self._file.read(1 << 20):
                pass

    def _left(self) -> int:
        rows = self.shape[0] if self.shape else 1
        return int(np.prod((rows - self.taken, *self.shape[1:]), dtype=np.int64)) * self.dtype.itemsize


class NpzWriter:
    """Writes an archive, all of it or nothing, from rows that come piece by piece.

    Args:
        path: File to create or replace.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-")
        self._columns: dict[str, tuple[IO[bytes], np.dtype[Any], tuple[int, ...]]] = {}
        self._rows: dict[str, int] = {}

    def add(self, name: str, rows: Array) -> None:
        """More rows of a column: [n, ...]; every piece has the first one's dtype and width."""
        if name not in self._columns:
            file: IO[bytes] = (Path(self._folder.name) / str(len(self._columns))).open("w+b")
            self._columns[name], self._rows[name] = (file, rows.dtype, rows.shape[1:]), 0
        file, dtype, width = self._columns[name]
        if rows.dtype != dtype or rows.shape[1:] != width:
            raise ValueError(f"{name}: got {rows.dtype}{rows.shape[1:]}, expected {dtype}{width}")
        file.write(np.ascontiguousarray(rows).tobytes())
        self._rows[name] += len(rows)

    def save(self, small: Mapping[str, Array]) -> None:
        """Puts the columns and some small arrays together, and the file in its place."""
        partial = Path(self._folder.name) / "whole.npz"
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, (file, dtype, width) in self._columns.items():
                header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False}
                with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                    npy.write_array_header_1_0(out, {**header, "shape": (self._rows[name], *width)})
                    file.seek(0)
                    shutil.copyfileobj(file, out, 1 << 20)
            for name, array in small.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                    npy.write_array(out, array, allow_pickle=False)
        partial.replace(self._path)

    def close(self) -> None:
        """Removes what is left of the work."""
        for file, _, _ in self._columns.values():
            file.close()
        self._folder.cleanup()
