"""Removing a finished run: its replay buffer, files, evaluations and record; or the buffer alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from newt.errors import PreconditionError
from services.learner.demo_sets import DemoSets
from services.learner.jobs import EvaluationJobs
from services.learner.store import RunStore
from services.learner.supervisor import Supervisor

log = structlog.get_logger(__name__)


def delete_run(run_id: str, store: RunStore, supervisor: Supervisor, jobs: EvaluationJobs, demo_sets: DemoSets) -> None:
    """Removes everything of a run. Runs that were started from its checkpoints have their own copy and stay.

    The record goes last: if something fails on the way, the run is still listed, as deleting, and can be deleted again.

    Raises:
        NotFoundError: No such run.
        PreconditionError: It has not finished, its processes are still ending, or its checkpoints are in use.
        UnavailableError: Replay or Redis cannot be reached.
    """
    run = store.get(run_id)
    _require_no_processes(run_id, supervisor)
    evaluations = store.jobs(run_id)
    busy = [job.id for job in evaluations if job.state == "running"]
    if busy:
        raise PreconditionError(
            f"run {run_id} is being evaluated ({', '.join(busy)}); wait, or DELETE /evaluations/{busy[0]} first"
        )
    collecting = [c.name for c in store.demo_collections() if c.run_id == run_id and c.state == "collecting"]
    if collecting:
        raise PreconditionError(
            f"the agent of run {run_id} collects demonstrations ({', '.join(collecting)}); wait, or cancel that first"
        )
    store.begin_deletion(run_id)
    episodes = demo_sets.delete_buffer(run_id)
    for job in evaluations:
        jobs.delete(job.id)
    if Path(run.directory).exists():
        shutil.rmtree(run.directory)
    store.delete(run_id)
    log.info("run_deleted", run=run_id, episodes=episodes)


def delete_run_episodes(run_id: str, store: RunStore, supervisor: Supervisor, demo_sets: DemoSets) -> int:
    """Removes the replay buffer of a finished run; returns the number of its episodes.

    Raises:
        NotFoundError: No such run.
        PreconditionError: It has not finished, or its processes, which may still append, are ending.
        UnavailableError: Replay or Redis cannot be reached.
    """
    state = store.get(run_id).state
    if not state.finished:
        raise PreconditionError(f"run {run_id} is {state}; cancel it, or wait for its end")
    _require_no_processes(run_id, supervisor)
    return demo_sets.delete_buffer(run_id)


def _require_no_processes(run_id: str, supervisor: Supervisor) -> None:
    if supervisor.pids(run_id):
        raise PreconditionError(
            f"run {run_id} has processes that are under way or ending; cancel it, or ask again soon"
        )
