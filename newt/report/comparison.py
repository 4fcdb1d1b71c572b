"""Compares groups of runs: curves with bands, final scores, and what is different in their settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from newt.report.lines import Line
from newt.report.records import RunRecord
from newt.report.statistics import RESAMPLES, Array, StatisticName, estimate
from newt.runs.comparison import ComparedGroup, ComparedPoint, ComparedScore, Comparison, Difference
from newt.runs.expansion import flat
from newt.runs.spec import RunSpec

MAX_DRAWS = 20_000_000
"""Scores drawn for the band of one curve: a second's work, however many tasks, seeds and evaluations there are."""


def compare(groups: Sequence[Sequence[RunRecord]], statistic: StatisticName = "iqm") -> Comparison:
    """Compares groups of at least one run each. Every run of a group counts as a seed, also while it goes on."""
    return Comparison(
        statistic=statistic,
        groups=[_group(records, statistic) for records in groups],
        differences=differences([records[0].run.spec for records in groups]),
    )


def differences(specs: Sequence[RunSpec]) -> list[Difference]:
    """Settings that are not the same in all, by path; the seed and the name are no such settings."""
    settings = [flat(spec.model_dump(mode="json", exclude={"seed", "name"})) for spec in specs]
    paths = dict.fromkeys(path for values in settings for path in values)
    found = [Difference(setting=path, values=[values.get(path) for values in settings]) for path in paths]
    return [item for item in found if any(value != item.values[0] for value in item.values)]


def _group(records: Sequence[RunRecord], statistic: StatisticName) -> ComparedGroup:
    first = records[0].run
    places = tuple(range(len(records)))
    line = Line(first.id, first.id, tuple(first.tasks), places, {k: [record] for k, record in enumerate(records)})
    curve = line.curve
    draws = MAX_DRAWS // max(1, curve.scores.size)
    points = []
    for env_steps, scores in zip(curve.env_steps, curve.scores, strict=True):
        score = _score(scores, statistic, draws)
        if score is not None:
            points.append(ComparedPoint(env_steps=round(env_steps * len(first.tasks)), **score.model_dump()))
    return ComparedGroup(
        runs=[record.run.id for record in records],
        seeds=[record.run.spec.seed for record in records],
        tasks=len(first.tasks),
        curve=points,
        final=_score(line.scores("final"), statistic, draws),
    )


def _score(scores: Array, statistic: StatisticName, draws: int) -> ComparedScore | None:
    """The aggregate over those seeds, of float64[R, K], that have all scores; None if there are none."""
    whole = scores[~np.isnan(scores).any(axis=1)]
    if not whole.size:
        return None
    found = estimate(whole, statistic, int(np.clip(draws, 100, RESAMPLES)))
    known = not np.isnan(found.low)
    return ComparedScore(
        value=found.value, low=found.low if known else None, high=found.high if known else None, seeds=len(whole)
    )
