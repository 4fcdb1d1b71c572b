"""A requested evaluation: `python -m services.learner.evaluator --run ID --job ID`.

The checkpoint is served by the planners as a model of its own, so that a training run goes on undisturbed.
"""

from __future__ import annotations

import argparse
import sys

import structlog

from newt import logs
from newt.errors import NewtError
from newt.runs.record import Evaluation, EvaluationJob, Run
from newt.tasks.registry import get_task
from services.learner.checkpoints import CheckpointFolder
from services.learner.child import RunFailedError, StopFlag, Stopped
from services.learner.evaluation import EvaluationPlan, evaluate
from services.learner.served_checkpoint import served
from services.learner.services import Services
from services.learner.settings import LearnerSettings
from services.learner.sight import Vision
from services.learner.store import RunStore

log = structlog.get_logger(__name__)


def evaluate_checkpoint(
    settings: LearnerSettings, run: Run, job: EvaluationJob, stop: StopFlag
) -> tuple[Evaluation, dict[str, str]]:
    """Plays the episodes that were asked for.

    Returns:
        The evaluation, and the names of the videos by task.
    """
    request = job.request
    assert request.checkpoint is not None  # the API names the newest one
    folder = settings.data_dir / "runs" / run.id
    checkpoint = CheckpointFolder(folder).load(request.checkpoint)
    tasks = [get_task(name) for name in request.tasks or run.tasks]
    with (
        served(settings, run, request.checkpoint, checkpoint, f"{run.id}@{job.id}") as model,
        Services.connect(settings, {task.domain for task in tasks}, stop, Vision.of(settings, checkpoint)) as services,
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
            video_folder=folder / "videos" if request.videos else None,
            video_prefix=f"{job.id}-",
        )
        outcome = evaluate(services, plan)
    evaluation = Evaluation(
        kind="requested",
        mode=request.mode,
        env_steps=int(checkpoint.info["env_steps"]),
        checkpoint=request.checkpoint,
        tasks=outcome.tasks,
    )
    return evaluation, outcome.videos


def main() -> int:
    """Evaluates, records the result, returns the exit status."""
    parser = argparse.ArgumentParser(prog="evaluator")
    parser.add_argument("--run", required=True)
    parser.add_argument("--job", required=True)
    arguments = parser.parse_args()
    settings = LearnerSettings()
    logs.configure("evaluator", settings.log_level)
    structlog.contextvars.bind_contextvars(run=arguments.run, job=arguments.job)
    stop = StopFlag()
    stop.watch()
    store = RunStore.connect(settings.redis_url)
    job = store.job(arguments.run, arguments.job)
    try:
        result, videos = evaluate_checkpoint(settings, store.get(arguments.run), job, stop)
        job = job.model_copy(update={"state": "succeeded", "result": result, "videos": videos})
    except Stopped:
        return 3
    except (RunFailedError, NewtError) as error:
        log.error("evaluation_failed", error=str(error))
        job = job.model_copy(update={"state": "failed", "error": str(error)})
    store.put_job(job)
    return 0


if __name__ == "__main__":
    sys.exit(main())
