"""Figures of the releases: `python -m bench.history 0.2.0` keeps the present ones under that name, and draws all."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from matplotlib.figure import Figure

from bench import report

HISTORY = report.RESULTS.parent / "history"
PICTURE = report.PAGE.parent / "performance-history.svg"
_SUBJECTS = ("planner", "updates", "replay", "sims", "domains", "loop")


def keep(release: str, results: Path = report.RESULTS, history: Path = HISTORY) -> Path:
    """Copies a results file.

    Raises:
        ValueError: Not the number of a release, or one that is there already.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", release):
        raise ValueError(f"got {release!r}, expected the number of a release, such as 0.2.0")
    kept = history / f"{release}.json"
    if kept.exists():
        raise ValueError(f"{kept} is there already; remove it to keep others")
    history.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(results, kept)
    return kept


def ratios(history: Path = HISTORY) -> dict[str, dict[str, float]]:
    """Ratios by key, then by release, the oldest first."""
    files = sorted(history.glob("*.json"), key=lambda path: [int(part) for part in path.stem.split(".")])
    found: dict[str, dict[str, float]] = {}
    for path in files:
        for key, value in report.read(path).items():
            if key.endswith(".ratio"):
                found.setdefault(key.removesuffix(".ratio"), {})[path.stem] = value
    return found


def draw(found: dict[str, dict[str, float]], picture: Path) -> None:
    """One panel per subject, one line per figure: how many times as fast as the plain implementation."""
    releases = list(dict.fromkeys(release for values in found.values() for release in values))
    figure = Figure(figsize=(13, 7), layout="constrained")
    for axes, subject in zip(figure.subplots(2, 3).flat, _SUBJECTS, strict=True):
        for key, values in found.items():
            if key.startswith(f"{subject}."):
                places = [releases.index(release) for release in values]
                axes.plot(places, list(values.values()), marker="o", label=key.removeprefix(f"{subject}."))
        axes.axhline(1, color="0.7", linewidth=1)
        axes.set(title=subject, ylabel="times plain", ylim=(0, None))
        axes.set_xticks(range(len(releases)), releases)
        if axes.has_data() and len(axes.lines) > 1:
            axes.legend(fontsize=6, ncols=2)
    figure.savefig(picture)


def main() -> int:
    """Returns the exit code; 2 for a name that cannot be kept."""
    try:
        for release in sys.argv[1:]:
            print(f"Kept as {keep(release)}")
    except ValueError as error:
        print(f"bench.history: {error}", file=sys.stderr)
        return 2
    draw(ratios(), PICTURE)
    print(f"Drawn in {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
