"""The services that a run's collector and evaluations talk to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient
from newt.client.sim import AutoReset, SimClient, SimSession
from newt.tasks.registry import Task
from services.learner.child import RunFailedError, StopFlag
from services.learner.settings import LearnerSettings
from services.learner.waiting import Patience

SIM_TIMEOUT_S = 30.0
OPEN_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Services:
    """Connections, and the patience to use them with.

    Attributes:
        sims: Simulator of every domain.
        planner: The planners.
        replay: The replay service.
        patience: Repeats calls while a service is away.
        settings: Where they are.
    """

    sims: dict[str, SimClient]
    planner: PlannerClient
    replay: ReplayClient
    patience: Patience
    settings: LearnerSettings

    @classmethod
    def connect(
        cls, settings: LearnerSettings, domains: Iterable[str], stop: StopFlag, limit_s: float | None = None
    ) -> Self:
        """Opens the channels; nothing is sent yet.

        Args:
            settings: Where the services are.
            domains: Whose simulators are needed.
            stop: Ends every wait.
            limit_s: How long a service may be away; None: for as long as it takes.

        Raises:
            RunFailedError: A domain has no simulator configured.
        """
        missing = sorted(set(domains) - set(settings.sims))
        if missing:
            raise RunFailedError(
                f"no simulator is configured for {', '.join(missing)}: start it, name it in NEWT_LEARNER_SIMS "
                "and resume the run"
            )
        return cls(
            {
                domain: SimClient(settings.sims[domain], SIM_TIMEOUT_S, OPEN_TIMEOUT_S)
                for domain in sorted(set(domains))
            },
            PlannerClient(settings.planner),
            ReplayClient(settings.replay),
            Patience(stop, limit_s),
            settings,
        )

    def sim_name(self, domain: str) -> str:
        """What to call a simulator when waiting for it."""
        return f"simulator of {domain} at {self.settings.sims[domain]}"

    @property
    def planner_name(self) -> str:
        """What to call the planner when waiting for it."""
        return f"planner at {self.settings.planner}"

    @property
    def replay_name(self) -> str:
        """What to call replay when waiting for it."""
        return f"replay at {self.settings.replay}"

    def check_sims(self, tasks: Sequence[Task]) -> None:
        """Waits until every simulator answers and compares its tasks with the registry's.

        Raises:
            RunFailedError: A simulator stays away, lacks a task, or has it with other dimensions.
        """
        for domain, client in self.sims.items():
            timeout_s = self.settings.dependency_timeout_s
            hosted = {task.name: task for task in self.patience.call(self.sim_name(domain), client.describe, timeout_s)}
            for task in (task for task in tasks if task.domain == domain):
                have = hosted.get(task.name)
                if have is None:
                    raise RunFailedError(f"the {self.sim_name(domain)} does not host {task.name}")
                got = (have.obs_dim, have.action_dim, have.episode_length)
                expected = (task.obs_dim, task.action_dim, task.episode_length)
                if got != expected:
                    raise RunFailedError(
                        f"{task.name}: the {self.sim_name(domain)} has obs_dim, action_dim, episode_length {got}, the "
                        f"registry has {expected}; run the same version of Newt everywhere"
                    )

    def open(
        self,
        domain: str,
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        auto_reset: AutoReset = AutoReset.SAME_STEP,
        with_expert: bool = False,
    ) -> SimSession:
        """Leases instances of one domain, waiting for room; their lease is kept alive."""
        names = [task.name for task in tasks]
        return self.patience.call(
            self.sim_name(domain),
            lambda: self.sims[domain].open(
                names, seeds, auto_reset=auto_reset, with_expert=with_expert, keep_alive=True
            ),
        )

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
