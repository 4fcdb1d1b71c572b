"""Names of the run records' keys in Redis."""

from __future__ import annotations

from typing import Any, Literal

PREFIX = "newt:learner:"
RUNS = f"{PREFIX}runs"  # sorted by creation
UNFINISHED = f"{PREFIX}unfinished"  # those of them that have not ended, sorted alike
EVALUATIONS = f"{PREFIX}evaluations"
DEMOS = f"{PREFIX}demos"
CHANGES = f"{PREFIX}changes"  # a stream of the records that have changed lately
MAX_CHANGES = 1_000

Part = Literal["events", "metrics", "evaluations"]
PARTS: tuple[Part, ...] = ("events", "metrics", "evaluations")


def run(run_id: str) -> str:
    """A run's record."""
    return f"{PREFIX}run:{run_id}"


def part(run_id: str, name: Part) -> str:
    """A list or stream beside a run's record."""
    return f"{PREFIX}run:{run_id}:{name}"


def open_jobs(jobs: str) -> str:
    """Beside a hash of jobs: the ids of those for which something is left to do."""
    return f"{jobs}:open"


def record(kind: str, record_id: str) -> str:
    """What the stream of changes calls a record."""
    return f"{kind}:{record_id}"


def note_change(pipe: Any, name: str) -> None:
    """Adds to a pipeline: those who wait for a record are told that it has changed."""
    pipe.xadd(CHANGES, {"record": name}, maxlen=MAX_CHANGES, approximate=True)
