"""Scores of the variants of a report: seeds by tasks, with gaps where something is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from newt.report.group_names import group_names
from newt.report.records import RunRecord
from newt.report.statistics import Array, Estimate, StatisticName, estimate
from newt.runs.expansion import VARIANT, Experiment
from newt.runs.groups import group_key
from newt.runs.record import EpisodeStats, Evaluation, EvaluationKind
from newt.runs.standing import Cell
from newt.tasks.registry import UnknownTaskError, get_task


@dataclass(frozen=True)
class Curve:
    """Scores over env steps.

    Attributes:
        env_steps: float64[P], env steps of each task.
        scores: float64[P, R, K], NaN where a seed has no evaluation of a task there.
    """

    env_steps: Array
    scores: Array


@dataclass(frozen=True)
class Line:
    """A variant: what is drawn in one colour.

    Attributes:
        name: Short name.
        title: What a legend says.
        tasks: K tasks, in order.
        seeds: R seeds that are expected.
        records: Records of the runs that have succeeded, by seed: one, or one for each task.
        missing: What is expected and not there, in words.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    records: Mapping[int, Sequence[RunRecord]] = field(repr=False)
    missing: tuple[str, ...] = ()

    @property
    def whole_seeds(self) -> int:
        """Seeds of which every task has a final score."""
        return int((~np.isnan(self.scores("final")).any(axis=1)).sum())

    @property
    def legend(self) -> str:
        """The title, with what is missing."""
        lacking = len(self.seeds) - self.whole_seeds
        return f"{self.title} ({self.whole_seeds} of {len(self.seeds)} seeds)" if lacking else self.title

    @property
    def offline(self) -> bool:
        """Whether no run of it takes env steps: its score does not depend on them."""
        totals = [record.run.spec.schedule.total_env_steps for _, record in self._all()]
        return bool(totals) and not any(totals)

    def scores(self, kind: EvaluationKind) -> Array:
        """Scores in the evaluation of a kind: float64[R, K], NaN where there is none.

        `pretrained` is the agent before its first step: the random policy, if a run neither pretrains nor fine-tunes.
        """
        result = np.full((len(self.seeds), len(self.tasks)), np.nan)
        for seed, record in self._all():
            kinds = {evaluation.kind for evaluation in record.results.evaluations}
            wanted = "random" if kind == "pretrained" and kind not in kinds else kind
            for evaluation in record.results.evaluations:
                if evaluation.kind == wanted:
                    self._enter(result[self.seeds.index(seed)], evaluation.tasks)
        return result

    def estimate(self, statistic: StatisticName = "mean", kind: EvaluationKind = "final") -> Estimate:
        """The aggregate over all expected seeds and tasks; NaN if any is missing."""
        return estimate(self.scores(kind), statistic)

    def requested(self, jobs: Mapping[str, Evaluation], tasks: Sequence[str]) -> Array:
        """Scores in evaluations that were asked for, by run id: float64[R, len(tasks)], NaN where there is none."""
        result = np.full((len(self.seeds), len(tasks)), np.nan)
        for seed, record in self._all():
            evaluation = jobs.get(record.run.id)
            for column, task in enumerate(tasks):
                if evaluation is not None and task in evaluation.tasks:
                    result[self.seeds.index(seed), column] = evaluation.tasks[task].corrected_score
        return result

    @cached_property
    def curve(self) -> Curve:
        """Scores in the evaluations while training."""
        found: dict[float, Array] = {}
        for seed, record in self._all():
            for env_steps, evaluation in _points(record):
                rows = found.setdefault(env_steps, np.full((len(self.seeds), len(self.tasks)), np.nan))
                self._enter(rows[self.seeds.index(seed)], evaluation.tasks)
        steps = sorted(found)
        shape = (0, len(self.seeds), len(self.tasks))
        return Curve(np.array(steps), np.stack([found[x] for x in steps]) if steps else np.zeros(shape))

    def _enter(self, row: Array, found: Mapping[str, EpisodeStats]) -> None:
        for task, stats in found.items():
            if task in self.tasks:
                row[self.tasks.index(task)] = stats.corrected_score

    def _all(self) -> Iterable[tuple[int, RunRecord]]:
        for seed, records in self.records.items():
            for record in records:
                yield seed, record


def domains_of(tasks: Sequence[str]) -> dict[str, list[int]]:
    """Domain to the places of its tasks, in order of appearance; tasks that are not registered are in `other`."""
    found: dict[str, list[int]] = {}
    for place, task in enumerate(tasks):
        try:
            domain = get_task(task).domain
        except UnknownTaskError:
            domain = "other"
        found.setdefault(domain, []).append(place)
    return found


def lines_of_experiment(
    experiment: Experiment,
    seeds: Sequence[int],
    cells: Sequence[Cell],
    records: Mapping[str, RunRecord],
    variants: Sequence[str] | None = None,
) -> list[Line]:
    """A line for each variant of an experiment.

    Args:
        experiment: Says what is expected.
        seeds: The seeds that are.
        cells: Its runs, with the records that there are.
        records: What is known of them by id.
        variants: Which variants, in order; None for all.
    """
    by_key = {cell.key: cell for cell in cells}
    lines = []
    for name in variants if variants is not None else experiment.variants():
        found: dict[int, list[RunRecord]] = {}
        missing = []
        for seed in seeds:
            for planned in experiment.runs_of(name, seed):
                cell = by_key[planned.key]
                if cell.run is not None and cell.done and cell.run.id in records:
                    found.setdefault(seed, []).append(records[cell.run.id])
                else:
                    missing.append(f"{planned.key}: {'unreadable' if cell.done else cell.state}")
        title = experiment.variants()[name].title
        lines.append(Line(name, title, tuple(experiment.tasks_of(name)), tuple(seeds), found, tuple(missing)))
    return lines


def lines_of_runs(records: Iterable[RunRecord]) -> list[Line]:
    """Runs with the same settings but for their seed and name, as a line each.

    A run that has not succeeded is expected, and missing. Where one seed is there twice, the newest counts.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: record.run.created_at):
        groups.setdefault(group_key(record.run.spec), []).append(record)
    lines: list[Line] = []
    names = group_names([members[0].run.spec for members in groups.values()])
    for name, members in zip(names, groups.values(), strict=True):
        newest = {record.run.spec.seed: record for record in members}
        done = {seed: [record] for seed, record in newest.items() if record.run.state.value == "succeeded"}
        missing = [f"run {r.run.id}: {r.run.state.value}" for seed, r in newest.items() if seed not in done]
        first = members[0].run
        title = name if len(members) > 1 or first.spec.labels.get(VARIANT) else first.id
        lines.append(Line(name, title, tuple(first.tasks), tuple(sorted(newest)), done, tuple(missing)))
    return lines


def _points(record: RunRecord) -> Iterable[tuple[float, Evaluation]]:
    """Evaluations while training, by env steps of each task.

    One on the way is where it was due: the run had a few steps more by then, and each seed a few others. The agent
    before the first step is the pretrained one, or else the random policy.
    """
    spec, tasks = record.run.spec, len(record.run.tasks)
    every, total = spec.eval_every_env_steps(), spec.schedule.total_env_steps
    evaluations = record.results.evaluations
    first = [e for kind in ("random", "pretrained") for e in evaluations if e.kind == kind]
    for evaluation in first[-1:]:
        yield 0.0, evaluation
    for evaluation in evaluations:
        if evaluation.kind == "periodic" and every:
            yield evaluation.env_steps // every * every / tasks, evaluation
        elif evaluation.kind == "final":
            yield total / tasks, evaluation
