"""The subjects that can be measured, in the order in which they run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import cast

from bench.figures import Figure
from bench.measure import Effort

# Name to module and what it measures; modules are imported only when their subject is run.
SUBJECTS: dict[str, tuple[str, str]] = {
    "planner": ("bench.planner", "MPPI planning, in process and through the service"),
    "updates": ("bench.updates", "training updates"),
    "batches": ("bench.batches", "what a training batch costs replay and the trainer"),
    "replay": ("bench.replay", "training batches through the service; memory of Redis"),
    "sims": ("bench.sims", "vectors of simulators through the service"),
    "domains": ("bench.domains", "the ten domains: speed, memory, start of their services"),
    "arcade": ("bench.arcade", "the games of MiniArcade, in process"),
    "robot": ("bench.robot", "a robot at 20 Hz, through a planner that is far away"),
    "weights": ("bench.weights", "from publishing weights to planning with them"),
    "page": ("bench.page", "the page in Chromium; the API while pages are open"),
    "loop": ("bench.loop", "the whole training loop"),
}


def chosen(names: Sequence[str]) -> list[str]:
    """The subjects of these names in running order, all if there are none.

    Raises:
        ValueError: An unknown name.
    """
    unknown = sorted(set(names) - set(SUBJECTS))
    if unknown:
        raise ValueError(f"unknown subject {', '.join(unknown)}; known are {', '.join(SUBJECTS)}")
    return [name for name in SUBJECTS if not names or name in names]


def run(subject: str, effort: Effort) -> Iterator[Figure]:
    """Measures a subject; figures come as they are ready."""
    module = importlib.import_module(SUBJECTS[subject][0])
    return cast(Iterator[Figure], module.run(effort))
