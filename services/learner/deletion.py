"""Removing a finished run: its replay buffer, files, evaluations and record."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from newt.client.replay import ReplayClient
from newt.errors import PreconditionError
from services.learner.jobs import EvaluationJobs
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore
from services.learner.supervisor import Supervisor

REPLAY_TIMEOUT_S = 20.0

log = structlog.get_logger(__name__)


def delete_run(
    run_id: str, settings: LearnerSettings, store: RunStore, supervisor: Supervisor, jobs: EvaluationJobs
) -> None:
    """Removes everything of a run. Runs that were started from its checkpoints have their own copy and stay.

    The record goes last: if something fails on the way, the run is still listed, as deleting, and can be deleted again.

    Raises:
        NotFoundError: No such run.
        PreconditionError: It has not finished, its processes are still ending, or its checkpoints are being evaluated.
        UnavailableError: Replay or Redis cannot be reached.
    """
    run = store.get(run_id)
    if supervisor.pids(run_id):
        raise PreconditionError(
            f"run {run_id} has processes that are under way or ending; cancel it, or ask again soon"
        )
    evaluations = store.jobs(run_id)
    busy = [job.id for job in evaluations if job.state == "running"]
    if busy:
        raise PreconditionError(
            f"run {run_id} is being evaluated ({', '.join(busy)}); wait, or DELETE /evaluations/{busy[0]} first"
        )
    store.begin_deletion(run_id)
    with ReplayClient(settings.replay) as replay:
        episodes = replay.delete_buffer(run_id, timeout_s=REPLAY_TIMEOUT_S)
    for job in evaluations:
        jobs.delete(job.id)
    if Path(run.directory).exists():
        shutil.rmtree(run.directory)
    store.delete(run_id)
    log.info("run_deleted", run=run_id, episodes=episodes)
