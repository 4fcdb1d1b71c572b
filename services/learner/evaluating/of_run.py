"""The evaluations inside of a run: when each is due was decided by whoever asks; here they are played and recorded."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from newt.runs.record import Checkpoint, Evaluation, EvaluationKind, RunResults, RunState
from services.learner.checkpoints.folder import CheckpointFolder
from services.learner.checkpoints.scores import CheckpointScore, note_score
from services.learner.evaluating.plan import EvaluationPlan
from services.learner.evaluating.play import evaluate
from services.learner.playing.actor import Acting, Mode
from services.learner.seeds import derive
from services.learner.waiting import loosely, patiently
from services.learner.worker.connections import Services
from services.learner.worker.main import Context

_TITLES = {
    "random": "the random policy",
    "pretrained": "the pretrained agent",
    "final": "the final agent",
    "final_policy": "the final agent's policy alone",
}
_SCORED = frozenset({"pretrained", "periodic", "final"})

log = structlog.get_logger(__name__)


class RunEvaluations:
    """Evaluates a run's agent.

    Args:
        context: Context of the process.
        services: Simulators, and planner if that acts.
        on_stage: Told what is being done, in words.
    """

    def __init__(self, context: Context, services: Services, on_stage: Callable[[str], None]) -> None:
        self._context, self._services, self._on_stage = context, services, on_stage
        self._spec, self._writer = context.run.spec, context.writer
        self._folder = CheckpointFolder(context.directory)

    def once(self, kind: EvaluationKind, mode: Mode, model: Acting, env_steps: int, updates: int) -> None:
        """Evaluates, unless there are no evaluations or there is one of this kind already."""
        if not self._spec.evaluates():
            return
        done = patiently(self._writer.evaluations, self._context.stop)
        if not any(evaluation.kind == kind for evaluation in done):
            # The trainer may be pretraining beside the evaluation of random actions.
            self.play(kind, mode, model, env_steps, updates, meanwhile=kind == "random")

    def play(
        self,
        kind: EvaluationKind,
        mode: Mode,
        model: Acting,
        env_steps: int,
        updates: int,
        *,
        meanwhile: bool = False,
    ) -> None:
        """Plays the episodes and records what came out; `meanwhile` the run trains, and remains in that state."""
        stop, writer = self._context.stop, self._writer
        if not meanwhile:
            self.enter(RunState.EVALUATING)
        newest = self._folder.last() if kind in _SCORED else None
        what = f"evaluating {_TITLES.get(kind, 'the agent')}"
        self._on_stage(what)
        wanted = self._spec.evaluation
        filmed = (kind == "final" and wanted.videos) or (kind == "periodic" and wanted.periodic_videos)
        plan = EvaluationPlan(
            tasks=self._spec.task_list(),
            episodes=self._spec.evaluation.episodes_per_task,
            mode=mode,
            model=model,
            seed=derive(self._spec.seed, "evaluation"),
            env_step=env_steps,
            video_folder=self._context.directory / "videos" if filmed else None,
            video_prefix=f"{env_steps}-" if kind == "periodic" else "",
            spares_others=True,
        )
        outcome = evaluate(self._services, plan, lambda share: self._on_stage(f"{what} ({share:.0%})"))
        for task in plan.tasks:
            text = f"an evaluation of {task.name}: its simulator broke again and again, and its log says why"
            self._services.patience.note(f"evaluation of {task.name}", None if task.name in outcome.tasks else text)
        evaluation = Evaluation(
            kind=kind,
            mode=mode,
            env_steps=env_steps,
            weights_version=outcome.weights_version,
            tasks=outcome.tasks,
            videos=outcome.videos if kind == "periodic" else {},
        )
        patiently(lambda: writer.evaluation(evaluation), stop)
        whole = len(outcome.tasks) == len(plan.tasks)  # else a mean would be of other tasks than the last one's
        if newest is not None and whole:
            self._note(newest, evaluation)
        if outcome.videos and kind == "final":
            patiently(lambda: writer.set_videos(outcome.videos), stop)
        if kind == "final_policy":
            return  # no point of the learning curve, which is that of the agent
        values = {f"eval_score/{task}": stats.corrected_score for task, stats in outcome.tasks.items()}
        values |= {f"eval_return/{task}": stats.return_ for task, stats in outcome.tasks.items()}
        if whole:
            values["eval_score"] = evaluation.mean_score()
        successes = {task: stats.success for task, stats in outcome.tasks.items() if stats.success is not None}
        if successes:
            values |= {f"eval_success/{task}": success for task, success in successes.items()}
        if successes and whole:
            values["eval_success"] = sum(successes.values()) / len(successes)
        loosely(lambda: writer.metrics("evaluation", env_steps, updates, values))

    def _note(self, checkpoint: Checkpoint, evaluation: Evaluation) -> None:
        score = CheckpointScore(score=evaluation.mean_score(), kind=evaluation.kind, updates=checkpoint.updates)
        try:
            note_score(self._context.directory, checkpoint.name, score)
        except OSError as error:  # the run goes on without a best checkpoint
            log.warning("score_not_noted", checkpoint=checkpoint.name, error=str(error))

    def enter(self, state: RunState) -> None:
        """Moves the run to a state; raises Stopped if it was cancelled or has failed meanwhile."""
        stop = self._context.stop
        if not patiently(lambda: self._writer.enter(state), stop):
            stop.set()
            stop.check()

    def finish(self) -> None:
        """Writes the results and marks the run as succeeded."""
        stop, writer = self._context.stop, self._writer
        run = patiently(writer.get, stop)
        evaluations = patiently(writer.evaluations, stop)
        videos = patiently(writer.videos, stop)
        results = RunResults.build(run.id, RunState.SUCCEEDED, run.tasks, evaluations, videos)
        (self._context.directory / "results.json").write_text(results.model_dump_json(indent=1))
        self._on_stage("")
        patiently(writer.succeed, stop)
