"""Runs as a list shows them: a line each, small enough to be asked for again and again."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from newt.runs.base import OWNER, BrokenRecord, Record
from newt.runs.record import Computing, Run, RunState

EXCERPT = 300


class RunOverview(Record):
    """A run in a line."""

    id: str
    name: str
    state: RunState
    stage: str = Field(description="What it is doing, in words.")
    waiting_on: str | None = Field(description="What it waits for, if something is missing.")
    error: str | None = Field(description="Why it failed.")
    group: str = Field(description="The same for runs with the same settings but for their seed.")
    seed: int
    owner: str | None = Field(None, description=OWNER)
    labels: dict[str, str]
    tags: list[str] = Field(default_factory=list)
    notes: str = Field("", description=f"The first {EXCERPT} characters of them.")
    preset: str
    algorithm: str
    model: str = Field(description="Named size of the model.")
    tasks: int = Field(description="Number of tasks.")
    domains: list[str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: float = Field(description="Share of the work that is done, in [0, 1].")
    eta_s: float | None
    env_steps: int
    total_env_steps: int
    updates: int = Field(description="Updates so far, pretraining included.")
    total_updates: int = Field(description="Updates of the whole run, pretraining included.")
    env_steps_per_s: float
    updates_per_s: float
    restarts: int
    computing: Computing | None = Field(None, description="What it trains on; null unless it is under way.")
    score: float | None = Field(
        description="Mean over the tasks that have one of the corrected score of their latest training episode."
    )

    @classmethod
    def of(cls, run: Run, group: str) -> RunOverview:
        """The line of a run, whose group is known (`newt.runs.groups`)."""
        spec, progress = run.spec, run.progress
        scores = [task.last_score for task in progress.tasks.values() if task.last_score is not None]
        updates = progress.pretrain_updates + progress.updates
        total_updates = progress.total_pretrain_updates + progress.total_updates
        done, whole = (updates, total_updates) if total_updates else (progress.env_steps, progress.total_env_steps)
        share = 1.0 if run.state is RunState.SUCCEEDED else min(1.0, done / whole) if whole else 0.0
        return cls(
            id=run.id,
            name=spec.name,
            state=run.state,
            stage=progress.stage,
            waiting_on=progress.waiting_on,
            error=run.error,
            group=group,
            seed=spec.seed,
            owner=run.owner,
            labels=spec.labels,
            tags=run.tags,
            notes=run.notes[:EXCERPT],
            preset=spec.preset,
            algorithm=spec.algorithm.name,
            model=spec.model.size,
            tasks=len(run.tasks),
            domains=list(dict.fromkeys(task.domain for task in spec.task_list())),
            created_at=run.created_at,
            started_at=run.started_at,
            finished_at=run.finished_at,
            progress=round(share, 4),
            eta_s=progress.eta_s,
            env_steps=progress.env_steps,
            total_env_steps=progress.total_env_steps,
            updates=updates,
            total_updates=total_updates,
            env_steps_per_s=progress.env_steps_per_s,
            updates_per_s=progress.updates_per_s,
            restarts=progress.restarts,
            computing=progress.computing if run.state.active else None,
            score=sum(scores) / len(scores) if scores else None,
        )


class Overview(Record):
    """GET /overview."""

    runs: list[RunOverview] = Field(description="All runs, newest first.")
    broken: list[BrokenRecord] = Field(default_factory=list, description="Records that cannot be read.")
