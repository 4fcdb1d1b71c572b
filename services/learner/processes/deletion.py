"""Removing a finished run: its replay buffer, files, evaluations and record; or the buffer alone."""

from __future__ import annotations

import shutil

import structlog

from newt.errors import PreconditionError
from services.learner.data_folder import DataFolder
from services.learner.processes.demo_sets import DemoSets
from services.learner.processes.evaluations import EvaluationKeeper
from services.learner.processes.runs import RunKeeper
from services.learner.records.broken import BrokenRecordError
from services.learner.records.store import Records

log = structlog.get_logger(__name__)


def delete_run(
    run_id: str,
    records: Records,
    folder: DataFolder,
    runs: RunKeeper,
    evaluations: EvaluationKeeper,
    demo_sets: DemoSets,
) -> None:
    """Removes everything of a run. Runs that were started from its checkpoints have their own copy and stay.

    A run whose record cannot be read is removed in any state. The record goes last: if something fails on the way, the
    run is still listed, as deleting, and can be deleted again.

    Raises:
        NotFoundError: No such run.
        PreconditionError: It has not finished, its processes are still ending, or its checkpoints are in use.
        UnavailableError: Replay or Redis cannot be reached.
    """
    try:
        records.runs.get(run_id)
        readable = True
    except BrokenRecordError:
        readable = False  # nothing can start it
    _require_no_processes(run_id, runs)
    played = [job for job in records.evaluations.list_all().records if job.run_id == run_id]
    busy = [job.id for job in played if job.under_way]
    if busy:
        raise PreconditionError(
            f"run {run_id} is being evaluated ({', '.join(busy)}); wait, or DELETE /evaluations/{busy[0]} first"
        )
    collecting = [c.name for c in records.demos.list_all().records if c.run_id == run_id and c.under_way]
    if collecting:
        raise PreconditionError(
            f"the agent of run {run_id} collects demonstrations ({', '.join(collecting)}); wait, or cancel that first"
        )
    if readable:
        records.runs.begin_deletion(run_id)
    episodes = demo_sets.delete_buffer(run_id)
    for job in played:
        evaluations.delete(job.id)
    if (directory := folder.run(run_id)).exists():
        shutil.rmtree(directory)
    records.runs.delete(run_id)
    log.info("run_deleted", run=run_id, episodes=episodes)


def delete_run_episodes(run_id: str, records: Records, runs: RunKeeper, demo_sets: DemoSets) -> int:
    """Removes the replay buffer of a finished run; returns the number of its episodes.

    Raises:
        NotFoundError: No such run.
        PreconditionError: It has not finished, or its processes, which may still append, are ending.
        UnavailableError: Replay or Redis cannot be reached.
    """
    state = records.runs.get(run_id).state
    if not state.finished:
        raise PreconditionError(f"run {run_id} is {state}; cancel it, or wait for its end")
    _require_no_processes(run_id, runs)
    return demo_sets.delete_buffer(run_id)


def _require_no_processes(run_id: str, runs: RunKeeper) -> None:
    if runs.pids(run_id):
        raise PreconditionError(
            f"run {run_id} has processes that are under way or ending; cancel it, or ask again soon"
        )
