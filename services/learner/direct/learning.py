"""The one process of a run of PPO or FastTD3: `python -m services.learner.direct.learning --job RUN --attempt N`.

It steps all instances together, learns from what becomes of it, evaluates on the way and at the end, and marks the run
as succeeded. What it writes is what trainer and collector write: progress of both, metrics, checkpoints, evaluations.

Resuming goes back to the newest intact checkpoint: its env steps, its updates, its source of noise. Running episodes
are lost, and so is experience that was not learnt from yet: PPO's rollout under way, FastTD3's ring.
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress

import numpy as np
import structlog
import torch

from newt import __version__
from newt.agent.task_table import TaskTable
from newt.agent.update import read_metrics
from newt.baselines.checkpoints import copied_policy
from newt.baselines.config import Config
from newt.baselines.learners import make_learner
from newt.baselines.vector import Metrics, Transition, VectorLearner
from newt.runs.facts import plain_facts
from newt.runs.record import RunState
from newt.runs.spec import RunSpec
from newt.tasks.embeddings import embed_tasks
from newt.tasks.encoders import EncoderUnavailableError
from newt.wire.limits import PADDED_OBS_DIM
from services.learner.checkpoints.folder import CheckpointFolder, name_of
from services.learner.checkpoints.saving import CheckpointSaver
from services.learner.device import working_device
from services.learner.direct.fleet import Fleet, FleetStep
from services.learner.direct.tally import Tally
from services.learner.evaluating.of_run import RunEvaluations
from services.learner.playing.local import LocalModel
from services.learner.playing.sight import Floats
from services.learner.records.progress import CollectorProgress
from services.learner.seeds import derive
from services.learner.training.computing import compute_on
from services.learner.training.report import TrainingReport
from services.learner.waiting import RunFailedError, Stopped
from services.learner.worker.connections import Services
from services.learner.worker.main import Context, run_child
from services.learner.worker.reporter import REPORT_EVERY_S, every

METRICS_EVERY_S = 2.0

log = structlog.get_logger(__name__)


class DirectLearning:
    """One run's learning.

    Args:
        context: Context of the process.
        services: The simulators.
        device: Where it learns.
    """

    def __init__(self, context: Context, services: Services, device: torch.device) -> None:
        self._context, self._services, self._device, self._stop = context, services, device, context.stop
        self._spec, self._writer = context.run.spec, context.writer
        self._folder = CheckpointFolder(context.directory, self._spec.schedule.keep_checkpoints)
        self._saver = CheckpointSaver(self._folder, self._writer)
        self._config = algorithm_config(self._spec)
        self._numbers = [number for _ in self._spec.task_list() for number in range(self._spec.collect.envs_per_task)]
        self._tasks = [task for task in self._spec.task_list() for _ in range(self._spec.collect.envs_per_task)]
        self._table, self._encoder = _task_table(self._spec)
        computing = compute_on(self._device, "float32")
        self._learner, self._tally = self._load()
        self._saved_updates = self._learner.updates
        self._report = TrainingReport(
            context, self._learner.updates, self._tally.env_steps, services.patience, computing
        )
        self._evaluations = RunEvaluations(context, services, self._enter_stage)

    def run(self) -> None:
        """Learns and evaluates to the end. Raises Stopped, having saved, when the process must stop."""
        telling = (
            self._report.telling(),
            every(REPORT_EVERY_S, self._tell, self._stop),
            every(METRICS_EVERY_S, self._tell_metrics, self._stop),
        )
        with telling[0], telling[1], telling[2], self._saver:
            try:
                self._report.stage = "connecting to the simulators"
                self._services.check_sims(self._spec.task_list())
                self._evaluations.once("random", "random", self._model(), 0, self._learner.updates)
                self._report.pretrained = True
                self._learn()
                self._save()
                self._saver.wait()
                self._report.finished = True
                self._evaluations.once("final", "policy", self._model(), self._tally.env_steps, self._learner.updates)
                self._evaluations.finish()
            except Stopped:
                if self._learner.updates > self._saved_updates:
                    self._save()
                self._saver.wait()
                raise

    # ---- starting

    def _load(self) -> tuple[VectorLearner, Tally]:
        """The learner and what has been played: from the newest intact checkpoint, or fresh."""
        settings, spec = self._context.settings, self._spec
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        names = [task.name for task in spec.task_list()]
        learner = make_learner(
            self._config,
            self._table,
            torch.tensor([names.index(task.name) for task in self._tasks]),
            PADDED_OBS_DIM,
            derive(spec.seed, "learning"),
            self._device,
            math.ceil(spec.schedule.total_env_steps / len(self._tasks)),
        )
        newest = self._folder.newest_policy()
        if newest is None:
            return learner, Tally(self._tasks)
        name, checkpoint = newest
        if checkpoint.info["text_encoder"] != self._encoder:
            raise RunFailedError(
                f"checkpoint {name} was trained with the text encoder {checkpoint.info['text_encoder']!r}, here is "
                f"{self._encoder!r}; a run never mixes encoders: install the old one, or start a new run"
            )
        try:
            learner.load_state_dict(checkpoint.state)
        except (ValueError, KeyError) as error:
            raise RunFailedError(f"checkpoint {name} is not this run's: {error}") from error
        log.info("resumed", checkpoint=name, updates=learner.updates)
        return learner, Tally(self._tasks, checkpoint.info["counts"])

    def _model(self) -> LocalModel:
        return LocalModel(self._learner.policy, self._table.names)

    # ---- learning

    def _learn(self) -> None:
        """Steps and learns until all env steps are taken, with the evaluations that fall due."""
        tally, learner = self._tally, self._learner
        total, interval = self._spec.schedule.total_env_steps, self._spec.eval_every_env_steps()
        if tally.env_steps >= total:
            return
        self._enter_learning()
        evaluated = tally.env_steps
        with Fleet(self._services, self._tasks, self._seed) as fleet:
            obs = fleet.start()
            while tally.env_steps < total:
                self._stop.check()
                action = learner.act(torch.from_numpy(np.array(obs))).cpu().numpy()
                step = fleet.step(action)
                tally.stepped(step)
                metrics = learner.observe(_transition(obs, action, step))
                if metrics is not None:
                    self._updated(metrics)
                obs = step.obs
                if interval and tally.env_steps // interval > evaluated // interval and tally.env_steps < total:
                    evaluated = tally.env_steps
                    self._saver.wait()  # the score is that of the newest checkpoint
                    # Episodes under way go on afterwards.
                    self._evaluations.play("periodic", "policy", self._model(), evaluated, learner.updates)
                    self._enter_learning()

    def _enter_learning(self) -> None:
        self._evaluations.enter(RunState.TRAINING)
        self._report.stage = "learning"

    def _seed(self, row: int) -> int:
        """Where the next episodes of an instance start from."""
        name = self._tasks[row].name
        return derive(self._spec.seed, "envs", name, self._numbers[row], self._tally.tasks[name].episodes)

    def _updated(self, metrics: Metrics) -> None:
        learner = self._learner
        wrong = [name for name, value in read_metrics(metrics).items() if not math.isfinite(value)]
        if wrong:
            self._report.diverged = True
            with suppress(RunFailedError):
                self._saver.wait()  # which may be the last good one
            names = [checkpoint.name for checkpoint in self._folder.list()]
            kept = f"the last good checkpoint is {names[-1]}" if names else "there is no checkpoint yet"
            raise RunFailedError(
                f"{', '.join(wrong)} became NaN or infinite at update {learner.updates}; {kept}. Start a new run with "
                "a lower learning rate (algorithm.ppo.lr, algorithm.fasttd3.lr)"
            )
        self._saver.check()
        self._report.updated(learner.updates, self._tally.env_steps, 0.0, dict(metrics))
        if learner.updates - self._saved_updates >= self._spec.schedule.checkpoint_every_updates:
            self._save()

    def _save(self) -> None:
        """Copies the state, which is written while the learning goes on."""
        updates = self._saved_updates = self._learner.updates
        name = name_of(self._tally.env_steps, 0, updates)
        info = {
            "run_id": self._context.run.id,
            "env_steps": self._tally.env_steps,
            "updates": updates,
            "counts": self._tally.counts(),
            "spec": self._spec.model_dump(mode="json"),
            "task_facts": plain_facts(self._spec.task_list()),
            "text_encoder": self._encoder,
            "newt_version": __version__,
        }
        self._saver.save(name, updates, lambda: copied_policy(self._learner, self._config, self._table, info))

    # ---- reporting

    def _enter_stage(self, stage: str) -> None:
        self._report.stage = stage

    def _tell(self) -> None:
        tally = self._tally
        progress = CollectorProgress(
            env_steps=tally.env_steps, env_steps_per_s=round(tally.rate(), 1), tasks=tally.snapshot()
        )
        self._writer.progress("collector", progress)

    def _tell_metrics(self) -> None:
        values = self._tally.take_finished()
        if values:
            values["env_steps_per_s"] = self._tally.rate()
            self._writer.metrics("collector", self._tally.env_steps, self._learner.updates, values)


def algorithm_config(spec: RunSpec) -> Config:
    """Settings of the run's algorithm."""
    return spec.algorithm.fasttd3 if spec.algorithm.name == "fasttd3" else spec.algorithm.ppo


