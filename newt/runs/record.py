"""A run as others see it: its state, progress and results. These models are the bodies of the REST API."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from newt.runs.spec import SET_NAME, RunSpec


class RunState(StrEnum):
    """Where a run is in its life.

    queued -> pretraining -> evaluating -> training <-> evaluating -> succeeded; every state before that can become
    failed or cancelled, and those two can be resumed, which makes them queued again. A finished run that is being
    removed is deleting; if that was interrupted, it can be asked for again.
    """

    QUEUED = "queued"
    PRETRAINING = "pretraining"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETING = "deleting"

    @property
    def finished(self) -> bool:
        """Whether the run has ended; nothing but a resume changes it any more."""
        return self in FINISHED

    @property
    def active(self) -> bool:
        """Whether the run has processes."""
        return self in ACTIVE


FINISHED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.DELETING})
ACTIVE = frozenset({RunState.PRETRAINING, RunState.TRAINING, RunState.EVALUATING})


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class TaskProgress(_Record):
    """How one task is doing in training."""

    env_steps: int = Field(0, description="Transitions stored.")
    episodes: int = Field(0, description="Episodes stored.")
    demo_episodes: int = Field(0, description="Demonstrations available.")
    last_return: float | None = Field(None, description="Return of the latest training episode.")
    last_score: float | None = Field(None, description="Corrected score in [0, 1] of the latest training episode.")
    last_success: float | None = Field(None, description="Success of the latest training episode, if it is defined.")


class Progress(_Record):
    """How far a run is; refreshed about once a second."""

    stage: str = Field("queued", description="What the run is doing, in words.")
    waiting_on: str | None = Field(None, description="What the run waits for, if something is missing.")
    env_steps: int = Field(0, description="Transitions stored durably.")
    total_env_steps: int = 0
    pretrain_updates: int = 0
    total_pretrain_updates: int = 0
    updates: int = Field(0, description="Online updates done.")
    total_updates: int = Field(0, description="Online updates of the whole run.")
    env_steps_per_s: float = Field(0.0, description="Env steps taken per second, lately.")
    updates_per_s: float = Field(0.0, description="Updates per second, lately.")
    eta_s: float | None = Field(None, description="Estimated seconds to the end; null while unknown.")
    weights_version: int = Field(0, description="Newest version of the weights sent to the planners; 0 for none.")
    restarts: int = Field(0, description="Crashed processes that were restarted.")
    losses: dict[str, float] = Field(default_factory=dict, description="Latest training metrics.")
    tasks: dict[str, TaskProgress] = Field(default_factory=dict)


class EpisodeStats(_Record):
    """Means over the episodes of one task in one evaluation."""

    score: float = Field(description="Normalised score in [0, 1], as published.")
    corrected_score: float = Field(
        # Records of before it was stored have none: there it is the score.
        default_factory=lambda stats: stats["score"],
        description="Score in [0, 1] that tables and means use: `score`, but for the tasks in docs/scores.md.",
    )
    return_: float = Field(alias="return", description="Sum of rewards.")
    success: float | None = Field(None, description="Share of successes; null where the task defines none.")
    length: float = Field(description="Steps.")
    episodes: int = Field(description="Episodes that were averaged.")


class OpenLoopPoint(_Record):
    """Where open-loop and closed-loop control stand after a share of the plan; means over the same episodes."""

    share: float = Field(description="Share of the plan, in (0, 1].")
    steps: int = Field(description="Steps that this is.")
    open_return: float = Field(description="Sum of rewards so far without feedback.")
    closed_return: float = Field(description="Sum of rewards so far with planning at every step.")
    fraction: float | None = Field(
        None, description="open_return over closed_return; null unless closed_return is positive."
    )


class OpenLoopStats(_Record):
    """One plan, executed without feedback from the first observation on, of one task."""

    plan_steps: int = Field(description="Length of the plan.")
    episodes: int
    points: list[OpenLoopPoint] = Field(description="After a third, two thirds and all of the plan.")


EvaluationKind = Literal["random", "pretrained", "periodic", "final", "requested"]


class Evaluation(_Record):
    """One evaluation of one version of the weights."""

    kind: EvaluationKind
    mode: Literal["random", "policy", "planner", "open_loop"]
    env_steps: int = Field(description="Env steps of the run at that time.")
    weights_version: int = Field(0, description="Lowest version of the weights that acted; 0 for random actions.")
    checkpoint: str | None = None
    finished_at: datetime = Field(default_factory=now)
    tasks: dict[str, EpisodeStats] = Field(description="Means by task; of an open loop, up to the end of the plan.")
    open_loop: dict[str, OpenLoopStats] = Field(default_factory=dict, description="By task, in mode open_loop.")

    def mean_score(self) -> float:
        """Unweighted mean of the corrected scores over the tasks."""
        return sum(stats.corrected_score for stats in self.tasks.values()) / len(self.tasks)


class TaskResults(_Record):
    """The three milestones of one task; null until reached."""

    random: EpisodeStats | None = None
    pretrained: EpisodeStats | None = None
    final: EpisodeStats | None = None


class MeanScores(_Record):
    """Unweighted mean of the corrected scores over the tasks."""

    random: float | None = None
    pretrained: float | None = None
    final: float | None = None


class RunResults(_Record):
    """What came out of a run, so far."""

    run_id: str
    state: RunState
    mean_score: MeanScores
    tasks: dict[str, TaskResults]
    evaluations: list[Evaluation] = Field(description="All evaluations in order.")
    videos: dict[str, str] = Field(default_factory=dict, description="Task to name of its video.")

    @classmethod
    def build(
        cls, run_id: str, state: RunState, tasks: list[str], evaluations: list[Evaluation], videos: dict[str, str]
    ) -> RunResults:
        """Puts the milestones of all evaluations into one table."""
        rows = {task: TaskResults() for task in tasks}
        means = MeanScores()
        for evaluation in evaluations:
            if evaluation.kind not in ("random", "pretrained", "final"):
                continue
            setattr(means, evaluation.kind, evaluation.mean_score())
            for task, stats in evaluation.tasks.items():
                setattr(rows[task], evaluation.kind, stats)
        return cls(run_id=run_id, state=state, mean_score=means, tasks=rows, evaluations=evaluations, videos=videos)


class Run(_Record):
    """The record of a run."""

    id: str
    state: RunState
    attempt: int = Field(
        description="Grows with every start of the run's processes; writers of older ones are refused."
    )
    spec: RunSpec
    tasks: list[str] = Field(description="The tasks that the spec selects, in the order of the model's task table.")
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = Field(None, description="Why the run failed.")
    request_id: str | None = Field(
        None,
        description="X-Request-Id of the request that started it, or resumed it last; in all logs of its work.",
    )
    progress: Progress
    directory: str = Field(
        description="Folder with checkpoints, videos, logs and results.json on the learner's machine."
    )


class RunList(_Record):
    """GET /runs."""

    runs: list[Run]


class MetricsRow(_Record):
    """One row of a run's metrics history."""

    id: str = Field(description="Position in the history; pass it as `after` to read on.")
    time: datetime
    source: Literal["trainer", "collector", "evaluation"]
    env_steps: int
    updates: int = Field(description="Updates so far, pretraining included.")
    values: dict[str, float]


