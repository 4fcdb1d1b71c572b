"""A run's metrics as files: CSV, JSON lines and Parquet. Rows come in pages and are never all in memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from newt.runs.record import MetricsRow

Pages = Iterable[Sequence[MetricsRow]]
COLUMNS = ("id", "time", "source", "env_steps", "updates", "name", "value")
"""Of CSV and Parquet, where each value has a line of its own."""


def csv_of(pages: Pages) -> Iterator[bytes]:
    """A line for each value."""
    yield (",".join(COLUMNS) + "\n").encode()
    for rows in pages:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            place = (row.id, row.time.isoformat(), row.source, row.env_steps, row.updates)
            writer.writerows((*place, name, value) for name, value in row.values.items())
        yield text.getvalue().encode()


def jsonl_of(pages: Pages) -> Iterator[bytes]:
    """A line for each row."""
    for rows in pages:
        yield "".join(f"{row.model_dump_json()}\n" for row in rows).encode()


def parquet_of(pages: Pages) -> Iterator[bytes]:
    """The table of `csv_of`, a row group for each page. Needs pyarrow: the extra `parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = pa.dictionary(pa.int32(), pa.string())
    kinds = (pa.string(), pa.timestamp("us", tz="UTC"), words, pa.int64(), pa.int64(), words, pa.float64())
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    written = io.BytesIO()
    with pq.ParquetWriter(pa.PythonFile(_Forward(written), mode="w"), schema) as writer:
        for rows in pages:
            writer.write_table(pa.table(_columns(rows), schema=schema))
            yield _taken(written)
    yield _taken(written)


class _Forward(io.RawIOBase):
    """A file that is only written on: what lies behind may be taken away."""

    def __init__(self, kept: io.BytesIO) -> None:
        self._kept, self._length = kept, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._length

    def write(self, data: Any) -> int:
        written = self._kept.write(data)
        self._length += written
        return written


def _taken(written: io.BytesIO) -> bytes:
    data = written.getvalue()
    written.seek(0)
    written.truncate()
    return data


def _columns(rows: Sequence[MetricsRow]) -> Mapping[str, list[Any]]:
    table = [
        (row.id, row.time, row.source, row.env_steps, row.updates, name, value)
        for row in rows
        for name, value in row.values.items()
    ]
    return {name: [line[place] for line in table] for place, name in enumerate(COLUMNS)}
