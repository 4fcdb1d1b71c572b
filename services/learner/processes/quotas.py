"""How much somebody has at once, and may have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from newt.client.shards import replay_client
from newt.errors import ExhaustedError, NotFoundError
from newt.runs.people import Quotas
from newt.runs.record import RESUMABLE, Run
from newt.runs.spec import RunSpec
from services.learner import acting
from services.learner.processes.learner import Learner

REPLAY_TIMEOUT_S = 5.0
_ONE_AT_A_TIME, _ONE_JOB_AT_A_TIME = threading.Lock(), threading.Lock()
"""Between the look at what there is and the record of what comes next, nothing else may come."""


@contextmanager
def within_quotas(learner: Learner, spec: RunSpec, again: Run | None = None) -> Iterator[None]:
    """Starts a run of whoever asks within a block, if there is room for it in their quotas.

    Args:
        learner: Where.
        spec: Of the run.
        again: The run, if it has ended and begins again; that of somebody else is no affair of theirs.

    Raises:
        ExhaustedError: There is no room.
        UnavailableError: Redis does not answer, or replay, which knows how many rows ended runs have left.
    """
    person = acting.person()
    others = again is not None and (again.state not in RESUMABLE or person is None or again.owner != person.name)
    if person is None or person.quotas == Quotas() or others:
        yield
        return
    quotas = person.quotas
    with _ONE_AT_A_TIME:
        runs = learner.records.runs.list_unfinished().records
        unfinished = [run for run in runs if run.owner == person.name]
        _require(person.name, "runs that have not ended", quotas.runs, len(unfinished), 1)
        instances = sum(run.spec.num_envs() for run in unfinished)
        _require(person.name, "simulator instances", quotas.sim_instances, instances, spec.num_envs())
        if quotas.replay_rows is not None and (rows := most_rows(spec)):
            had = sum(most_rows(run.spec) for run in unfinished)
            ended = [
                run.id
                for run in learner.records.runs.list_all().records
                if run.owner == person.name and run.state.finished and (again is None or run.id != again.id)
            ]
            had += _rows_left(learner.settings.replay, ended)
            _require(person.name, "rows in replay", quotas.replay_rows, had, rows)
        yield


@contextmanager
def within_job_quota(learner: Learner, demo_set: str | None = None) -> Iterator[None]:
    """Starts an evaluation or a collection of whoever asks within a block, if there is room for it in their quotas.

    Args:
        learner: Where.
        demo_set: Name of the set of a collection; asking again for one that is under way adds none.

    Raises:
        ExhaustedError: There is no room.
        UnavailableError: Redis does not answer.
    """
    person = acting.person()
    if person is None or person.quotas.jobs is None:
        yield
        return
    with _ONE_JOB_AT_A_TIME:
        evaluations = learner.records.evaluations.list_open().records
        collections = [job for job in learner.records.demos.list_open().records if job.name != demo_set]
        under_way = [job for job in (*evaluations, *collections) if job.under_way and job.owner == person.name]
        what = "evaluations and collections under way"
        _require(person.name, what, person.quotas.jobs, len(under_way), 1, "this one")
        yield


def most_rows(spec: RunSpec) -> int:
    """Rows of online episodes that a run asks replay to hold, as quotas count them."""
    if spec.model_free() or not spec.learns_online():
        return 0
    return min(spec.replay.capacity_rows, spec.schedule.total_env_steps)


def _rows_left(target: str, run_ids: list[str]) -> int:
    """Rows of online episodes of ended runs that replay still holds."""
    rows = 0
    with replay_client(target) as replay:
        for run_id in run_ids:
            try:
                rows += replay.get_buffer(run_id, timeout_s=REPLAY_TIMEOUT_S).rows
            except NotFoundError:
                continue
    return rows


def _require(name: str, what: str, quota: int | None, had: int, wanted: int, one: str = "this run") -> None:
    if quota is not None and had + wanted > quota:
        raise ExhaustedError(
            f"{name} may have {quota:,} {what} and has {had:,}; {one} would add {wanted:,}. Wait for one to end, "
            "cancel or delete one, or ask an operator for more"
        )