class MetricsHistory(_Record):
    """GET /runs/{id}/metrics."""

    rows: list[MetricsRow]


class Event(_Record):
    """Something that happened in a run; the data of one server-sent event."""

    id: str
    time: datetime
    kind: Literal["state", "stage", "waiting", "evaluation", "checkpoint", "restart", "warning", "error"]
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class Checkpoint(_Record):
    """A stored checkpoint."""

    name: str
    size_bytes: int
    env_steps: int
    updates: int = Field(description="Updates so far, pretraining included.")
    created_at: datetime


class CheckpointList(_Record):
    """GET /runs/{id}/checkpoints, oldest first."""

    checkpoints: list[Checkpoint]


class ImportedCheckpoint(_Record):
    """A checkpoint that was brought in; requests name it `imported/NAME`."""

    name: str
    size_bytes: int
    model: str = Field(description="Named size of the model.")
    tasks: list[str] = Field(description="Tasks of its table, in row order.")
    text_encoder: str | None = Field(None, description="Who embedded its instructions, if the file tells.")
    created_at: datetime


class ImportedCheckpointList(_Record):
    """GET /checkpoints."""

    checkpoints: list[ImportedCheckpoint]


MAX_PLAN_STEPS = 48


class EvaluationRequest(_Record):
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
        "episode's first observation without feedback, and compares it with planner on the same episodes.",
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
    seed: int = Field(0, ge=0, lt=2**63, description="Origin of the episodes' seeds.")
    videos: bool = Field(False, description="Record one video per task.")


