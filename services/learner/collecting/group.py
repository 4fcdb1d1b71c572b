"""Collecting with one group of simulator instances, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from newt.acting.stage import EpisodeStage
from newt.client.sim_session import SimSession
from newt.client.steps import Observation, Step
from newt.errors import NotFoundError, PreconditionError
from newt.runs.spec import RunSpec
from newt.tasks.registry import Task
from services.learner.collecting.outbox import Outbox
from services.learner.collecting.pace import CollectionOver, Pace
from services.learner.playing.actor import Actor, Decision, Mode, Model
from services.learner.playing.leaving import Leaving
from services.learner.playing.sight import Floats, Sight
from services.learner.seeds import derive, generator
from services.learner.waiting import Stopped
from services.learner.worker.connections import Services

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
        instances: Instances of one domain.
        first_episode: Number of the next episode of each task, above all that earlier processes used.
        guided_tasks: Tasks to seed with the policy; the others are seeded at random.
        services: Simulators, planner, replay.
        pace: Shared with the other groups.
        outbox: Stores episodes.
    """

    def __init__(
        self,
        index: int,
        spec: RunSpec,
        buffer_id: str,
        instances: Sequence[Instance],
        first_episode: dict[str, int],
        guided_tasks: Collection[str],
        services: Services,
        pace: Pace,
        outbox: Outbox,
    ) -> None:
        self._index, self._spec, self._buffer_id = index, spec, buffer_id
        self._instances = list(instances)
        self._tasks = [instance.task for instance in instances]
        self._domain = self._tasks[0].domain
        self._leaving = Leaving(len(self._instances))
        self._next_episode = [first_episode[task.name] for task in self._tasks]
        self._services, self._pace, self._outbox = services, pace, outbox
        random = generator(spec.seed, "collect", index, *self._next_episode)
        model = Model(buffer_id, tuple(task.name for task in spec.task_list()))
        self._actor = Actor(services.planner, model, self._tasks, random)
        self._seed_env_steps = spec.seed_env_steps()
        self._guided = np.array([task.name in guided_tasks for task in self._tasks])
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
                    self._pace.gave_up(self._index)
                    self._services.meter.lost("session", int(self._leaving.present.sum()))
                    log.warning("session_lost", domain=self._domain, error=str(lost))
        except (CollectionOver, Stopped):
            pass
        except BaseException as unexpected:
            error = unexpected
        finally:
            self._pace.leave(self._index, error)

    def _play(self) -> None:
        """Opens a session and steps it for as long as it lives; of a simulator that drains, until all episodes end."""
        services = self._services
        self._leaving = Leaving(len(self._instances))
        seeds = [
            derive(self._spec.seed, "envs", instance.task.name, instance.number, episode)
            for instance, episode in zip(self._instances, self._next_episode, strict=True)
        ]
        with_frames = services.vision is not None
        with services.open(self._domain, self._tasks, seeds, with_frames=with_frames, lost=self._lost) as session:
            shown = session.reset(lost=self._lost)
            sight = Sight(services.vision, len(self._tasks))
            stage = EpisodeStage(self._tasks, sight.encoder_name)
            image = sight.begin(range(len(self._tasks)), shown)
            for row in range(len(self._tasks)):
                stage.begin(row, shown.obs[row], int(shown.episode_seed[row]), image[row])
            first = np.ones(len(self._tasks), np.bool_)
            while not self._leaving.over:
                self._pace.wait_for_turn(self._index)
                shown, image, first = self._step(session, stage, sight, shown, image, first)
            log.info("simulator_left", domain=self._domain, instances=len(self._instances))

    def _lost(self) -> None:
        """Nobody waits for this group now, nor does it wait once nothing is wanted of it."""
        self._pace.lost(self._index)
        if self._pace.is_over():
            raise CollectionOver

    def _step(
        self,
        session: SimSession,
        stage: EpisodeStage,
        sight: Sight,
        shown: Observation,
        image: Floats,
        first: npt.NDArray[np.bool_],
    ) -> tuple[Observation, Floats, npt.NDArray[np.bool_]]:
        decision = self._decide(shown.obs, image, first)
        with self._services.meter.timed("env_step"):
            session.send(decision.action)
            step = session.receive(lost=self._lost)
        self._services.saw(self._tasks, step)
        self._pace.stepped(self._index, int(self._leaving.present.sum()), int(decision.weights_version.max()))
        image, reached_image = sight.step(step)
        for row in np.flatnonzero(self._leaving.present).tolist():
            self._stage_row(stage, step, decision, reached_image[row], row)
            if step.ended[row]:
                stage.begin(row, step.observation.obs[row], int(step.observation.episode_seed[row]), image[row])
        self._leaving.saw(step.draining, step.ended)
        return step.observation, image, step.ended

    def _decide(self, obs: Floats, image: Floats, first: npt.NDArray[np.bool_]) -> Decision:
        env_step, guided = self._pace.env_steps, self._guided

        def act(mode: Mode) -> Decision:
            return self._actor.act(mode, obs, first, explore=True, env_step=env_step, image=image)

        def plan(mode: Mode) -> Decision:
            with self._services.meter.timed("plan"):
                return act(mode)

        if env_step >= self._seed_env_steps:
            return plan("planner" if self._spec.algorithm.planning else "policy")
        if guided.all():
            return plan("policy")
        return plan("policy").where(guided, act("random")) if guided.any() else act("random")

    def _stage_row(self, stage: EpisodeStage, step: Step, decision: Decision, reached_image: Floats, row: int) -> None:
        if step.crashed[row]:
            log.warning("instance_crashed", task=self._tasks[row].name)
            self._pace.gave_up(self._index, stage.length(row) + 1)
            self._pace.crashed(self._index)
            self._services.meter.lost("instance", 1)
            return  # the episode is dropped: its end is unknown
        stage.step(
            row,
            decision.action[row],
            float(step.reward[row]),
            step.reached_obs[row],
            int(decision.behaviour[row]),
            int(decision.weights_version[row]),
            reached_image,
        )
        if not step.ended[row]:
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
        self._outbox.put(self._index, episode)
