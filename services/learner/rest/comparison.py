"""The route that compares runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from newt.errors import InvalidInputError
from newt.report.comparison import compare
from newt.report.records import RunRecord
from newt.report.statistics import StatisticName
from newt.runs.comparison import Comparison
from newt.runs.record import RunResults
from services.learner.processes.learner import Learner

MAX_GROUPS = 20
MAX_RUNS = 60

_Group = Annotated[str, Query(max_length=4_000)]


def comparison_routes(learner: Learner) -> APIRouter:
    """Builds the route."""
    router = APIRouter(tags=["runs"])
    runs, history = learner.records.runs, learner.records.history

    @router.get("/compare")
    def get_comparison(
        group: Annotated[
            list[_Group],
            Query(
                min_length=1,
                max_length=MAX_GROUPS,
                description=f"Ids of runs that are one line, as RUN,RUN,...; repeated. {MAX_RUNS} runs at most.",
            ),
        ],
        statistic: StatisticName = "iqm",
    ) -> Comparison:
        """Evaluation scores of groups of runs over env steps, and their final ones; settings that are different.

        Scores are aggregated over all tasks and runs of a group, as interquartile mean or mean, with 95% bootstrap
        intervals that are stratified by task.
        """
        groups = [[run_id for run_id in ids.split(",") if run_id] for ids in group]
        if not all(groups):
            raise InvalidInputError("group", "got no run, expected RUN,RUN,...")
        if sum(map(len, groups)) > MAX_RUNS:
            raise InvalidInputError("group", f"got {sum(map(len, groups))} runs, expected {MAX_RUNS} at most")
        return compare([[record(run_id) for run_id in ids] for ids in groups], statistic)

    def record(run_id: str) -> RunRecord:
        run, evaluations = runs.get(run_id), history.evaluations(run_id)
        return RunRecord(run=run, results=RunResults.build(run_id, run.state, run.tasks, evaluations, {}))

    return router
