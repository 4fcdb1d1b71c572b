"""A run as others see it: its state, progress and results. These models are the bodies of the REST API."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, StringConstraints, model_validator

from newt.runs.base import OWNER, TRACEPARENT, BrokenRecord, Record, now
from newt.runs.facts import read_facts
from newt.runs.spec import RunSpec, stored_tasks
from newt.tasks.registry import Task
from newt.trace import Trace

MAX_TAGS, MAX_TAG, MAX_NOTES = 20, 50, 20_000


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
RESUMABLE = frozenset({RunState.CANCELLED, RunState.FAILED})

ACTIVE = frozenset({RunState.PRETRAINING, RunState.TRAINING, RunState.EVALUATING})


class TaskProgress(Record):
    """How one task is doing in training."""

    env_steps: int = Field(0, description="Transitions stored.")
    episodes: int = Field(0, description="Episodes stored.")
    demo_episodes: int = Field(0, description="Demonstrations available.")
    last_return: float | None = Field(None, description="Return of the latest training episode.")
    last_score: float | None = Field(None, description="Corrected score in [0, 1] of the latest training episode.")
    last_success: float | None = Field(None, description="Success of the latest training episode, if it is defined.")


class Computing(Record):
    """What a process computes on."""

    device: str = Field(description="As torch names it: cpu, cuda:0. Of several training processes, the first one's.")
    precision: str = Field(description="How matrices are multiplied: float32, tf32 or bfloat16.")
    compiled: bool = Field(
        False,
        description="Whether compiled code computes: of a trainer, now (updates change to it at a checkpoint); of a "
        "planner, as soon as it is made.",
    )
    warning: str | None = Field(
        None, description="What is wrong with it and what to do, such as a GPU that is there and not used."
    )


class Progress(Record):
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
    updates_behind: float | None = Field(
        None, description="Updates that the env steps taken have earned and that are not done; null before the first."
    )
    weights_age_updates: float | None = Field(
        None, description="Updates done since the weights were made that choose the actions; null while unknown."
    )
    weights_age_s: float | None = Field(None, description="Seconds since then; null while unknown.")
    eta_s: float | None = Field(None, description="Estimated seconds to the end; null while unknown.")
    weights_version: int = Field(0, description="Newest version of the weights sent to the planners; 0 for none.")
    restarts: int = Field(0, description="Crashed processes that were restarted.")
    computing: Computing | None = Field(
        None, description="What the run trains on; null before it has begun, and in records of before it was told."
    )
    losses: dict[str, float] = Field(default_factory=dict, description="Latest training metrics.")
    tasks: dict[str, TaskProgress] = Field(default_factory=dict)


class EpisodeStats(Record):
    """Means over the episodes of one task in one evaluation."""

    score: float = Field(description="Normalised score in [0, 1], as published.")
    corrected_score: float = Field(
        # Records of before it was stored have none: there it is the score.
        default_factory=lambda stats: stats["score"],
        description="Score in [0, 1] that tables and means use: `score`, but for the tasks in docs/scores.md.",
    )
    return_: float = Field(alias="return", description="Sum of rewards.")
    score_std: float | None = Field(
        None,
        description="Standard deviation of the corrected score over the episodes; null of a single one, and in records "
        "of before it was stored.",
    )
    success: float | None = Field(None, description="Share of successes; null where the task defines none.")
    length: float = Field(description="Steps.")
    episodes: int = Field(description="Episodes that were averaged.")


class OpenLoopPoint(Record):
    """Where open-loop and closed-loop control stand after a share of the plan; means over the same episodes."""

    share: float = Field(description="Share of the plan, in (0, 1].")
    steps: int = Field(description="Steps that this is.")
    open_return: float = Field(description="Sum of rewards so far without feedback.")
    closed_return: float = Field(description="Sum of rewards so far with planning at every step.")
    fraction: float | None = Field(
        None, description="open_return over closed_return; null unless closed_return is positive."
    )


class OpenLoopStats(Record):
    """One plan, executed without feedback from the first observation on, of one task."""

    plan_steps: int = Field(description="Length of the plan.")
    episodes: int
    points: list[OpenLoopPoint] = Field(description="After a third, two thirds and all of the plan.")


EvaluationKind = Literal["random", "pretrained", "periodic", "final", "final_policy", "requested"]


class Evaluation(Record):
    """One evaluation of one version of the weights."""

    kind: EvaluationKind
    mode: Literal["random", "policy", "planner", "open_loop"]
    env_steps: int = Field(description="Env steps of the run at that time.")
    weights_version: int = Field(0, description="Lowest version of the weights that acted; 0 for random actions.")
    checkpoint: str | None = None
    finished_at: datetime = Field(default_factory=now)
    tasks: dict[str, EpisodeStats] = Field(description="Means by task; of an open loop, up to the end of the plan.")
    open_loop: dict[str, OpenLoopStats] = Field(default_factory=dict, description="By task, in mode open_loop.")
    videos: dict[str, str] = Field(
        default_factory=dict, description="Of a periodic evaluation: task to name of its video, among the run's."
    )

    def mean_score(self) -> float:
        """Unweighted mean of the corrected scores over the tasks."""
        return sum(stats.corrected_score for stats in self.tasks.values()) / len(self.tasks)


class TaskResults(Record):
    """The milestones of one task; null until reached."""

    random: EpisodeStats | None = None
    pretrained: EpisodeStats | None = None
    final: EpisodeStats | None = None
    final_policy: EpisodeStats | None = Field(None, description="The final agent's policy alone, without planning.")


class MeanScores(Record):
    """Unweighted mean of the corrected scores over the tasks; null where one of them is missing."""

    random: float | None = None
    pretrained: float | None = None
    final: float | None = None
    final_policy: float | None = None


class RunResults(Record):
    """What came out of a run, so far."""

    run_id: str
    state: RunState
    mean_score: MeanScores
    tasks: dict[str, TaskResults]
    evaluations: list[Evaluation] = Field(description="All evaluations in order.")
    unreadable: int = Field(0, description="Stored evaluations that cannot be read; they are left out.")
    videos: dict[str, str] = Field(default_factory=dict, description="Task to name of its video.")

    @classmethod
    def build(
        cls,
        run_id: str,
        state: RunState,
        tasks: list[str],
        evaluations: list[Evaluation],
        videos: dict[str, str],
        unreadable: int = 0,
    ) -> RunResults:
        """Puts the milestones of all evaluations into one table."""
        rows = {task: TaskResults() for task in tasks}
        means = MeanScores()
        for evaluation in evaluations:
            if evaluation.kind not in TaskResults.model_fields:
                continue
            # Without a task that could not be played it would be the mean of others.
            whole = rows.keys() <= evaluation.tasks.keys()
            setattr(means, evaluation.kind, evaluation.mean_score() if whole else None)
            for task, stats in evaluation.tasks.items():
                if task in rows:  # an older learner may have resolved the run's globs anew
                    setattr(rows[task], evaluation.kind, stats)
        return cls(
            run_id=run_id,
            state=state,
            mean_score=means,
            tasks=rows,
            evaluations=evaluations,
            videos=videos,
            unreadable=unreadable,
        )


Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TAG, pattern=r"^[^,\n\r]*$")]


class RunChanges(Record):
    """PATCH /runs/{id}: what people write about a run. It changes nothing in the run; what is left out stays."""

    tags: list[Tag] | None = Field(
        None, max_length=MAX_TAGS, description="Words to find it by, without commas; all of them: [] removes them."
    )
    notes: str | None = Field(None, max_length=MAX_NOTES, description="Text in Markdown; empty removes it.")

    @model_validator(mode="after")
    def _once(self) -> RunChanges:
        if self.tags is not None:
            self.tags = list(dict.fromkeys(self.tags))
        return self


class Run(Record):
    """The record of a run."""

    id: str
    state: RunState
    attempt: int = Field(
        description="Grows with every start of the run's processes; writers of older ones are refused."
    )
    spec: RunSpec
    ignored: list[str] = Field(
        default_factory=list,
        description="Settings of `spec` that a later version has stored and this one does not know: kept, not obeyed.",
    )
    tasks: list[str] = Field(description="The tasks that the spec selects, in the order of the model's task table.")
    task_facts: list[Task] = Field(
        default_factory=list,
        description="What these tasks were when the run was created, which is what they are to it; empty in records of "
        "before it was stored.",
    )
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = Field(None, description="Why the run failed.")
    owner: str | None = Field(None, description=OWNER)
    tags: list[str] = Field(default_factory=list, description="Words that people have put on it.")
    notes: str = Field("", description="What people have written about it, in Markdown.")
    request_id: str | None = Field(
        None,
        description="X-Request-Id of the request that started it, or resumed it last; in all logs of its work.",
    )
    traceparent: str | None = Field(None, description=TRACEPARENT)
    progress: Progress
    directory: str = Field(
        description="Folder with checkpoints, videos, logs and results.json on the learner's machine."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _with_own_tasks(cls, data: Any, read: ModelWrapValidatorHandler[Run]) -> Run:
        """Its spec means the tasks that are stored with it, also where nobody else knows them."""
        with stored_tasks(read_facts(data.get("task_facts"))) if isinstance(data, dict) else nullcontext():
            return read(data)

    def origin(self) -> Trace | None:
        """What its processes follow; None in records of before there was anything to follow."""
        return Trace(self.request_id, self.id, self.traceparent or "") if self.request_id else None


class RunList(Record):
    """GET /runs."""

    runs: list[Run] = Field(description="Without the facts of a run's tasks if all are of our own table.")
    broken: list[BrokenRecord] = Field(default_factory=list, description="Records that cannot be read.")


class MetricsRow(Record):
    """One row of a run's metrics history."""

    id: str = Field(description="Position in the history; pass it as `after` to read on.")
    time: datetime
    source: Literal["trainer", "collector", "evaluation"]
    env_steps: int
    updates: int = Field(description="Updates so far, pretraining included.")
    values: dict[str, float]