def _task_table(spec: RunSpec) -> tuple[TaskTable, str]:
    """What the learner is told of the tasks, and the text encoder; empty without language."""
    tasks = spec.task_list()
    try:
        embedded = embed_tasks(tasks, spec.algorithm.text_encoder) if spec.algorithm.language else None
    except EncoderUnavailableError as error:
        raise RunFailedError(str(error)) from error
    table = TaskTable.build(
        [task.name for task in tasks],
        embedded.vectors if embedded else torch.zeros(len(tasks), 0),
        [task.action_dim for task in tasks],
        [task.discount for task in tasks],
    )
    return table, embedded.encoder if embedded else ""


def _transition(obs: Floats, action: Floats, step: FleetStep) -> Transition:
    values = {"obs": obs, "action": action}
    values |= {name: getattr(step, name) for name in ("reward", "reached", "terminated", "truncated", "valid")}
    return Transition(**{name: torch.from_numpy(np.array(value)) for name, value in values.items()})


def work(context: Context) -> None:
    """The body of the process."""
    if context.run.state is RunState.SUCCEEDED:
        return
    domains = {task.domain for task in context.run.spec.task_list()}
    device = working_device(context.settings)
    with Services.connect(context.settings, domains, context.stop) as services:
        DirectLearning(context, services, device).run()


if __name__ == "__main__":
    sys.exit(run_child("learning", work))
