"""Ratios that must not be lost: each a good deal below what was measured, so that a noisy machine does not reach it.

python -m bench --check
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from bench import registry
from bench.figures import Figure, Ratio
from bench.measure import Effort

# The plain simulators are 16 processes: they have the larger share of a machine that others use, too. On processors
# without bfloat16 in tiles (AMX), or without any, plans are no faster than in float32.
FLOORS: dict[str, float] = {
    "planner.S.b8": 1.7,
    "planner.S.b8.float32": 1.7,
    "updates.S.b256": 1.2,
    "updates.B.b256": 1.1,
    "replay.b1024": 0.9,
    "sims.noop.n16": 1.4,
    "sims.walker-walk.n16": 1.0,
}
TRIES = 3


def check(console: Console, names: Iterable[str] = ()) -> bool:
    """Measures quickly what has a floor; whether nothing is below its own in the best of three tries.

    Args:
        console: Shows what was measured.
        names: Subjects; all that have a floor if there are none.
    """
    subjects = list(names) or list(dict.fromkeys(key.partition(".")[0] for key in FLOORS))
    held = True
    for subject in registry.chosen(subjects):
        below = {key: 0.0 for key in FLOORS if key.startswith(f"{subject}.")}
        for _ in range(TRIES):
            below = still_below(below, registry.run(subject, Effort("quick")))
            if not below:
                break
        for key, ratio in below.items():
            console.print(f"{key}: {ratio:.2f} in the best of {TRIES} tries, below {FLOORS[key]:g}", highlight=False)
        held = held and not below
        console.print(f"{subject}: {'below its floor' if below else 'as fast as it was'}", highlight=False)
    return held


def still_below(below: dict[str, float], figures: Iterable[Figure]) -> dict[str, float]:
    """What another try leaves of the ratios that were below their floors, with the best so far.

    Raises:
        KeyError: A figure with a floor was not measured.
    """
    measured = {figure.key: figure.ratio.median for figure in figures if isinstance(figure, Ratio)}
    best = {key: max(ratio, measured[key]) for key, ratio in below.items()}
    return {key: ratio for key, ratio in best.items() if ratio < FLOORS[key]}
