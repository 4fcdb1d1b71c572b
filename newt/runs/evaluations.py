"""Evaluations of checkpoints: what is asked for, and what comes back. Bodies of the REST API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from newt.runs.base import BrokenRecord, Record
from newt.runs.jobs import Job
from newt.runs.record import Evaluation
from newt.tasks.registry import Task

MAX_PLAN_STEPS = 48


class EvaluationRequest(Record):
    """What to evaluate, and how; the checkpoint is named beside it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tasks: list[str] | None = Field(
        None,
        min_length=1,
        description="Task names, globs, domains or sets, trained on or not; null: the checkpoint's tasks.",
    )
    episodes: int = Field(2, ge=1, le=1000, description="Episodes per task.")
    mode: Literal["planner", "policy", "open_loop"] = Field(
        "planner",
        description="planner: plans at every step; policy: the policy's mean; open_loop: executes one plan from each "
        "episode's first observation without feedback, and compares it with planner on the same episodes. Left out: "
        "planner, or policy for an agent that acts by its policy.",
    )
    plan_steps: int = Field(
        MAX_PLAN_STEPS,
        ge=1,
        le=MAX_PLAN_STEPS,
        description="Length of the plan in mode open_loop; no longer than an episode.",
    )
    instructions: dict[str, str] = Field(
        default_factory=dict,
        description="Task to the whole text that replaces its instruction (GET /tasks shows the original).",
    )
    constraint_weight: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the policy in a plan's first proposal, for all tasks; 0 plans freely; null: what "
        "training had reached, by task.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Origin of the episodes' seeds.")
    videos: bool = Field(False, description="Record one video per task.")


class CheckpointEvaluationRequest(EvaluationRequest):
    """POST /evaluations."""

    checkpoint: str = Field(description="RUN (its newest), RUN/NAME, RUN/best, or imported/NAME.")


class RunEvaluationRequest(EvaluationRequest):
    """POST /runs/{id}/evaluate."""

    checkpoint: str | None = Field(
        None, description="Name of one of the run's checkpoints, newest or best; null: newest."
    )


class EvaluationJob(Job):
    """An evaluation that was asked for."""

    id: str
    state: Literal["running", "succeeded", "failed"]
    request: CheckpointEvaluationRequest = Field(
        description="As asked for, with the checkpoint named in full and the tasks by name."
    )
    task_facts: list[Task] = Field(
        default_factory=list,
        description="What its tasks were when it was asked for; empty in records of before it was stored.",
    )
    checkpoint_sha256: str = Field(description="Digest of the checkpoint's content.")
    result: Evaluation | None = None
    videos: dict[str, str] = Field(default_factory=dict, description="Task to name of its video.")

    @property
    def job_id(self) -> str:
        """Its id."""
        return self.id


class EvaluationJobList(Record):
    """GET /evaluations."""

    evaluations: list[EvaluationJob]
    broken: list[BrokenRecord] = Field(default_factory=list, description="Records that cannot be read.")


class PlayedEpisode(Record):
    """One episode of an evaluation."""

    task: str
    seed: int
    mode: Literal["random", "policy", "planner", "open_loop"]
    return_: float = Field(alias="return")
    score: float
    success: float | None = None
    length: int


class EvaluationReport(Record):
    """GET /evaluations/{id}/report: everything about a finished evaluation, its single episodes included."""

    evaluation: EvaluationJob
    plan: dict[str, Any] = Field(description="Planning settings that were used.")
    constraint_weights: dict[str, float] = Field(
        default_factory=dict,
        description="Share of the policy in the first proposal of each task's plans; empty without plans.",
    )
    instructions: dict[str, str] = Field(description="Text of every task that the agent was told.")
    episodes: list[PlayedEpisode]
