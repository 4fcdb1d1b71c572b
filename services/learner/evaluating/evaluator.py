"""A requested evaluation: `python -m services.learner.evaluating.evaluator --job ID --attempt N`.

The checkpoint is served by the planners as a model of its own, so that a training run goes on undisturbed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from newt.acting.trained import as_trained
from newt.agent.task_table import TaskTable
from newt.baselines.checkpoints import PolicyCheckpoint
from newt.runs.base import now
from newt.runs.evaluations import EvaluationJob, EvaluationReport, PlayedEpisode
from newt.runs.facts import tasks_of
from newt.runs.record import Evaluation, OpenLoopPoint, OpenLoopStats
from services.learner.checkpoints import library
from services.learner.checkpoints.files import AnyCheckpoint
from services.learner.checkpoints.task_table import task_table
from services.learner.evaluating.plan import EvaluationPlan, PlannedEpisode
from services.learner.evaluating.play import EvaluationOutcome, evaluate
from services.learner.playing.actor import Acting, Mode
from services.learner.playing.local import LocalModel
from services.learner.playing.served import served
from services.learner.playing.sight import Vision
from services.learner.worker.connections import Services
from services.learner.worker.main import JobContext, job_child
from services.learner.worker.reporter import REPORT_EVERY_S, every

OPEN_LOOP_MARKS = (1 / 3, 2 / 3, 1.0)

log = structlog.get_logger(__name__)


def model_id(job: EvaluationJob) -> str:
    """Name of an evaluation's model at the planners, by attempt: one that is still ending retires its own alone."""
    return f"evaluation-{job.id}-{job.attempt}"


@dataclass(frozen=True)
class _Acting:
    """Who acts, and what the report says of it: settings of planning and constraint weights, none without planner."""

    model: Acting
    plan: dict[str, Any] = field(default_factory=dict)
    constraint_weights: dict[str, float] = field(default_factory=dict)


