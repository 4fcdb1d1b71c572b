"""What each process of a local stack does from moment to moment: `python -m bench.activity --home HOME`.

The kernel counts, for every thread, how long it was on a core and how long it was ready but had none
(/proc/PID/task/TID/schedstat). Read every few milliseconds, that tells who works when; the rest of the time a process
waits for another one. Nothing is added to the services, so the picture is of the stack as it is.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bench.processes import stack_processes
from newt.local import state

PICTURE = Path(__file__).parents[1] / "docs" / "loop-activity.png"
_QUIET = 0.02  # processes that had something to do for less than this share of the time are left out
_WORKS, _READY = "#2b6cb0", "#ed8936"


@dataclass(frozen=True)
class Activity:
    """One process over T moments.

    Attributes:
        name: What it is.
        works: float64[T], cores that it was on.
        ready: float64[T], threads of it that were ready but had no core.
    """

    name: str
    works: npt.NDArray[np.float64]
    ready: npt.NDArray[np.float64]

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the time in which it worked, only waited for a core, and waited for others."""
        busy = np.minimum(1.0, self.works)
        ready = np.minimum(1.0 - busy, self.ready)
        return float(busy.mean()), float(ready.mean()), float((1.0 - busy - ready).mean())


def counted(pid: int) -> tuple[int, int]:
    """Nanoseconds on a core and ready without one, of all threads of a process that live; 0 of one that has ended."""
    works = ready = 0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                on_core, waiting, _ = (thread / "schedstat").read_text().split()
                works, ready = works + int(on_core), ready + int(waiting)
    return works, ready


def watch(pids: dict[str, int], seconds: float, every_s: float) -> tuple[npt.NDArray[np.float64], list[Activity]]:
    """Looks at processes for a while.

    Args:
        pids: Process ids by name.
        seconds: How long.
        every_s: Seconds between two looks.

    Returns:
        Seconds at the middle of each moment, float64[T], and what the processes did.
    """
    times: list[float] = []
    looks = []
    begun = time.perf_counter()
    while not times or times[-1] < seconds:
        times.append(time.perf_counter() - begun)
        looks.append([counted(pid) for pid in pids.values()])
        time.sleep(max(0.0, begun + every_s * len(times) - time.perf_counter()))
    at = np.array(times)
    # Threads that end take their counts along: nothing runs backwards.
    rates = np.maximum(0.0, np.diff(np.array(looks, np.float64), axis=0)) / 1e9 / np.diff(at)[:, None, None]
    return (at[1:] + at[:-1]) / 2, [Activity(name, rates[:, row, 0], rates[:, row, 1]) for row, name in enumerate(pids)]


def names_of(home: Path) -> dict[str, int]:
    """Process ids of a running stack by name; of several alike each has a number.

    Raises:
        ValueError: None runs there.
    """
    stack = state.read(home)
    if stack is None or stack.state != "running":
        raise ValueError(f"no stack runs in {home}: newt up --home {home}")
    found: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for name, process in stack_processes(stack):
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} {seen[name]}"] = process.pid
    return found


def draw(times: npt.NDArray[np.float64], activities: list[Activity], picture: Path) -> None:
    """One strip per process: blue on a core, orange ready without one, white waiting for others."""
    figure = Figure(figsize=(11, 0.55 * len(activities) + 0.9), layout="constrained")
    for axes, one in zip(
        figure.subplots(len(activities), 1, sharex=True, squeeze=False)[:, 0], activities, strict=True
    ):
        works = np.minimum(1.0, one.works)
        axes.stackplot(times, works, np.minimum(1.0 - works, one.ready), colors=[_WORKS, _READY], step="mid")
        axes.set(ylim=(0, 1), yticks=[], xlim=(times[0], times[-1]))
        axes.set_ylabel(one.name, rotation=0, ha="right", va="center", fontsize=9)
    axes.set_xlabel("seconds; blue: on a core, orange: ready without one, white: waits for another process")
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Watches a stack that runs, draws it and prints the shares as a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.activity", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="home of a stack that trains")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--every-ms", type=float, default=10.0)
    parser.add_argument("--output", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    try:
        pids = names_of(arguments.home)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    times, activities = watch(pids, arguments.seconds, arguments.every_ms / 1000)
    active = [one for one in activities if one.shares[2] <= 1 - _QUIET]
    if not active:
        raise SystemExit(f"no process of {arguments.home} does anything: is there a run?")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(times, active, arguments.output)
    print("| Process | on a core | ready without one | waits for others |\n|---|---|---|---|")
    for one in active:
        print(f"| {one.name} | " + " | ".join(f"{100 * share:.0f} %" for share in one.shares) + " |")


if __name__ == "__main__":
    main()