class MetricsHistory(Record):
    """GET /runs/{id}/metrics."""

    rows: list[MetricsRow]


class Event(Record):
    """Something that happened in a run; the data of one server-sent event."""

    id: str
    time: datetime
    kind: Literal["state", "evaluation", "checkpoint", "restart", "warning"]
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class Checkpoint(Record):
    """A stored checkpoint."""

    name: str
    size_bytes: int
    env_steps: int = 0
    updates: int = Field(0, description="Updates so far, pretraining included.")
    created_at: datetime
    score: float | None = Field(
        None,
        description="Mean score of the run's own evaluation that began when this was the newest checkpoint; null if "
        "there was none.",
    )
    best: bool = Field(False, description="Whether it has the best score: `best` names it, and it is kept.")
    broken: str | None = Field(None, description="Why the file cannot be used; null for a whole one.")


class CheckpointList(Record):
    """GET /runs/{id}/checkpoints, oldest first."""

    checkpoints: list[Checkpoint]


class ImportedCheckpoint(Record):
    """A checkpoint that was brought in; requests name it `imported/NAME`."""

    name: str
    size_bytes: int
    model: str = Field(description="Named size of the model; empty if the file cannot be used.")
    tasks: list[str] = Field(description="Tasks of its table, in row order.")
    text_encoder: str | None = Field(None, description="Who embedded its instructions, if the file tells.")
    created_at: datetime
    broken: str | None = Field(None, description="Why the file cannot be used; null for a whole one.")


