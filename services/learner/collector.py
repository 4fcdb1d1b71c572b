"""The collecting process of a run: `python -m services.learner.collector --run ID --attempt N`.

It sees to demonstrations, makes the buffer, collects experience, and evaluates the agent on the way; it ends last,
with the final evaluation, and marks the run as succeeded.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from newt.errors import PreconditionError
from newt.runs.record import Evaluation, EvaluationKind, RunResults, RunState, TaskProgress
from services.learner.acting import Mode, Model
from services.learner.child import Context, RunFailedError, loosely, patiently, run_child
from services.learner.evaluation import EvaluationPlan, evaluate
from services.learner.group import CollectorGroup, Instance
from services.learner.pace import Pace
from services.learner.progress import CollectorProgress, TrainerProgress
from services.learner.run_demos import RunDemos
from services.learner.seeds import derive
from services.learner.services import Services
from services.learner.sight import Vision
from services.learner.store import SupersededError

REPORT_EVERY_S = 1.0
METRICS_EVERY_REPORTS = 2
POLL_S = 0.3

log = structlog.get_logger(__name__)


class Collector:
    """One run's collection and evaluations.

    Args:
        context: Of the process.
        services: Simulators, planner, replay.
    """

    def __init__(self, context: Context, services: Services) -> None:
        self._context, self._services = context, services
        self._run, self._spec, self._writer = context.run, context.run.spec, context.writer
        self._tasks = self._spec.task_list()
        self._stage = "starting"
        self._pace = Pace(0, 1, 1, {}, context.stop)

    def run(self) -> None:
        """Collects and evaluates to the end."""
        with self._reporting():
            self._stage = "connecting to the simulators"
            self._services.check_sims(self._tasks)
            self._pace = self._prepare(self._demo_sets())
            self._evaluate_once("random", "random")
            self._stage = "waiting for pretraining" if self._spec.pretrains() else "waiting for the trainer"
            self._wait_for_trainer(lambda trainer: trainer.pretrained)
            if self._spec.init_from is not None:
                self._evaluate_once("pretrained", self._mode())  # zero-shot: as it was trained to act
            elif self._spec.pretrains():
                self._evaluate_once("pretrained", "policy")
            self._collect()
            self._stage = "waiting for the last updates"
            self._wait_for_trainer(lambda trainer: trainer.finished)
            self._evaluate_once("final", self._mode())
            self._finish()

    # ---- before

    def _demo_sets(self) -> list[str]:
        """Names of the run's demonstration sets, once all demonstrations that there can be are there."""
        if not self._spec.has_demos():
            return []

        def on_progress(done: int, total: int) -> None:
            self._stage = f"collecting demonstrations ({done} of {total})"

        self._stage = "looking for demonstrations"
        return RunDemos(self._services, self._spec, self._writer).provide(on_progress)

    def _prepare(self, demo_sets: list[str]) -> Pace:
        """Makes the buffer, or finds it, and takes the counters from it."""
        spec, services = self._spec, self._services
        self._stage = "preparing the buffer"
        patience, name = services.patience, services.replay_name
        try:
            patience.call(
                name,
                lambda: services.replay.create_buffer(
                    self._run.id,
                    {task.name: (task.obs_dim, task.action_dim) for task in self._tasks},
                    capacity_rows=spec.replay.capacity_rows,
                    updates_per_env_step=spec.schedule.updates_per_env_step,
                    start_env_steps=spec.seed_env_steps(),
                    max_lead_updates=spec.max_lead_updates(),
                    demo_sets=demo_sets,
                    demos_in_online=spec.replay.demos_in_online,
                    image_dim=spec.image_dim(),
                    image_encoder=services.vision.encoder.name if services.vision else "",
                    timeout_s=10.0,
                ),
                services.settings.dependency_timeout_s,
            )
        except PreconditionError as error:  # for example another image encoder than before, or than the demonstrations'
            raise RunFailedError(f"replay refuses the run's buffer: {error}") from error
        buffer = patience.call(name, lambda: services.replay.get_buffer(self._run.id))
        before = self._run.progress.tasks
        tasks = {}
        for counters in buffer.tasks:
            progress = before.get(counters.task, TaskProgress())
            progress.env_steps, progress.episodes = counters.env_steps, counters.episodes
            progress.demo_episodes = counters.demo_episodes
            tasks[counters.task] = progress
        total = spec.schedule.total_env_steps
        return Pace(buffer.env_steps, total, spec.lead_limit_steps(), tasks, self._context.stop)

    def _wait_for_trainer(self, there: Callable[[TrainerProgress], bool]) -> None:
        while True:
            trainer = patiently(self._writer.trainer, self._context.stop)
            # What an earlier attempt said is not true any more: its weights may be gone from the planners.
            if trainer.attempt == self._writer.attempt and there(trainer):
                return
            self._context.stop.sleep(POLL_S)

    # ---- collecting

    def _collect(self) -> None:
        if self._pace.is_over():
            return
        self._enter(RunState.TRAINING)
        every = self._spec.eval_every_env_steps()
        groups = self._groups()
        for group in groups:
            group.thread.start()
        try:
            next_evaluation = (self._pace.env_steps // every + 1) * every if every else 0
            while not self._pace.is_over():
                self._stage = "collecting"
                if self._pace.env_steps < self._spec.seed_env_steps():
                    self._stage = "collecting with the " + (
                        "policy" if self._spec.starts_with_policy() else "random policy"
                    )
                self._context.stop.sleep(POLL_S)
                if every and self._pace.env_steps >= next_evaluation and not self._pace.is_over():
                    with self._pace.paused():
                        self._evaluate("periodic", self._mode())
                    next_evaluation = (self._pace.env_steps // every + 1) * every
                    self._enter(RunState.TRAINING)
        finally:
            for group in groups:
                group.thread.join(10.0)
        self._pace.raise_failure()

    def _groups(self) -> list[CollectorGroup]:
        """Two groups per domain, so that one plans while the other simulates."""
        halves = []
        for domain in dict.fromkeys(task.domain for task in self._tasks):
            instances = [
                Instance(task, number)
                for task in self._tasks
                if task.domain == domain
                for number in range(self._spec.collect.envs_per_task)
            ]
            halves += [half for half in (instances[0::2], instances[1::2]) if half]
        first = {task: progress.episodes for task, progress in self._pace.tasks.items()}
        return [
            CollectorGroup(i, self._spec, self._run.id, half, first, self._services, self._pace)
            for i, half in enumerate(halves)
        ]

    # ---- evaluating

    def _mode(self) -> Mode:
        return "planner" if self._spec.algorithm.planning else "policy"

    def _enter(self, state: RunState) -> None:
        if not patiently(lambda: self._writer.enter(state), self._context.stop):
            self._context.stop.set()  # cancelled or failed meanwhile
            self._context.stop.check()

    def _evaluate_once(self, kind: EvaluationKind, mode: Mode) -> None:
        if not self._spec.evaluates():
            return
        done = patiently(self._writer.evaluations, self._context.stop)
        if not any(evaluation.kind == kind for evaluation in done):
            self._evaluate(kind, mode)

    def _evaluate(self, kind: EvaluationKind, mode: Mode) -> None:
        if kind != "random":  # the trainer may be pretraining meanwhile, which says more
            self._enter(RunState.EVALUATING)
        title = {"random": "the random policy", "pretrained": "the pretrained agent", "final": "the final agent"}
        what = f"evaluating {title.get(kind, 'the agent')}"
        self._stage = what
        run = patiently(self._writer.get, self._context.stop)
        env_steps = self._pace.env_steps
        videos = self._context.directory / "videos" if kind == "final" and self._spec.evaluation.videos else None
        model = Model(
            run.id,
            tuple(task.name for task in self._tasks),
            run.progress.weights_version if kind in ("pretrained", "final") else 0,
        )
        plan = EvaluationPlan(
            tasks=self._tasks,
            episodes=self._spec.evaluation.episodes_per_task,
            mode=mode,
            model=model,
            seed=derive(self._spec.seed, "evaluation"),
            env_step=env_steps,
            video_folder=videos,
        )

        def on_progress(share: float) -> None:
            self._stage = f"{what} ({share:.0%})"

        outcome = evaluate(self._services, plan, on_progress)
        evaluation = Evaluation(
            kind=kind,
            mode=mode,
            env_steps=env_steps,
            weights_version=outcome.weights_version,
            tasks=outcome.tasks,
        )
        patiently(lambda: self._writer.evaluation(evaluation), self._context.stop)
        updates = run.progress.pretrain_updates + run.progress.updates
        values = {f"eval_score/{task}": stats.corrected_score for task, stats in outcome.tasks.items()}
        values |= {f"eval_return/{task}": stats.return_ for task, stats in outcome.tasks.items()}
        values["eval_score"] = evaluation.mean_score()
        loosely(lambda: self._writer.metrics("evaluation", env_steps, updates, values))
        if outcome.videos:
            patiently(lambda: self._writer.set_videos(outcome.videos), self._context.stop)

    def _finish(self) -> None:
        stop = self._context.stop
        run = patiently(self._writer.get, stop)
        evaluations = patiently(self._writer.evaluations, stop)
        videos = patiently(self._writer.videos, stop)
        results = RunResults.build(run.id, RunState.SUCCEEDED, run.tasks, evaluations, videos)
        path = self._context.directory / "results.json"
        path.write_text(results.model_dump_json(indent=1))
        self._stage = ""
        patiently(self._writer.succeed, stop)

    # ---- reporting

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        over = threading.Event()

        def loop() -> None:
            reports = 0
            while not over.wait(REPORT_EVERY_S):
                reports += 1
                try:
                    self._report(with_metrics=reports % METRICS_EVERY_REPORTS == 0)
                except SupersededError:
                    self._context.stop.set()
                    return

        thread = threading.Thread(target=loop, name="report", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._report(with_metrics=True)

    def _report(self, *, with_metrics: bool) -> None:
        pace, writer = self._pace, self._writer
        rate = pace.rate()
        known = bool(pace.tasks)
        progress = CollectorProgress(
            stage=self._stage,
            waiting_on=self._services.patience.waiting_on,
            # Before replay has been asked, the last attempt's numbers are the best that there are.
            env_steps=pace.env_steps if known else self._run.progress.env_steps,
            env_steps_per_s=round(rate, 1),
            tasks=pace.snapshot() if known else self._run.progress.tasks,
        )
        loosely(lambda: writer.progress("collector", progress))
        if with_metrics:
            values = pace.take_finished()
            if values:
                values["env_steps_per_s"] = rate
                updates = self._updates()
                loosely(lambda: writer.metrics("collector", pace.env_steps, updates, values))

    def _updates(self) -> int:
        updates = 0

        def read() -> None:
            nonlocal updates
            trainer = self._writer.trainer()
            updates = trainer.pretrain_updates + trainer.updates

        loosely(read)
        return updates


def work(context: Context) -> None:
    """The body of the process."""
    if context.run.state is RunState.SUCCEEDED:
        return
    spec, settings = context.run.spec, context.settings
    domains = {task.domain for task in spec.task_list()}
    vision = Vision.load(settings, spec.image_dim(), spec.vision.frames) if spec.image_dim() else None
    with Services.connect(settings, domains, context.stop, vision=vision) as services:
        Collector(context, services).run()


if __name__ == "__main__":
    sys.exit(run_child("collector", work))
