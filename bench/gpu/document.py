"""The file of a session: one JSON object, complete after every stage, whatever happens to the next."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Spread

SCHEMA = 1
Document = dict[str, Any]

LISTS = ("correctness", "figures", "egl", "stages")
TABLES = ("machine", "ceilings", "compile", "links")


def empty() -> Document:
    """A document without results."""
    return {"schema": SCHEMA, **{name: [] for name in LISTS}, **{name: {} for name in TABLES}}


def read(path: Path) -> Document:
    """What a session has stored. Raises ValueError if it is of another schema."""
    document: Document = json.loads(path.read_text())
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, got {document.get('schema')}")
    return document


def write(path: Path, document: Document) -> None:
    """Replaces the file at once."""
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(beside, path)


class Notebook:
    """Where a stage writes every result as soon as it has it: lines of JSON, which a killed stage leaves behind.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, name: str, values: Mapping[str, object]) -> None:
        """Adds entries to one of the document's `TABLES`."""
        self._add(name, dict(values))

    def check(self, name: str, error: float, tolerance: float) -> None:
        """Adds a comparison that holds if the error is within the tolerance."""
        ok = math.isfinite(error) and error <= tolerance
        self._add("correctness", {"name": name, "error": error, "tolerance": tolerance, "ok": ok})

    def figure(self, key: str, unit: str, values: Sequence[float], **more: object) -> None:
        """Adds a measurement: median and quartiles of repetitions."""
        spread = Spread.of(values)
        entry = {"median": spread.median, "q25": spread.low, "q75": spread.high, "n": len(values)}
        self._add("figures", {"key": key, "unit": unit, **entry, **more})

    def egl(self, entry: Mapping[str, object]) -> None:
        """Adds how so many processes drew at once."""
        self._add("egl", dict(entry))

    def _add(self, name: str, entry: Mapping[str, object]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([name, entry]) + "\n")

    def pour_into(self, document: Document) -> None:
        """Moves all lines to the document; a last line that was cut off is dropped."""
        if not self._path.exists():
            return
        for line in self._path.read_text().splitlines():
            try:
                name, entry = json.loads(line)
            except ValueError:
                continue
            if name in LISTS:
                document[name].append(entry)
            else:
                document[name] |= entry
        self._path.unlink()