class CheckpointEvaluationRequest(EvaluationRequest):
    """POST /evaluations."""

    checkpoint: str = Field(description="RUN (its newest), RUN/NAME, or imported/NAME.")


class RunEvaluationRequest(EvaluationRequest):
    """POST /runs/{id}/evaluate."""

    checkpoint: str | None = Field(None, description="Name of one of the run's checkpoints; null: the newest.")


class EvaluationJob(_Record):
    """An evaluation that was asked for."""

    id: str
    run_id: str | None = Field(None, description="Run of the checkpoint; null for an imported one.")
    state: Literal["running", "succeeded", "failed"]
    attempt: int = Field(1, description="Grows when a restarted learner starts the evaluation again.")
    request: CheckpointEvaluationRequest = Field(
        description="As asked for, with the checkpoint named in full and the tasks by name."
    )
    checkpoint_sha256: str = Field(description="Digest of the checkpoint's content.")
    request_id: str | None = Field(
        None, description="X-Request-Id of the request that asked for it; in all logs of what is done for it."
    )
    created_at: datetime
    finished_at: datetime | None = None
    progress: float = Field(0.0, description="Share of the steps that are done.")
    waiting_on: str | None = Field(None, description="What it waits for, if a service is away.")
    error: str | None = None
    result: Evaluation | None = None
    videos: dict[str, str] = Field(default_factory=dict, description="Task to name of its video.")


class EvaluationJobList(_Record):
    """GET /evaluations."""

    evaluations: list[EvaluationJob]


class PlayedEpisode(_Record):
    """One episode of an evaluation."""

    task: str
    seed: int
    mode: Literal["random", "policy", "planner", "open_loop"]
    return_: float = Field(alias="return")
    score: float
    success: float | None = None
    length: int


class EvaluationReport(_Record):
    """GET /evaluations/{id}/report: everything about a finished evaluation, its single episodes included."""

    evaluation: EvaluationJob
    plan: dict[str, Any] = Field(description="Planning settings that were used.")
    instructions: dict[str, str] = Field(description="Text of every task that the agent was told.")
    episodes: list[PlayedEpisode]


class TaskInfo(_Record):
    """One registered task."""

    name: str
    domain: str
    split: str
    obs_dim: int
    action_dim: int
    episode_length: int
    has_success: bool
    has_expert: bool
    instruction: str
    simulator: Literal["reachable", "unreachable", "not configured"]


class TaskList(_Record):
    """GET /tasks."""

    tasks: list[TaskInfo]
    sets: dict[str, str] = Field(description="Task sets and what they are.")


class DemoTaskInfo(_Record):
    """Demonstrations of one task."""

    task: str
    episodes: int
    rows: int
    mean_return: float
    mean_score: float
    mean_success: float | None
    image_dim: int = Field(0, description="Columns of image features; 0 without.")
    image_encoder: str | None = Field(None, description="What made them, if that is known.")


SetName = Annotated[str, Field(pattern=SET_NAME, description="Name of the new set.")]


