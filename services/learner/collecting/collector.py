"""The collecting process of a run: `python -m services.learner.collecting.collector --job RUN --attempt N`.

It sees to demonstrations, makes the buffer, collects experience, and evaluates the agent on the way; it ends last,
with the final evaluation, and marks the run as succeeded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

from newt.client.buffers import BufferConfig
from newt.errors import InvalidInputError, PreconditionError
from newt.runs.record import EvaluationKind, RunState, TaskProgress
from services.learner.collecting.group import CollectorGroup, Instance
from services.learner.collecting.limiter import LimiterLink
from services.learner.collecting.outbox import Outbox
from services.learner.collecting.pace import Pace
from services.learner.demonstrating.for_run import DemoProvider
from services.learner.evaluating.of_run import RunEvaluations
from services.learner.playing.actor import Mode, Model
from services.learner.playing.copies import held_still
from services.learner.playing.sight import Vision
from services.learner.records.progress import CollectorProgress, TrainerProgress
from services.learner.waiting import RunFailedError, loosely, patiently
from services.learner.worker.connections import Services
from services.learner.worker.main import Context, run_child
from services.learner.worker.reporter import REPORT_EVERY_S, every

METRICS_EVERY_S = 2.0
POLL_S = 0.3


class Collector:
    """One run's collection and evaluations.

    Args:
        context: Context of the process.
        services: Simulators, planner, replay.
    """

    def __init__(self, context: Context, services: Services) -> None:
        self._context, self._services = context, services
        self._run, self._spec, self._writer = context.run, context.run.spec, context.writer
        self._tasks = self._spec.task_list()
        self._stage, self._beside = "starting", ""
        self._pace: Pace | None = None  # Until replay has been asked.
        self._evaluations = RunEvaluations(context, services, self._enter_stage)

    def run(self) -> None:
        """Collects and evaluates to the end."""
        stop = self._context.stop
        if self._writer.attempt == 1 and not self._run.progress.restarts:
            self._services.meter.await_first_session(self._run.started_at)
        with every(REPORT_EVERY_S, self._report, stop), every(METRICS_EVERY_S, self._report_metrics, stop):
            self._stage = "connecting to the simulators"
            self._services.check_sims(self._tasks)
            pace = self._pace = self._prepare(self._demo_sets())
            self._evaluate("random", "random")
            self._stage = "waiting for pretraining" if self._spec.pretrains() else "waiting for the trainer"
            self._wait_for_trainer(lambda trainer: trainer.pretrained)
            if self._spec.init_from is not None:
                self._evaluate("pretrained", self._mode())  # zero-shot: as it was trained to act
            elif self._spec.pretrains() and self._spec.learns_online():  # else this is the final agent
                self._evaluate("pretrained", "policy")
            self._collect(pace)
            self._stage = "waiting for the last updates"
            self._wait_for_trainer(lambda trainer: trainer.finished)
            self._evaluate("final", self._mode())
            if self._spec.evaluation.policy_alone and self._mode() == "planner":
                self._evaluate("final_policy", "policy")
            self._evaluations.finish()

    # ---- before

    def _demo_sets(self) -> list[str]:
        """Names of the run's demonstration sets, once all demonstrations that there can be are there."""
        if not self._spec.has_demos():
            return []

        def on_progress(done: int, total: int) -> None:
            self._stage = f"collecting demonstrations ({done} of {total})"

        self._stage = "looking for demonstrations"
        return DemoProvider(self._services, self._spec, self._writer).provide(on_progress)

    def _prepare(self, demo_sets: list[str]) -> Pace:
        """Makes the buffer, or finds it, and takes the counters from it."""
        spec, services = self._spec, self._services
        self._stage = "preparing the buffer"
        try:
            services.replay.create_buffer(
                self._run.id,
                BufferConfig(
                    {task.name: (task.obs_dim, task.action_dim) for task in self._tasks},
                    capacity_rows=spec.replay.capacity_rows,
                    updates_per_env_step=spec.schedule.updates_per_env_step,
                    start_env_steps=spec.seed_env_steps(),
                    max_lead_updates=spec.max_lead_updates(),
                    all_tasks_until_env_steps=spec.all_tasks_until_env_steps(),
                    demo_sets=demo_sets,
                    demos_in_online=spec.replay.demos_in_online,
                    image_dim=spec.image_dim(),
                    image_encoder=services.vision.encoder.name if services.vision else "",
                ),
            )
        except (PreconditionError, InvalidInputError) as error:
            # For example another image encoder than before, or than the demonstrations'.
            raise RunFailedError(f"replay refuses the run's buffer: {error}") from error
        buffer = services.replay.get_buffer(self._run.id)
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

    def _collect(self, pace: Pace) -> None:
        if pace.is_over():
            return
        self._evaluations.enter(RunState.TRAINING)
        interval, seeding = self._spec.eval_every_env_steps(), self._spec.seed_env_steps()
        guided = self._spec.guided_tasks({name: task.demo_episodes for name, task in pace.tasks.items()})
        seeded_by = (
            "policy" if len(guided) == len(self._tasks) else "policy and at random" if guided else "random policy"
        )
        replay = self._services.replay
        with Outbox(replay, self._run.id, pace) as outbox, LimiterLink(replay, self._run.id, pace):
            groups = self._groups(pace, guided, outbox)
            for group in groups:
                group.thread.start()
            try:
                evaluation = _next_multiple(pace.env_steps, interval)
                while not pace.is_over():
                    seeds = pace.env_steps < seeding
                    self._stage = f"collecting with the {seeded_by}" if seeds else "collecting"
                    pace.wait_until(min(evaluation, seeding) if seeds else evaluation)
                    if pace.env_steps >= evaluation and not pace.is_over():
                        self._evaluate_meanwhile(pace)
                        evaluation = _next_multiple(pace.env_steps, interval)
            except BaseException as error:
                pace.fail(error)
                raise
            finally:
                for group in groups:
                    group.thread.join(10.0)
        pace.raise_failure()

    def _groups(self, pace: Pace, guided_tasks: Collection[str], outbox: Outbox) -> list[CollectorGroup]:
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
        first = {task: progress.episodes for task, progress in pace.tasks.items()}
        return [
            CollectorGroup(i, self._spec, self._run.id, half, first, guided_tasks, self._services, pace, outbox)
            for i, half in enumerate(halves)
        ]

    # ---- evaluating

    def _mode(self) -> Mode:
        return "planner" if self._spec.algorithm.planning else "policy"

    def _evaluate(self, kind: EvaluationKind, mode: Mode) -> None:
        """Evaluates what the trainer has finished, once in a run."""
        run = patiently(self._writer.get, self._context.stop)
        model = Model(run.id, self._names(), run.progress.weights_version if kind != "random" else 0)
        env_steps = self._pace.env_steps if self._pace else 0
        updates = run.progress.pretrain_updates + run.progress.updates
        self._evaluations.once(kind, mode, model, env_steps, updates)

    def _evaluate_meanwhile(self, pace: Pace) -> None:
        """Evaluates the agent as it is now, while collection and training go on."""
        stop = self._context.stop
        with held_still(self._context.settings, self._run.id, self._names(), stop) as model:
            env_steps, progress = pace.env_steps, patiently(self._writer.get, stop).progress
            updates = progress.pretrain_updates + progress.updates
            self._beside = "collecting; "
            self._evaluations.play("periodic", self._mode(), model, env_steps, updates, meanwhile=True)
            self._beside = ""

    def _names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self._tasks)

    def _enter_stage(self, stage: str) -> None:
        self._stage = f"{self._beside}{stage}"

    # ---- reporting

    def _report(self) -> None:
        pace, writer = self._pace, self._writer
        rate = pace.rate() if pace else 0.0
        progress = CollectorProgress(
            stage=self._stage,
            waiting_on=self._services.patience.waiting_on,
            # Before replay has been asked, the last attempt's numbers are the best that there are.
            env_steps=pace.env_steps if pace else self._run.progress.env_steps,
            env_steps_per_s=round(rate, 1),
            tasks=pace.snapshot() if pace else self._run.progress.tasks,
            measured=self._services.meter.measured(),
        )
        writer.progress("collector", progress)

    def _report_metrics(self) -> None:
        pace = self._pace
        values = pace.take_finished() if pace else {}
        if pace and values:
            values["env_steps_per_s"] = pace.rate()
            updates = self._updates()
            self._writer.metrics("collector", pace.env_steps, updates, values)

    def _updates(self) -> int:
        updates = 0

        def read() -> None:
            nonlocal updates
            trainer = self._writer.trainer()
            updates = trainer.pretrain_updates + trainer.updates

        loosely(read)
        return updates


def _next_multiple(env_steps: int, every: int) -> int:
    """When the next periodic evaluation is due; never if `every` is 0."""
    return (env_steps // every + 1) * every if every else sys.maxsize


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
