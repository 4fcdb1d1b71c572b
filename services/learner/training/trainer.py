"""The training process of a run: `python -m services.learner.training.trainer --job RUN --attempt N`.

Pretrains on demonstrations, publishes, then updates online at the pace of the replay service's limiter. Everything that
a restart needs is in the checkpoints: batches are numbered and their draws depend on the number alone, so a resumed
trainer sees the batches that it would have seen.

Started by torchrun, several of these train one model: each rank samples its part of every batch, gradients are
averaged, and before every update all agree that all have their part and none must stop. Rank 0 alone writes
checkpoints, publishes weights and reports. Collection is a process of its own, so tasks are not split between ranks.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from enum import IntEnum

import structlog
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from newt import __version__
from newt.agent import devices
from newt.agent.checkpoints import copied_checkpoint, copied_weights
from newt.agent.code_maker import leave
from newt.agent.config import ConfigError
from newt.agent.constraint import Guidance
from newt.agent.distributed import PeerLostError, Ranks, launched_rank, process_group
from newt.agent.update import Updater, read_metrics
from newt.client.read_ahead import Batch, ReadAhead
from newt.client.shards import Replay, replay_client
from newt.errors import NewtError, NotFoundError
from newt.runs.facts import plain_facts
from newt.runs.record import Computing, RunState
from newt.tasks.embeddings import embed_tasks
from newt.tasks.encoders import EncoderUnavailableError
from newt.wire.retry import Backoff, until_available
from services.learner.checkpoints.folder import CheckpointFolder, name_of
from services.learner.checkpoints.initial import initial_agent
from services.learner.checkpoints.saving import CheckpointSaver
from services.learner.records.progress import Pacing
from services.learner.seeds import derive
from services.learner.training.agents import fresh_model, updater_kind
from services.learner.training.batch_feed import BatchFeed
from services.learner.training.computing import compute_on
from services.learner.training.report import TrainingReport
from services.learner.training.sending import update_batch
from services.learner.training.update_code import UpdateCode
from services.learner.waiting import Patience, PeerGoneError, RunFailedError, Stopped, loosely, patiently
from services.learner.weights.publisher import Payload, Publisher
from services.learner.worker.connections import REMEDY
from services.learner.worker.main import Context, run_child

# How often losses are looked at on a GPU, where looking waits for the device.
CHECK_EVERY_ON_GPU = 50
# How long a rank waits for its batch before it tells the others that it lives, and looks whether to stop.
BATCH_POLL_S = 0.2
_BUFFER_POLL = Backoff(0.1, 0.5)

log = structlog.get_logger(__name__)


class _Step(IntEnum):
    """What a rank proposes to do next; all do the largest proposal."""

    UPDATE = 0
    WAIT = 1
    STOP = 2


class Trainer:
    """One run's training.

    Args:
        context: Context of the process.
        ranks: The processes that train together.
        computing: What it computes on.
    """

    def __init__(self, context: Context, ranks: Ranks, computing: Computing) -> None:
        self._context, self._ranks = context, ranks
        self._spec = context.run.spec
        self._stop = context.stop
        self._folder = CheckpointFolder(context.directory, self._spec.schedule.keep_checkpoints)
        self._saver = CheckpointSaver(self._folder, context.writer)
        self._image_encoder = ""
        self._guided: list[str] = []  # until the buffer is there
        self._compiled = False  # unless a checkpoint says so
        self._updater, self._env_steps, self._encoder = self._load()
        self._updater.equalise()
        self._code = UpdateCode(self._updater, self._spec, context.settings.folder, self._ranks, used=self._compiled)
        if self._code.missing and self._ranks.first:
            message = f"updates are not compiled: {self._code.missing}"
            loosely(lambda: context.writer.event("warning", message, {}))
        self._saved_updates = self._updater.updates
        self._patience = Patience(context.stop)
        self._report = TrainingReport(
            context, self._updater.updates, self._env_steps, self._patience, computing, silent=not ranks.first
        )
        self._tell_code()
        plan_json = json.dumps(self._spec.plan_settings().to_dict())
        self._publisher = Publisher(
            context.settings.hub_address, context.writer, plan_json, self._spec.schedule.publish_every_s
        )

    def run(self) -> None:
        """Trains to the end. Raises Stopped, having saved, when the process must stop."""
        with self._report.telling(), self._publisher, self._saver, self._replay() as replay:
            try:
                self._wait_for_buffer(replay)
                if self._pretrain_left():
                    self._report.stage = "pretraining"
                    self._train(replay, online=False)
                    self._change_code()
                    self._save()
                elif self._spec.init_from is not None and self._updater.updates == 0:
                    self._save()  # what fine-tuning began with, on the run's own task table
                self._saver.wait()
                self._publish()
                self._report.pretrained = True
                if self._online_left():
                    self._report.stage = "training"
                    self._train(replay, online=True)
                self._env_steps = replay.get_buffer(self._context.run.id).env_steps
                self._save()
                self._saver.wait()
                self._publish()
                self._report.stage, self._report.finished = "", True
            except Stopped:
                if self._updater.updates > self._saved_updates:
                    self._save()
                self._saver.wait()
                raise

    # ---- starting

    def _replay(self) -> Replay:
        settings = self._context.settings
        return replay_client(settings.replay, remedy=REMEDY, patience=self._patience, away=settings.replay_away)

    def _load(self) -> tuple[Updater, int, str]:
        """The updater, env steps and text encoder: from the newest intact checkpoint, or fresh."""
        settings, spec = self._context.settings, self._spec
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        try:
            # A fine-tuned agent brings the vectors that it knows.
            embeds = spec.algorithm.language and spec.init_from is None
            embedded = embed_tasks(spec.task_list(), spec.algorithm.text_encoder) if embeds else None
        except EncoderUnavailableError as error:
            raise RunFailedError(str(error)) from error
        encoder = embedded.encoder if embedded else ""
        newest = self._folder.newest()
        if newest is not None:
            name, checkpoint = newest
            if spec.init_from is None and checkpoint.info["text_encoder"] != encoder:
                raise RunFailedError(
                    f"checkpoint {name} was trained with the text encoder {checkpoint.info['text_encoder']!r}, here is "
                    f"{encoder!r}; a run never mixes encoders: install the old one, or start a new run"
                )
            self._image_encoder = checkpoint.info.get("image_encoder") or ""
            self._compiled = bool(checkpoint.info.get("compiled"))
            updater = checkpoint.updater(self._ranks.device, self._ranks, kind=updater_kind(spec))
            log.info("resumed", checkpoint=name, updates=updater.updates)
            return updater, int(checkpoint.info["env_steps"]), checkpoint.info["text_encoder"]
        if spec.init_from is not None:
            try:
                model, encoder, self._image_encoder = initial_agent(
                    settings.folder.run_initial(self._context.run.id), spec
                )
            except NewtError as error:
                raise RunFailedError(f"cannot start from {spec.init_from}: {error}") from error
        else:
            model = fresh_model(spec, embedded.vectors if embedded else None)
        updater = updater_kind(spec)(
            model.to(self._ranks.device),
            spec.train_settings(),
            seed=derive(spec.seed, "updates"),
            ranks=self._ranks,
        )
        return updater, 0, encoder

    def _wait_for_buffer(self, replay: Replay) -> None:
        """The collector makes the buffer when the demonstrations are there."""
        self._report.stage = "waiting for demonstrations" if self._spec.has_demos() else "waiting for the buffer"
        buffer = until_available(
            lambda: replay.get_buffer(self._context.run.id), None, _BUFFER_POLL, self._stop.sleep, on=(NotFoundError,)
        )
        self._guided = self._spec.guided_tasks({task.task: task.demo_episodes for task in buffer.tasks})
        self._meet_image_encoder(buffer.config.image_encoder)

    def _meet_image_encoder(self, name: str) -> None:
        """The collector's encoder must be that of the checkpoint, if that knows one."""
        if self._image_encoder and self._image_encoder != name:
            raise RunFailedError(
                f"the checkpoint was trained with the image encoder {self._image_encoder!r}, the run collects with "
                f"{name!r}; a model never mixes encoders: name the old one in NEWT_LEARNER_IMAGE_ENCODER and "
                "start a new run"
            )
        self._image_encoder = name

    # ---- updating

    def _pretrain_left(self) -> int:
        return max(0, self._spec.pretrain_updates() - self._updater.updates)

    def _online_left(self) -> int:
        return self._spec.pretrain_updates() + self._spec.online_updates() - self._updater.updates

    def _train(self, replay: Replay, *, online: bool) -> None:
        """Makes all updates that are left in a phase, in step with the other ranks."""
        left = self._online_left if online else self._pretrain_left
        done_before = self._spec.pretrain_updates() if online else 0
        with BatchFeed(lambda index: self._batches(replay, index, online), self._updater.updates - done_before) as feed:
            batch = None
            while left():
                batch = batch or feed.take(BATCH_POLL_S)
                self._report.waiting_on = feed.waiting_on
                self._saver.check()
                step = _Step.STOP if self._stop.is_set() else _Step.UPDATE if batch else _Step.WAIT
                agreed = self._ranks.agree(step)
                if agreed == _Step.STOP:
                    raise Stopped
                if agreed == _Step.UPDATE:
                    assert batch is not None
                    self._update(batch, online=online)
                    batch = None

    def _batches(self, replay: Replay, index: int, online: bool) -> ReadAhead:
        """This rank's part of the batches from an index on."""
        spec, ranks = self._spec, self._ranks
        phase = "online" if online else "pretraining"
        updates = spec.online_updates() if online else spec.pretrain_updates()
        return replay.batches(
            self._context.run.id,
            batch_size=ranks.share(spec.replay.batch_size, "replay.batch_size"),
            horizon=spec.train.horizon,
            seed=derive(spec.seed, phase) if ranks.first else derive(spec.seed, phase, ranks.rank),
            demo_fraction=spec.demo_fraction() if online else 1.0,
            sampler=spec.replay.sampler,
            limited=online,
            first_index=index,
            count=updates - index,
            patience_s=10.0,
        )

    def _update(self, received: Batch, *, online: bool) -> None:
        batch = update_batch(received, self._updater.model.device)
        self._code.begin(batch)
        metrics = self._updater.rl_update(batch) if online else self._updater.pretrain_update(batch)
        self._env_steps = max(self._env_steps, received.env_steps)
        if batch.obs.device.type == "cpu" or self._updater.updates % CHECK_EVERY_ON_GPU == 0:
            self._check(metrics)
        self._report.updated(self._updater.updates, self._env_steps, received.blocked_seconds, metrics)
        if online:
            self._report.paced(self._pacing(received))
        if self._updater.updates - self._saved_updates >= self._spec.schedule.checkpoint_every_updates:
            self._check(metrics)
            self._updater.require_equal()
            changed = self._change_code()
            self._save()
            if changed:
                self._saver.wait()  # a run that is killed goes on from where other code began, or from before
        if online and self._ranks.first:
            self._publisher.maybe_publish(self._updater.updates, self._weights)

    def _change_code(self) -> bool:
        """Whether the updates from now on are computed by other code than those before."""
        before = self._code.used
        self._code.change()
        self._tell_code()
        return self._code.used != before

    def _tell_code(self) -> None:
        self._report.computing = self._report.computing.model_copy(update={"compiled": self._code.used})

    def _pacing(self, received: Batch) -> Pacing:
        """How far this update is behind the steps taken when its batch was drawn, and behind the weights that acted."""
        spec, updates = self._spec, self._updater.updates
        earned = spec.schedule.updates_per_env_step * (received.env_steps_taken - spec.seed_env_steps())
        age = self._publisher.age(received.acting_weights_version, updates)
        return Pacing(
            updates_behind=max(0.0, earned - (updates - spec.pretrain_updates())),
            weights_age_updates=age.updates if age else None,
            weights_age_s=age.seconds if age else None,
        )

    def _check(self, metrics: dict[str, torch.Tensor]) -> None:
        wrong = [name for name, value in read_metrics(metrics).items() if not math.isfinite(value)]
        if wrong:
            self._report.diverged = True
            with suppress(RunFailedError):
                self._saver.wait()  # which may be the last good one
            names = [checkpoint.name for checkpoint in self._folder.list()]
            kept = f"the last good checkpoint is {names[-1]}" if names else "there is no checkpoint yet"
            raise RunFailedError(
                f"{', '.join(wrong)} became NaN or infinite at update {self._updater.updates}; {kept}. Start a new run "
                "with a lower train.lr or train.grad_clip_norm"
            )

    # ---- storing and publishing

    def _save(self) -> None:
        """Copies the state, which is written while the training goes on."""
        left, updates = self._pretrain_left(), self._updater.updates
        self._saved_updates = updates
        if not self._ranks.first:
            return
        name = name_of(self._env_steps, left, updates)
        info = {
            "run_id": self._context.run.id,
            "updates": updates,
            **self._guidance().to_info(),
            "spec": self._spec.model_dump(mode="json"),
            "task_facts": plain_facts(self._spec.task_list()),
            "text_encoder": self._encoder,
            "image_encoder": self._image_encoder,
            "precision": self._report.computing.precision,
            "compiled": self._code.used,
            "newt_version": __version__,
        }
        self._saver.save(name, updates, lambda: copied_checkpoint(self._updater, info))

    def _publish(self) -> None:
        if self._ranks.first:
            patiently(lambda: self._publisher.publish(self._updater.updates, self._weights()), self._stop)

    def _guidance(self) -> Guidance:
        return Guidance(self._env_steps, frozenset(self._guided))

    def _weights(self) -> Payload:
        info = {
            "run_id": self._context.run.id,
            "updates": self._updater.updates,
            **self._guidance().to_info(),
            "trained_mode": "planner" if self._spec.algorithm.planning else "policy",
            "obs_dims": [task.obs_dim for task in self._spec.task_list()],
        }
        return copied_weights(self._updater.model, info)


def work(context: Context) -> None:
    """The body of the process."""
    if context.run.state is RunState.SUCCEEDED:
        return
    settings = context.settings
    try:
        with process_group(devices.resolve(settings.device), settings.rank_timeout_s) as ranks:
            structlog.contextvars.bind_contextvars(rank=ranks.rank)
            Trainer(context, ranks, compute_on(ranks.device, context.run.spec.train.precision)).run()
    except PeerLostError as error:
        raise PeerGoneError(str(error)) from error
    except ConfigError as error:
        raise RunFailedError(
            f"cannot train on NEWT_LEARNER_DEVICE={settings.device} with resources.processes "
            f"{context.run.spec.resources.processes}: {error}"
        ) from error


@record
def main() -> None:
    """Trains, alone or as one of several ranks, of which the first holds the run's lock."""
    leave(run_child("trainer", work, alone=launched_rank() == 0))


if __name__ == "__main__":
    main()
