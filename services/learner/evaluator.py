"""A requested evaluation: `python -m services.learner.evaluator --job ID`.

The checkpoint is served by the planners as a model of its own, so that a training run goes on undisturbed.
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from newt import logs, trace
from newt.agent.config import PlanConfig
from newt.errors import NewtError
from newt.runs.base import now
from newt.runs.evaluations import EvaluationJob, EvaluationReport, PlayedEpisode
from newt.runs.record import Evaluation, OpenLoopPoint, OpenLoopStats
from newt.security import redis_address
from newt.tasks.registry import get_task
from services.learner import library
from services.learner.acting import Mode
from services.learner.child import RunFailedError, StopFlag, Stopped, loosely, patiently
from services.learner.evaluation import Episode, EvaluationOutcome, EvaluationPlan, evaluate
from services.learner.served_checkpoint import served
from services.learner.services import Services
from services.learner.settings import LearnerSettings
from services.learner.sight import Vision
from services.learner.store import RunStore
from services.learner.task_tables import task_table

REPORT_EVERY_S = 1.0
OPEN_LOOP_MARKS = (1 / 3, 2 / 3, 1.0)
CHECKPOINT_FILE = "checkpoint.safetensors"
REPORT_FILE = "report.json"

log = structlog.get_logger(__name__)


def job_folder(settings: LearnerSettings, job_id: str) -> Path:
    """Where an evaluation keeps its checkpoint while it runs, its videos, its log and its report."""
    return settings.data_dir / "evaluations" / job_id


def model_id(job: EvaluationJob) -> str:
    """Name of an evaluation's model at the planners, by attempt: one that is still ending retires its own alone."""
    return f"evaluation-{job.id}-{job.attempt}"


def plan_settings(info: Mapping[str, Any]) -> PlanConfig:
    """Planning settings of a checkpoint's run; the published ones for a checkpoint that names none."""
    return PlanConfig.from_dict(info["spec"]["plan"]) if "spec" in info else PlanConfig()


class Evaluator:
    """Plays what a job asks for.

    Args:
        settings: Of the learner.
        store: Where to tell the progress.
        job: What was asked for.
        stop: Ends the work.
    """

    def __init__(self, settings: LearnerSettings, store: RunStore, job: EvaluationJob, stop: StopFlag) -> None:
        self._settings, self._store, self._job, self._stop = settings, store, job, stop
        self._folder = job_folder(settings, job.id)
        self._share = 0.0

    def run(self) -> EvaluationJob:
        """Plays all episodes and writes the report; returns the finished job."""
        request, folder = self._job.request, self._folder
        checkpoint = library.load(folder / CHECKPOINT_FILE)
        tasks = [get_task(name) for name in request.tasks or ()]
        table, _ = task_table(checkpoint, tasks, request.instructions)
        config = plan_settings(checkpoint.info)
        open_loop = request.mode == "open_loop"
        limit_s = self._settings.dependency_timeout_s
        vision = Vision.of(self._settings, checkpoint)
        domains = {task.domain for task in tasks}
        with (
            served(self._settings, checkpoint.model(table), config, model_id(self._job)) as model,
            Services.connect(self._settings, domains, self._stop, limit_s, vision) as services,
            self._reporting(services),
        ):
            services.check_sims(tasks)
            plan = EvaluationPlan(
                tasks=tasks,
                episodes=request.episodes,
                mode=request.mode,
                model=model,
                seed=request.seed,
                # Outside of a run, planning is not constrained.
                env_step=None,
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
        done = {"state": "succeeded", "result": result, "videos": outcome.videos, "finished_at": now(), "progress": 1.0}
        job = self._job.model_copy(update=done)
        report = EvaluationReport(
            evaluation=job,
            plan=config.to_dict(),
            instructions={task.name: request.instructions.get(task.name, task.instruction) for task in tasks},
            episodes=[_told(episode, mode) for mode, played in outcomes.items() for episode in played.episodes],
        )
        (folder / REPORT_FILE).write_text(report.model_dump_json(indent=1))
        return job

    def _play(self, services: Services, plan: EvaluationPlan, parts: int) -> EvaluationOutcome:
        start = self._share

        def on_progress(share: float) -> None:
            self._share = start + share / parts

        outcome = evaluate(services, plan, on_progress)
        self._share = start + 1 / parts
        return outcome

    @contextmanager
    def _reporting(self, services: Services) -> Iterator[None]:
        """Tells once a second how far it is and what it waits for."""
        over = threading.Event()

        def loop() -> None:
            while not over.wait(REPORT_EVERY_S):
                told = {"progress": round(self._share, 3), "waiting_on": services.patience.waiting_on}
                loosely(lambda: _tell(self._store, self._job.model_copy(update=told)))  # noqa: B023 - called at once

        thread = threading.Thread(target=loop, name="report", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


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


def _tell(store: RunStore, job: EvaluationJob) -> None:
    """Replaces the record, unless a later attempt owns it."""
    if store.job(job.id).attempt == job.attempt:
        store.put_job(job)


def _mean_return(episodes: list[Episode], steps: int) -> float:
    return sum(episode.return_at(steps) for episode in episodes) / len(episodes)


def _told(episode: Episode, mode: Mode) -> PlayedEpisode:
    return PlayedEpisode(
        task=episode.task.name,
        seed=episode.seed,
        mode=mode,
        return_=episode.reward,
        score=episode.score,
        success=None if math.isnan(episode.success) else episode.success,
        length=episode.steps,
    )


def main() -> int:
    """Evaluates, records the result, returns the exit status."""
    parser = argparse.ArgumentParser(prog="evaluator")
    parser.add_argument("--job", required=True)
    arguments = parser.parse_args()
    settings = LearnerSettings()
    logs.configure("evaluator", settings.log_level)
    structlog.contextvars.bind_contextvars(job=arguments.job)
    stop = StopFlag()
    stop.watch()
    store = RunStore.connect(redis_address(settings.redis_url))
    job = store.job(arguments.job)
    trace.follow_in_process(job.request_id, job.run_id)
    log.info("process_started")
    try:
        job = Evaluator(settings, store, job, stop).run()
    except Stopped:
        return 3
    except (RunFailedError, NewtError) as error:
        log.error("evaluation_failed", error=str(error))
        job = job.model_copy(update={"state": "failed", "error": str(error), "finished_at": now()})
    patiently(lambda: _tell(store, job), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
