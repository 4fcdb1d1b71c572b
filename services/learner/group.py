"""Collecting with one group of simulator instances, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from newt.client.sim import Observation, SimSession, Step
from newt.errors import NotFoundError, PreconditionError
from newt.runs.spec import RunSpec
from newt.tasks.registry import Task
from services.learner.acting import Actor, Decision, Mode, Model
from services.learner.child import Stopped
from services.learner.episodes import EpisodeStage
from services.learner.pace import CollectionOver, Pace
from services.learner.seeds import derive, generator
from services.learner.services import Services
from services.learner.sight import Floats, Sight

# Vector steps between two questions to replay's limiter; it counts whole episodes, so each step would be idle talk.
LIMITER_EVERY_STEPS = 10
LIMITER_TIMEOUT_S = 2.0
APPEND_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Instance:
    """One simulator instance of a run.

    Attributes:
        task: What it plays.
        number: Distinguishes the instances of a task.
    """

    task: Task
    number: int


class CollectorGroup:
    """Steps some instances of one domain and stores their episodes, until collection is over.

    Two groups per domain overlap: while one plans, the other simulates.

    Args:
        index: Position among the run's groups.
        spec: Settings of the run.
        buffer_id: The run's id.
        instances: Of one domain.
        first_episode: Number of the next episode of each task, above all that earlier processes used.
        services: Simulators, planner, replay.
        pace: Shared with the other groups.
    """

    def __init__(
        self,
        index: int,
        spec: RunSpec,
        buffer_id: str,
        instances: Sequence[Instance],
        first_episode: dict[str, int],
        services: Services,
        pace: Pace,
    ) -> None:
        self._index, self._spec, self._buffer_id = index, spec, buffer_id
        self._instances = list(instances)
        self._tasks = [instance.task for instance in instances]
        self._domain = self._tasks[0].domain
        self._next_episode = [first_episode[task.name] for task in self._tasks]
        self._services, self._pace = services, pace
        random = generator(spec.seed, "collect", index, *self._next_episode)
        model = Model(buffer_id, tuple(task.name for task in spec.task_list()))
        self._actor = Actor(services.planner, services.planner_name, model, self._tasks, random, services.patience)
        self._seed_env_steps = spec.seed_env_steps()
        self.thread = threading.Thread(target=self._run, name=f"collect-{self._domain}-{index}", daemon=True)

    def _run(self) -> None:
        self._pace.join(self._index)
        error: BaseException | None = None
        try:
            while True:
                try:
                    self._play()
                except (NotFoundError, PreconditionError) as lost:
                    # The simulator service was restarted, or our lease ended: running episodes are gone.
                    log.warning("session_lost", domain=self._domain, error=str(lost))
        except (CollectionOver, Stopped):
            pass
        except BaseException as unexpected:
            error = unexpected
        finally:
            self._pace.leave(self._index, error)

    def _play(self) -> None:
        """Opens a session and steps it for as long as it lives."""
        services, name = self._services, self._services.sim_name(self._domain)
        seeds = [
            derive(self._spec.seed, "envs", instance.task.name, instance.number, episode)
            for instance, episode in zip(self._instances, self._next_episode, strict=True)
        ]
        with services.open(self._domain, self._tasks, seeds, with_frames=services.vision is not None) as session:
            shown = services.patience.call(name, session.reset)
            sight = Sight(services.vision, len(self._tasks))
            stage = EpisodeStage(self._tasks, sight.encoder_name)
            image = sight.begin(range(len(self._tasks)), shown)
            for row in range(len(self._tasks)):
                stage.begin(row, shown.obs[row], int(shown.episode_seed[row]), image[row])
            first = np.ones(len(self._tasks), np.bool_)
            steps = 0
            while True:
                if steps % LIMITER_EVERY_STEPS == 0:
                    self._await_limiter()
                steps += 1
                self._pace.wait_for_turn(self._index)
                shown, image, first = self._step(session, stage, sight, shown, image, first)

    def _step(
        self,
        session: SimSession,
        stage: EpisodeStage,
        sight: Sight,
        shown: Observation,
        image: Floats,
        first: npt.NDArray[np.bool_],
    ) -> tuple[Observation, Floats, npt.NDArray[np.bool_]]:
        services = self._services
        env_step = self._pace.env_steps
        mode = self._mode(env_step)
        decision = self._actor.act(mode, shown.obs, first, explore=True, env_step=env_step, image=image)
        session.send(decision.action)
        step = services.patience.call(services.sim_name(self._domain), session.receive)
        self._pace.stepped(self._index, len(self._tasks))
        image, final_image = sight.step(step)
        first = np.zeros(len(self._tasks), np.bool_)
        finals = {int(row): i for i, row in enumerate(step.final_rows)}
        for row in range(len(self._tasks)):
            final = finals.get(row)
            next_image = image[row] if final is None else final_image[final]
            self._stage_row(stage, step, decision, next_image, row, final)
            if final is not None:
                first[row] = True
                stage.begin(row, step.observation.obs[row], int(step.observation.episode_seed[row]), image[row])
        return step.observation, image, first

    def _mode(self, env_step: int) -> Mode:
        if env_step < self._seed_env_steps:
            return "policy" if self._spec.starts_with_policy() else "random"
        return "planner" if self._spec.algorithm.planning else "policy"

    def _stage_row(
        self, stage: EpisodeStage, step: Step, decision: Decision, next_image: Floats, row: int, final: int | None
    ) -> None:
        if step.crashed[row]:
            log.warning("instance_crashed", task=self._tasks[row].name)
            return  # the episode is dropped: its end is unknown
        stage.step(
            row,
            decision.action[row],
            float(step.reward[row]),
            step.observation.obs[row] if final is None else step.final_obs[final],
            decision.behaviour,
            decision.weights_version,
            next_image,
        )
        if final is None:
            return
        instance = self._instances[row]
        episode = stage.finish(
            row,
            f"{instance.task.name}/{instance.number}/{self._next_episode[row]}",
            terminated=bool(step.terminated[row]),
            success=float(step.success[row]),
            score=float(step.corrected_score[row]),
        )
        self._next_episode[row] += 1
        services = self._services
        reply = services.patience.call(
            services.replay_name,
            lambda: services.replay.append(episode, buffer_id=self._buffer_id, timeout_s=APPEND_TIMEOUT_S),
        )
        # One line per episode would be many; whoever checks that none is lost asks for them.
        log.debug("episode_acknowledged", episode=episode.episode_id, duplicate=reply.duplicate)
        self._pace.stored(episode, reply)

    def _await_limiter(self) -> None:
        services = self._services
        while not self._pace.is_over():
            with self._pace.parked(self._index):
                reply = services.patience.call(
                    services.replay_name,
                    lambda: services.replay.await_insert(self._buffer_id, timeout_s=LIMITER_TIMEOUT_S),
                )
            if reply.granted:
                return
