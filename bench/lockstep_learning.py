"""Does the service learn as well as a plain loop? Our own agent in one process, on the tasks of `mini/scratch`.

    python -m bench.lockstep_learning --seed 1 --records docs/results/mini-scratch

Trains and evaluates at the steps at which the experiment's run does, writes bench/results/lockstep/SEED.json, and
prints a table of all seeds so far beside the runs of the same seeds, whose records `newt report --experiment
mini/scratch` keeps.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.baselines.lockstep import LockstepLoop
from newt.report.records import SUFFIX, RunRecord
from newt.runs.shelf import Shelf
from newt.runs.spec import RunSpec
from newt.runs.stored import read_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "lockstep"
EXPERIMENT, VARIANT = "mini/scratch", "newt"
EVAL_SEED = 10_000


def spec_of(seed: int) -> RunSpec:
    """Spec of the experiment's run."""
    (run,) = Shelf(ROOT / "experiments").load(EXPERIMENT).runs(seeds=[seed], variants=[VARIANT])
    return run.spec


def learn(spec: RunSpec, threads: int) -> dict[str, Any]:
    """Trains to the end; returns scores by evaluation, task and episode."""
    torch.set_num_threads(threads)
    every, total = spec.eval_every_env_steps(), spec.schedule.total_env_steps
    episodes, start, curve = spec.evaluation.episodes_per_task, time.monotonic(), []
    with closing(LockstepLoop(spec)) as loop:
        loop.seed(spec.seed_env_steps())
        for steps in range(every, total + 1, every):
            loop.learn(steps)
            point = {
                "env_steps": loop.env_steps,
                "updates": loop.updates,
                "seconds": round(time.monotonic() - start),
                "scores": loop.evaluate(episodes, EVAL_SEED),
            }
            curve.append(point)
            print(json.dumps(point), flush=True)
    return {"experiment": EXPERIMENT, "variant": VARIANT, "seed": spec.seed, "curve": curve}


def table(records: Path) -> str:
    """Markdown: the last scores of every task and seed, loop and service beside each other."""
    loops = {record["seed"]: record for record in (json.loads(path.read_text()) for path in RESULTS.glob("*.json"))}
    runs = {}
    for path in sorted(records.glob(f"*{SUFFIX}")):
        record = read_json(RunRecord, path.read_text())
        spec = record.run.spec
        if (spec.labels.get("experiment"), spec.labels.get("variant")) == (EXPERIMENT, VARIANT):
            runs[spec.seed] = record
    seeds = sorted(loops.keys() | runs.keys())
    lines = [
        "| Task | " + " | ".join(f"seed {seed}: loop | seed {seed}: service" for seed in seeds) + " |",
        "|---" * (1 + 2 * len(seeds)) + "|",
    ]
    for task in spec_of(1).task_list():
        cells = []
        for seed in seeds:
            last = loops[seed]["curve"][-1]["scores"][task.name] if seed in loops else None
            results = runs[seed].results.tasks.get(task.name) if seed in runs else None
            final = results.final if results else None
            cells += [
                "missing" if last is None else f"{np.mean(last):.2f}",
                "missing" if final is None else f"{final.corrected_score:.2f}",
            ]
        lines.append(f"| {task.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    seed: Annotated[int | None, typer.Option(help="Trains with it; left out: the table alone.")] = None,
    records: Annotated[Path, typer.Option(help="Folder with the records of runs.")] = ROOT
    / "docs/results/mini-scratch",
    threads: Annotated[int, typer.Option(help="Of torch.")] = 1,
) -> None:
    """Trains once and writes down what came of it; prints the table."""
    if seed is not None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{seed}.json").write_text(json.dumps(learn(spec_of(seed), threads), indent=1) + "\n")
    print(table(records))


if __name__ == "__main__":
    typer.run(main)
