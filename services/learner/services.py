"""The services that a run's collector and evaluations talk to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient
from newt.client.sim import AutoReset, ObsMode, SimClient, SimSession
from newt.tasks.domains import DOMAINS
from newt.tasks.registry import Task
from services.learner.child import RunFailedError, StopFlag
from services.learner.settings import LearnerSettings
from services.learner.sight import Vision
from services.learner.waiting import Patience

# Above NEWT_SIM_STEP_TIMEOUT_S, after which the service itself ends a simulator that hangs: the step then comes back
# with that episode lost, where a shorter deadline would have us ask again and again meanwhile.
SIM_TIMEOUT_S = 90.0
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
        vision: What makes features of frames; None without images.
    """

    sims: dict[str, SimClient]
    planner: PlannerClient
    replay: ReplayClient
    patience: Patience
    settings: LearnerSettings
    vision: Vision | None = None

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
            settings: Where the services are.
            domains: Whose simulators are needed.
            stop: Ends every wait.
            limit_s: How long a service may be away; None: for as long as it takes.

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
        remedies = {_sim_name(domain, settings): start_sim(domain) for domain in domains}
        return cls(
            {domain: SimClient(settings.sims[domain], SIM_TIMEOUT_S, OPEN_TIMEOUT_S) for domain in domains},
            PlannerClient(settings.planner),
            ReplayClient(settings.replay),
            Patience(stop, limit_s, remedies),
            settings,
            vision,
        )

    def sim_name(self, domain: str) -> str:
        """What to call a simulator when waiting for it."""
        return _sim_name(domain, self.settings)

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
        with_frames: bool = False,
    ) -> SimSession:
        """Leases instances of one domain, waiting for room; their lease is kept alive."""
        obs_mode = ObsMode.STATE_RGB if with_frames else ObsMode.STATE
        names = [task.name for task in tasks]
        return self.patience.call(
            self.sim_name(domain),
            lambda: self.sims[domain].open(
                names, seeds, obs_mode=obs_mode, auto_reset=auto_reset, with_expert=with_expert, keep_alive=True
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


def start_sim(domain: str) -> str:
    """What to do when a domain's simulator does not run."""
    service = DOMAINS[domain].service
    return (
        f"start {service} (under compose: docker compose --profile {service} up -d), or correct its address in "
        "NEWT_LEARNER_SIMS"
    )


def _sim_name(domain: str, settings: LearnerSettings) -> str:
    return f"simulator of {domain} at {settings.sims[domain]}"
