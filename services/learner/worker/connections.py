"""The services that a run's collector and evaluations talk to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn, Self

import structlog

from newt.client.planner import PlannerClient
from newt.client.shards import Replay, replay_client
from newt.client.sim import AutoReset, ObsMode, SimClient
from newt.client.sim_session import Lost, SimSession
from newt.client.steps import Step
from newt.errors import NotFoundError, PreconditionError
from newt.tasks.registry import Task
from services.learner.measured import Meter
from services.learner.playing.sight import Vision
from services.learner.settings import LearnerSettings, start_sim
from services.learner.waiting import Patience, RunFailedError, StopFlag

# Above NEWT_SIM_STEP_TIMEOUT_S, after which the service itself ends a simulator that hangs: the step then comes back
# with that episode lost, where a shorter deadline would have us ask again and again meanwhile.
SIM_TIMEOUT_S = 90.0
BUILD_TIMEOUT_S = 120.0
REFUSED_PAUSE_S = 1.0
MANY_CRASHES = 20
"""Episodes of a task that crash one behind the other before it is told: a mishap of a worker takes a few along."""
log = structlog.get_logger(__name__)

REMEDY = "start it, or correct its address in the learner's settings"


class SimsGoneError(PreconditionError):
    """The simulators of a session died at every attempt to bring them back, and nobody waits any longer."""


def give_up() -> NoReturn:
    """What a session is to call when simulators are `lost`, where that ends it."""
    raise SimsGoneError("the simulators died at every attempt to bring them back")


@dataclass(frozen=True)
class Services:
    """Patient connections: calls are repeated while a service is away.

    Attributes:
        sims: Simulator of every domain.
        planner: The planners.
        replay: The replay service.
        patience: Knows who is being waited for.
        vision: What makes features of frames; None without images.
        meter: How long others take.
    """

    sims: dict[str, SimClient]
    planner: PlannerClient
    replay: Replay
    patience: Patience
    vision: Vision | None = None
    meter: Meter = field(default_factory=Meter)
    _crashes: Counter[str] = field(default_factory=Counter, repr=False)
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)  # episodes end in several threads

    @classmethod
    def connect(
        cls,
        settings: LearnerSettings,
        domains: Iterable[str],
        stop: StopFlag,
        limit_s: float | None = None,
        vision: Vision | None = None,
    ) -> Self:
        """Opens the channels; nothing is sent yet.

        Args:
            settings: Settings with the services' addresses.
            domains: Domains whose simulators are needed.
            stop: Ends every wait.
            limit_s: How long a service may be away; None: for as long as it takes, once it has answered.
            vision: What makes features of frames; None without images.

        Raises:
            RunFailedError: A domain has no simulator configured.
        """
        domains = sorted(set(domains))
        missing = [domain for domain in domains if domain not in settings.sims]
        if missing:
            raise RunFailedError(
                f"no simulator is configured for {', '.join(missing)}: start it, name it in NEWT_LEARNER_SIMS "
                "and resume the run"
            )
        patience = Patience(stop, limit_s)
        # What never answered is not there; what has answered comes back.
        at_first = patience.at_first(settings.dependency_timeout_s)
        sims = {
            domain: SimClient(
                settings.sims[domain],
                SIM_TIMEOUT_S,
                BUILD_TIMEOUT_S,
                name=f"simulator of {domain}",
                remedy=start_sim(domain),
                patience=at_first,
            )
            for domain in domains
        }
        return cls(
            sims,
            PlannerClient(settings.planner, remedy=REMEDY, patience=patience),
            replay_client(settings.replay, remedy=REMEDY, patience=at_first, away=settings.replay_away),
            patience,
            vision,
        )

    def check_sims(self, tasks: Sequence[Task]) -> None:
        """Waits until every simulator answers and compares its tasks with those that the work began with.

        Raises:
            RunFailedError: A simulator stays away, lacks a task, or has it with other dimensions.
        """
        for domain, client in self.sims.items():
            hosted = {task.name: task for task in client.describe()}
            for task in (task for task in tasks if task.domain == domain):
                have = hosted.get(task.name)
                if have is None:
                    raise RunFailedError(f"the {client.peer} does not host {task.name}")
                got = (have.obs_dim, have.action_dim, have.episode_length)
                expected = (task.obs_dim, task.action_dim, task.episode_length)
                if got != expected:
                    raise RunFailedError(
                        f"{task.name}: the {client.peer} has obs_dim, action_dim, episode_length {got}, work began "
                        f"with {expected}; run the same version of Newt, and of your own tasks, everywhere"
                    )
                if task.digest and have.digest and task.digest != have.digest:
                    log.warning("task_code_changed", task=task.name, began_with=task.digest, now=have.digest)

    def open(
        self,
        domain: str,
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        auto_reset: AutoReset = AutoReset.SAME_STEP,
        with_expert: bool = False,
        with_frames: bool = False,
        lost: Lost | None = None,
    ) -> SimSession:
        """Leases instances of one domain, waiting for room; their lease is kept alive.

        `lost` is told each time that the simulator could not build them, and is asked again.

        Raises:
            NotFoundError, PreconditionError: The simulator refuses them. Callers ask again, so it takes a second.
        """
        obs_mode = ObsMode.STATE_RGB if with_frames else ObsMode.STATE
        names = [task.name for task in tasks]
        try:
            session = self.sims[domain].open(
                names,
                seeds,
                obs_mode=obs_mode,
                auto_reset=auto_reset,
                with_expert=with_expert,
                keep_alive=True,
                lost=lost,
            )
        except (NotFoundError, PreconditionError):
            self.patience.pause(REFUSED_PAUSE_S)
            raise
        self.meter.opened()
        return session

    def saw(self, tasks: Sequence[Task], step: Step) -> None:
        """Notes how episodes end: of a task of which they only crash, whoever watches the run is to know.

        Args:
            tasks: Of the rows of the step.
            step: A step of a session.
        """
        for row in step.final_rows:
            name = tasks[row].name
            with self._counting:
                crashes = self._crashes.pop(name, 0)
                if step.crashed[row]:
                    self._crashes[name] = crashes = crashes + 1
            if not step.crashed[row]:
                if crashes >= MANY_CRASHES:
                    self.patience.note(f"episodes of {name}", None)
            elif crashes == MANY_CRASHES:
                told = f"whole episodes of {name}: the last {MANY_CRASHES} have crashed"
                text = f"{told}, and its simulator's log says why; mend it there (`newt env check`)"
                log.error("episodes_only_crash", task=name, remedy=text)
                self.patience.note(f"episodes of {name}", text)

    def close(self) -> None:
        """Closes all channels."""
        for client in self.sims.values():
            client.close()
        self.planner.close()
        self.replay.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
