"""Routes of runs: starting, watching and ending them."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Body, Depends, Query

from newt.errors import InvalidInputError
from newt.runs.facts import facts_to_tell
from newt.runs.labels import MAX_LABELS, parse_selector
from newt.runs.record import MAX_TAGS, Deleted, Run, RunChanges, RunList, RunState
from newt.runs.spec import RunSpec
from services.learner.processes.deletion import delete_run, delete_run_episodes
from services.learner.processes.learner import Learner
from services.learner.processes.quotas import within_quotas
from services.learner.processes.starting import start_run
from services.learner.rest.described import knows_tasks
from services.learner.rest.errors import DISK_ERRORS

log = structlog.get_logger(__name__)


def run_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    router = APIRouter(tags=["runs"])
    records, keeper = learner.records.runs, learner.runs

    @router.post("/runs", status_code=201, responses=DISK_ERRORS, dependencies=[Depends(knows_tasks(learner))])
    def create_run(spec: RunSpec) -> Run:
        """Starts a run, or queues it. Unknown or impossible settings are answered with 422 naming the field."""
        return start_run(learner, spec)

    @router.get("/runs")
    def list_runs(
        label: Annotated[list[str], Query(max_length=MAX_LABELS, default_factory=list)],
        tag: Annotated[list[str], Query(max_length=MAX_TAGS, default_factory=list)],
        state: RunState | None = None,
        owner: str | None = None,
    ) -> RunList:
        """All runs, oldest first; or somebody's, those in a state, or with all of some labels (NAME=VALUE) or tags."""
        wanted, found = parse_selector(label), records.list_all()
        runs = [
            run
            for run in found.records
            if state in (None, run.state)
            and owner in (None, run.owner)
            and wanted.items() <= run.spec.labels.items()
            and set(tag) <= set(run.tags)
        ]
        runs = [run.model_copy(update={"task_facts": facts_to_tell(run.task_facts)}) for run in runs]
        return RunList(runs=runs, broken=[] if state or owner or wanted or tag else found.broken)

    @router.get("/runs/{run_id}")
    def get_run(run_id: str) -> Run:
        """One run with its progress."""
        return records.get(run_id)

    @router.patch("/runs/{run_id}")
    def change_run(run_id: str, changes: RunChanges) -> Run:
        """Writes tags and notes of a run, at any time; what is left out stays. Nothing else of a run can be changed."""
        records.get(run_id)  # one that cannot be read is told so
        records.annotate(run_id, changes)
        return records.get(run_id)

    @router.post("/runs/{run_id}/cancel")
    def cancel_run(run_id: str) -> Run:
        """Ends a run. Its processes write a last checkpoint and stop."""
        records.cancel(run_id)
        log.info("run_cancelled", run=run_id)
        keeper.wake()
        return records.get(run_id)

    @router.post("/runs/{run_id}/resume")
    def resume_run(run_id: str, body: Any = Body(None, include_in_schema=False)) -> Run:  # noqa: B008 - FastAPI's way
        """Queues a cancelled or failed run again; it goes on from its newest checkpoint, with the settings it has."""
        if body not in (None, {}):
            raise InvalidInputError("body", "a run is resumed with the settings it has; start a new one for others")
        run = records.get(run_id)
        with within_quotas(learner, run.spec, again=run):
            records.resume(run_id)
        log.info("run_resumed", run=run_id)
        keeper.wake()
        return records.get(run_id)

    @router.delete("/runs/{run_id}", status_code=204, responses=DISK_ERRORS)
    def remove_run(run_id: str) -> None:
        """Removes a finished run: its replay buffer, checkpoints, evaluations and records. 409 while it runs."""
        folder = learner.settings.folder
        delete_run(run_id, learner.records, folder, keeper, learner.evaluations, learner.demo_sets)

    @router.delete("/runs/{run_id}/episodes")
    def delete_episodes(run_id: str) -> Deleted:
        """Removes the episodes that an ended run has collected, which frees its demonstration sets for deletion.

        Checkpoints and results stay. If the run is resumed, it collects from the start.
        """
        return Deleted(episodes=delete_run_episodes(run_id, learner.records, keeper, learner.demo_sets))

    return router
