"""Draws what `bench.learning` wrote, as docs/learning-model-free.png: `python -m bench.learning_plot`."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

from bench.learning import RESULTS

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "learning-model-free.png"


def main() -> None:
    """One panel per task, one line per algorithm and seed."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    tasks = sorted({record["task"] for record in records})
    figure = Figure(figsize=(4.5 * len(tasks), 3.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for record in records:
            if record["task"] == task:
                steps = [point["steps"] for point in record["curve"]]
                scores = [point["score"] for point in record["curve"]]
                axes.plot(steps, scores, marker=".", label=f"{record['algorithm']}, seed {record['seed']}")
        axes.set(title=task, xlabel="env steps", ylabel="score, mean of 10 episodes", ylim=(0, 1))
        axes.legend(loc="lower right")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
