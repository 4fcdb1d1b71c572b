"""Somebody who watches a play."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any


class Watcher:
    """A client of a play's events."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def next(self, kind: str, fits: Callable[[dict[str, Any]], bool] = lambda facts: True) -> dict[str, Any]:
        """The next event of a kind that fits."""
        found = ""
        for line in self._lines:
            name, _, rest = line.partition(": ")
            if name == "event":
                found = rest
            elif name == "data" and found == kind and fits(facts := json.loads(rest)):
                return dict(facts)
        raise AssertionError(f"the stream ended without {kind}")