class Evaluator:
    """Plays what a job asks for.

    Args:
        context: Context of the process.
    """

    def __init__(self, context: JobContext[EvaluationJob]) -> None:
        self._context = context
        self._settings, self._job, self._stop = context.settings, context.job, context.stop
        self._folder = self._settings.folder
        self._share = 0.0

    def run(self) -> dict[str, Any]:
        """Plays all episodes and writes the report; returns what comes out, as fields of the record."""
        request, folder = self._job.request, self._folder.evaluation(self._job.id)
        checkpoint = library.load(self._folder.evaluation_checkpoint(self._job.id))
        tasks = tasks_of(request.tasks or (), self._job.task_facts)
        table, _ = task_table(checkpoint, tasks, request.instructions)
        open_loop = request.mode == "open_loop"
        limit_s = self._settings.dependency_timeout_s
        vision = None if isinstance(checkpoint, PolicyCheckpoint) else Vision.of(self._settings, checkpoint)
        domains = {task.domain for task in tasks}
        with (
            self._acting(checkpoint, table) as acting,
            Services.connect(self._settings, domains, self._stop, limit_s, vision) as services,
            every(REPORT_EVERY_S, lambda: self._report(services), self._stop),
        ):
            services.check_sims(tasks)
            plan = EvaluationPlan(
                tasks=tasks,
                episodes=request.episodes,
                mode=request.mode,
                model=acting.model,
                seed=request.seed,
                max_steps=request.plan_steps if open_loop else None,
                marks=OPEN_LOOP_MARKS if open_loop else (),
                video_folder=folder / "videos" if request.videos else None,
            )
            # An open loop is measured by what the same agent does with feedback.
            plans = [plan, replace(plan, mode="planner", video_folder=None)] if open_loop else [plan]
            outcomes = {part.mode: self._play(services, part, len(plans)) for part in plans}
        outcome = outcomes[request.mode]
        result = Evaluation(
            kind="requested",
            mode=request.mode,
            env_steps=int(checkpoint.info.get("env_steps", 0)),
            weights_version=outcome.weights_version,
            checkpoint=request.checkpoint,
            tasks=outcome.tasks,
            open_loop=open_loop_stats(plan, outcomes) if open_loop else {},
        )
        fields = {"result": result, "videos": outcome.videos}
        done = {"state": "succeeded", "progress": 1.0, "finished_at": now(), **fields}
        report = EvaluationReport(
            evaluation=self._job.model_copy(update=done),
            plan=acting.plan,
            constraint_weights=acting.constraint_weights,
            instructions={task.name: request.instructions.get(task.name, task.instruction) for task in tasks},
            episodes=[_told(episode, mode) for mode, played in outcomes.items() for episode in played.episodes],
        )
        self._folder.evaluation_report(self._job.id).write_text(report.model_dump_json(indent=1))
        return fields

    @contextmanager
    def _acting(self, checkpoint: AnyCheckpoint, table: TaskTable) -> Iterator[_Acting]:
        """The checkpoint's agent at the planners, or its policy in this process."""
        if isinstance(checkpoint, PolicyCheckpoint):
            yield _Acting(LocalModel(checkpoint.policy(table), table.names))
            return
        config, guidance = as_trained(checkpoint, table.names)
        request = self._job.request
        weights, asked = guidance.weights(config, table.names), request.constraint_weight
        if asked is not None:
            weights[:] = asked
        by_task = {} if request.mode == "policy" else dict(zip(table.names, map(float, weights), strict=True))
        with served(self._settings, checkpoint.model(table), config, guidance, model_id(self._job)) as model:
            yield _Acting(replace(model, constraint_weight=asked), config.to_dict(), by_task)

    def _report(self, services: Services) -> None:
        """Tells how far it is and what it waits for."""
        self._context.writer.report(self._share, services.patience.waiting_on)

    def _play(self, services: Services, plan: EvaluationPlan, parts: int) -> EvaluationOutcome:
        start = self._share

        def on_progress(share: float) -> None:
            self._share = start + share / parts

        outcome = evaluate(services, plan, on_progress)
        self._share = start + 1 / parts
        return outcome


def open_loop_stats(plan: EvaluationPlan, outcomes: dict[Mode, EvaluationOutcome]) -> dict[str, OpenLoopStats]:
    """Open loop beside closed loop, by task."""
    result = {}
    for task in plan.tasks:
        open_, closed = (
            [episode for episode in outcomes[mode].episodes if episode.task == task]
            for mode in ("open_loop", "planner")
        )
        points = []
        for share, steps in zip(plan.marks, plan.mark_steps(task), strict=True):
            opened, with_feedback = _mean_return(open_, steps), _mean_return(closed, steps)
            points.append(
                OpenLoopPoint(
                    share=round(share, 4),
                    steps=steps,
                    open_return=opened,
                    closed_return=with_feedback,
                    # A share of nothing, or of a loss, would say nothing.
                    fraction=opened / with_feedback if with_feedback > 0 else None,
                )
            )
        result[task.name] = OpenLoopStats(plan_steps=plan.length(task), episodes=len(open_), points=points)
    return result


def _mean_return(episodes: list[PlannedEpisode], steps: int) -> float:
    return sum(episode.return_at(steps) for episode in episodes) / len(episodes)


def _told(episode: PlannedEpisode, mode: Mode) -> PlayedEpisode:
    return PlayedEpisode(
        task=episode.task.name,
        seed=episode.seed,
        mode=mode,
        return_=episode.reward,
        score=episode.score,
        success=None if math.isnan(episode.success) else episode.success,
        length=episode.steps,
    )


def work(context: JobContext[EvaluationJob]) -> dict[str, Any]:
    """The body of the process."""
    return Evaluator(context).run()


if __name__ == "__main__":
    sys.exit(
        job_child(
            "evaluator",
            work,
            lambda records: records.evaluations,
            lambda folder, job_id: folder.evaluation_lock(job_id),
        )
    )