class AgentDemosRequest(_Record):
    """POST /runs/{id}/demos: the run's agent plays, and its good episodes become demonstrations."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: SetName
    tasks: list[str] | None = Field(None, min_length=1, description="Some of the run's tasks; null: all of them.")
    episodes: int = Field(20, ge=1, le=1000, description="Demonstrations per task; twice as many episodes are played.")
    mode: Literal["planner", "policy"] = Field("planner", description="Who acts, without exploration.")
    checkpoint: str | None = Field(None, description="Name of a checkpoint; null: the newest.")
    seed: int = Field(0, ge=0, lt=2**63, description="Origin of the episodes' seeds.")


class ScriptedDemosRequest(_Record):
    """POST /demos: scripted experts play, and their successful episodes become demonstrations."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: SetName
    tasks: list[str] = Field(min_length=1, description="Task names, globs, domains or task sets.")
    episodes: int = Field(20, ge=1, le=1000, description="Demonstrations per task.")


class FeatureDemosRequest(_Record):
    """POST /demos/features: the episodes of a set are played again, and become a set with image features."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: SetName
    source: str = Field(description="The set whose episodes are played again; it stays as it is.")
    tasks: list[str] | None = Field(None, min_length=1, description="Some of its tasks; null: all of them.")
    frames: int = Field(1, ge=1, le=8, description="Frames that an agent sees at once: vision.frames of its run.")


class DemoYield(_Record):
    """What a collection has brought for one task."""

    wanted: int = Field(description="Demonstrations that were asked for.")
    kept: int = Field(description="Demonstrations in the set.")
    played: int | None = Field(None, description="Episodes that an agent played; null for scripted experts.")
    accepted: int | None = Field(None, description="How many of them the accept rule would have let pass.")
    threshold: float | None = Field(None, description="Return that an accepted episode exceeds.")
    missing: str | None = Field(None, description="Why there are fewer demonstrations than wanted.")


class DemoCollection(_Record):
    """How a set was, or is being, collected. The set can be used when the state is succeeded."""

    name: str
    state: Literal["collecting", "succeeded", "failed", "cancelled"]
    source: Literal["scripted", "agent", "features"]
    request: ScriptedDemosRequest | AgentDemosRequest | FeatureDemosRequest
    tasks: list[str]
    run_id: str | None = Field(None, description="Whose agent played.")
    checkpoint: str | None = Field(None, description="Which checkpoint of the run.")
    created_at: datetime
    request_id: str | None = Field(
        None, description="X-Request-Id of the request that asked for it; in all logs of what is done for it."
    )
    progress: float = Field(0.0, description="Share of the work that is done.")
    waiting_on: str | None = Field(None, description="What the collection waits for, if something is missing.")
    error: str | None = Field(None, description="Why it failed.")
    unfinished: bool = Field(
        True, description="Replay may hold episodes of it that are part of no whole set; they are being removed."
    )
    yields: dict[str, DemoYield] = Field(default_factory=dict, description="What came out, by task.")


class DemoSetInfo(_Record):
    """A named set of demonstrations."""

    name: str
    usable: bool = Field(description="Whether runs may name it: false until its collection has succeeded.")
    size_bytes: int
    tasks: list[DemoTaskInfo]
    collection: DemoCollection | None = Field(
        None, description="How it was collected; null for imported sets and those that runs fill by themselves."
    )


class DemoSetList(_Record):
    """GET /demos."""

    demo_sets: list[DemoSetInfo]


class Deleted(_Record):
    """What a DELETE has removed."""

    episodes: int


class Readiness(_Record):
    """GET /readyz; status 503 unless Redis, replay, planner and at least one simulator are there."""

    ready: bool
    missing: dict[str, str] = Field(default_factory=dict, description="What is missing: name to reason.")


class FieldError(_Record):
    """One wrong field of a request."""

    field: str
    message: str


class ApiError(_Record):
    """Body of every error reply."""

    error: str = Field(description="Kind of the error, for programs.")
    message: str = Field(description="What was got, what was expected, what to do.")
    fields: list[FieldError] = Field(default_factory=list)