class ImportedCheckpointList(Record):
    """GET /checkpoints."""

    checkpoints: list[ImportedCheckpoint]


class TaskInfo(Record):
    """One task, of Newt's or of a simulator's own."""

    name: str
    domain: str
    split: str
    obs_dim: int
    action_dim: int
    episode_length: int
    has_success: bool
    has_expert: bool
    instruction: str
    discount: float
    score_rule: str = Field(description="How an episode's score comes about; empty where it is published.")
    steps_per_s: float | None = Field(
        None, description="Env steps per second of simulated time; null where the task does not say."
    )
    simulator: Literal["reachable", "unreachable", "not configured"]
    picture: bool = Field(False, description="Whether GET /tasks/{name}/picture has one, or can have it drawn now.")


class BestScore(Record):
    """The best mean score of an evaluation of a run here, on one task."""

    task: str
    score: float = Field(description="Corrected score in [0, 1], mean over the evaluation's episodes.")
    success: float | None
    episodes: int
    run_id: str
    kind: EvaluationKind
    mode: str
    env_steps: int = Field(description="Env steps of the run at that time.")

    @classmethod
    def each(cls, run_id: str, evaluation: Evaluation) -> list[BestScore]:
        """What an evaluation says of each of its tasks."""
        return [
            cls(
                task=task,
                score=stats.corrected_score,
                success=stats.success,
                episodes=stats.episodes,
                run_id=run_id,
                kind=evaluation.kind,
                mode=evaluation.mode,
                env_steps=evaluation.env_steps,
            )
            for task, stats in evaluation.tasks.items()
        ]


class BestScores(Record):
    """GET /tasks/scores."""

    scores: dict[str, BestScore] = Field(description="By task; tasks that no run was evaluated on are left out.")


class TaskList(Record):
    """GET /tasks."""

    tasks: list[TaskInfo]
    sets: dict[str, str] = Field(description="Task sets and what they are.")
    refused: dict[str, str] = Field(
        default_factory=dict, description="Names that simulators describe but that cannot be used, and why."
    )


class Deleted(Record):
    """What a DELETE has removed."""

    episodes: int


class Readiness(Record):
    """GET /readyz; status 503 unless Redis, replay, planner and at least one simulator are there."""

    ready: bool
    missing: dict[str, str] = Field(default_factory=dict, description="What is missing: name to reason.")
    broken: list[BrokenRecord] = Field(
        default_factory=list, description="Stored records that cannot be read; everything else goes on without them."
    )


class FieldError(Record):
    """One wrong field of a request."""

    field: str
    message: str


class ApiError(Record):
    """Body of every error reply."""

    error: str = Field(description="Kind of the error, for programs.")
    message: str = Field(description="What was got, what was expected, what to do.")
    fields: list[FieldError] = Field(default_factory=list)
