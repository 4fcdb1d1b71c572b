"""Progress of a run: what its two processes say about themselves, and the whole that others see."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from newt.runs.record import Computing, Progress, RunState, TaskProgress
from newt.runs.spec import RunSpec
from newt.runs.stored import read_json
from services.learner.measured import Measured


class _Part(BaseModel):
    stage: str = ""
    waiting_on: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """From the stored JSON; a process that has said nothing yet gives the defaults."""
        return read_json(cls, text) if text else cls()


class Pacing(BaseModel):
    """How well training keeps up with collection, at one online update; None: nothing known, as before the first."""

    updates_behind: float | None = None  # updates that the env steps taken have earned and that are not done
    weights_age_updates: float | None = None  # updates done since the weights were made that act
    weights_age_s: float | None = None  # seconds since then


class TrainerProgress(_Part):
    """What the trainer says about itself."""

    pretrain_updates: int = 0
    updates: int = 0
    updates_per_s: float = 0.0
    losses: dict[str, float] = Field(default_factory=dict)
    pacing: Pacing = Pacing()
    computing: Computing | None = None
    attempt: int = 0
    pretrained: bool = False  # the pretraining phase is over (or there is none) and its weights are published
    finished: bool = False  # all updates are done and the final weights are published
    diverged: bool = False  # a loss became NaN or infinite


class CollectorProgress(_Part):
    """What the collector says about itself."""

    env_steps: int = 0
    env_steps_per_s: float = 0.0
    tasks: dict[str, TaskProgress] = Field(default_factory=dict)
    measured: Measured = Measured()


def merge(
    spec: RunSpec,
    state: RunState,
    trainer: TrainerProgress,
    collector: CollectorProgress,
    *,
    weights_version: int,
    restarts: int,
    blocked: str | None = None,
) -> Progress:
    """The progress that others see; `blocked` says why the learner cannot start the run's processes."""
    stages = [state.value] if state.finished or state is RunState.QUEUED else [trainer.stage, collector.stage]
    waits = [] if state.finished else [blocked, trainer.waiting_on, collector.waiting_on]
    return Progress(
        stage="; ".join(dict.fromkeys(stage for stage in stages if stage)) or "starting",
        waiting_on="; ".join(dict.fromkeys(wait for wait in waits if wait)) or None,
        env_steps=collector.env_steps,
        total_env_steps=spec.schedule.total_env_steps,
        pretrain_updates=trainer.pretrain_updates,
        total_pretrain_updates=spec.pretrain_updates(),
        updates=trainer.updates,
        total_updates=spec.online_updates(),
        env_steps_per_s=0.0 if state.finished else collector.env_steps_per_s,
        updates_per_s=0.0 if state.finished else trainer.updates_per_s,
        eta_s=_eta_s(spec, state, trainer, collector),
        weights_version=weights_version,
        restarts=restarts,
        computing=trainer.computing,
        losses=trainer.losses,
        **({} if state.finished else trainer.pacing.model_dump()),
        tasks=collector.tasks,
    )


def _eta_s(spec: RunSpec, state: RunState, trainer: TrainerProgress, collector: CollectorProgress) -> float | None:
    """Remaining work at the present rates; evaluations are not counted, so it is a lower bound."""
    if state.finished:
        return 0.0
    pretrain = spec.pretrain_updates() - trainer.pretrain_updates
    online = spec.online_updates() - trainer.updates
    steps = spec.schedule.total_env_steps - collector.env_steps
    if trainer.updates_per_s <= 0 and (pretrain or collector.env_steps_per_s <= 0):
        return None
    online_s = online / trainer.updates_per_s if trainer.updates_per_s > 0 else 0.0
    steps_s = steps / collector.env_steps_per_s if collector.env_steps_per_s > 0 else 0.0
    return round((pretrain / trainer.updates_per_s if pretrain else 0.0) + max(online_s, steps_s), 1)
