"""Demonstrations from scripted experts: their good episodes (newt.tasks.demo_rule), into a named set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import structlog

from newt.acting.stage import EpisodeStage
from newt.client.steps import Observation, Step
from newt.errors import NotFoundError, PreconditionError
from newt.tasks.demo_rule import good_so_far
from newt.tasks.registry import Task
from newt.wire.episodes import Behaviour
from services.learner.demonstrating.disturbance import Disturbance
from services.learner.playing.leaving import Leaving
from services.learner.seeds import derive
from services.learner.worker.connections import Services, SimsGoneError, give_up

# Experts fail now and then; one that fails more often than this is given up ...
FAILURES_PER_EPISODE = 5
# ... and one that has never succeeded, sooner.
FAILURES_WITHOUT_SUCCESS = 20
ROWS = 8
MAX_CRASHES = 2 * ROWS  # one behind the other: a worker that dies takes a session along, at most

log = structlog.get_logger(__name__)


def missing_episodes(services: Services, demo_set: str, tasks: Sequence[Task], episodes: int) -> dict[str, int]:
    """How many demonstrations of each task a set lacks; tasks that have enough are left out."""
    try:
        sets = services.replay.list_demo_sets(demo_set)
    except NotFoundError:
        sets = []
    have = {task.task: task.episodes for found in sets for task in found.tasks}
    lacking = {task.name: episodes - have.get(task.name, 0) for task in tasks}
    return {name: count for name, count in lacking.items() if count > 0}


def collect_scripted(
    services: Services,
    demo_set: str,
    tasks: Sequence[Task],
    episodes: int,
    disturbance: float = 0.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Fills a set up to `episodes` good demonstrations per task, as far as the experts can.

    Seeds depend on the set and the task only, and the seed is the episode's id: two runs that fill the same set at the
    same time store the same episodes, once.

    Args:
        services: Simulators and replay.
        demo_set: Name of the set.
        tasks: Tasks that have an expert.
        episodes: Wanted per task.
        disturbance: Largest amplitude of the noise on their actions.
        on_progress: Called with episodes stored and wanted.

    Returns:
        How many demonstrations are missing, by task, where the expert fails too often. Nothing is wrong then: the task
        has fewer demonstrations, or none.
    """
    missing = missing_episodes(services, demo_set, tasks, episodes)
    total = left = sum(missing.values())
    given_up: dict[str, int] = {}

    for domain in sorted({task.domain for task in tasks if task.name in missing}):
        group = [task for task in tasks if task.domain == domain and task.name in missing]
        for low in range(0, len(group), ROWS):
            part = group[low : low + ROWS]
            wanted = {task.name: missing[task.name] for task in part}
            left -= sum(wanted.values())

            def stored(here: int, later: int = left) -> None:
                on_progress(total - later - here, total)

            given_up |= _DemoSession(services, demo_set, domain, part, wanted, episodes, disturbance, stored).play()
    return given_up


class _DemoSession:
    """Plays the experts of a few tasks of one domain until there are enough successes, or hope is lost."""

    def __init__(
        self,
        services: Services,
        demo_set: str,
        domain: str,
        tasks: Sequence[Task],
        wanted: dict[str, int],
        episodes: int,
        disturbance: float,
        stored: Callable[[int], None],
    ) -> None:
        self._services, self._demo_set, self._domain, self._stored = services, demo_set, domain, stored
        self._wanted, self._episodes, self._disturbance = wanted, episodes, disturbance
        self._failures = dict.fromkeys(wanted, 0)
        self._crashes = dict.fromkeys(wanted, 0)
        self._most_failures = {name: FAILURES_PER_EPISODE * count + 5 for name, count in wanted.items()}
        self._returns: dict[str, list[float]] = {name: [] for name in wanted}
        self._succeeded: set[str] = set()
        self._given_up: dict[str, int] = {}
        copies = max(1, ROWS // len(tasks))
        self._rows = [(task, copy) for task in tasks for copy in range(copies)]
        self._disturbances = [Disturbance(task, 0, 0.0) for task, _ in self._rows]
        self._leaving = Leaving(len(self._rows))
        self._sessions = 0

    def play(self) -> dict[str, int]:
        """Plays; returns what is missing, by task."""
        while any(self._wanted.values()):
            try:
                self._play()
            except SimsGoneError as error:
                log.warning("demo_simulators_gone", domain=self._domain, error=str(error))
                for task, _ in self._rows:
                    self._note_crash(task.name)
            except (NotFoundError, PreconditionError) as error:
                log.warning("demo_session_lost", domain=self._domain, error=str(error))
        return self._given_up

    def _play(self) -> None:
        services = self._services
        tasks = [task for task, _ in self._rows]
        seeds = [derive("demos", self._demo_set, task.name, copy, self._sessions) for task, copy in self._rows]
        self._sessions += 1
        with services.open(self._domain, tasks, seeds, with_expert=True, lost=give_up) as session:
            shown = session.reset(lost=give_up)
            stage = EpisodeStage(tasks)
            for row in range(len(tasks)):
                self._begin(stage, row, shown)
            self._leaving = Leaving(len(tasks))
            while self._plays():
                assert shown.expert_action is not None
                action = np.clip(shown.expert_action, -1, 1)
                for row, disturbance in enumerate(self._disturbances):
                    noise = disturbance.noise()
                    action[row, : len(noise)] = np.clip(action[row, : len(noise)] + noise, -1, 1)
                session.send(action)
                step = session.receive(lost=give_up)
                self._record(stage, action, step)
                self._leaving.saw(step.draining, step.ended)
                shown = step.observation
            if any(self._wanted.values()):
                log.info("simulator_left", domain=self._domain, missing=sum(self._wanted.values()))

    def _plays(self) -> bool:
        """Whether any row plays what is wanted."""
        present = self._leaving.present
        return any(present[row] and self._wanted[task.name] for row, (task, _) in enumerate(self._rows))

    def _record(
        self, stage: EpisodeStage, action: np.ndarray[tuple[int, ...], np.dtype[np.float32]], step: Step
    ) -> None:
        shown = step.observation
        self._services.saw([task for task, _ in self._rows], step)
        for row in np.flatnonzero(self._leaving.present).tolist():
            task, _ = self._rows[row]
            if not step.crashed[row]:
                stage.step(row, action[row], float(step.reward[row]), step.reached_obs[row], Behaviour.EXPERT)
            if not step.ended[row]:
                continue
            if step.crashed[row]:
                self._note_crash(task.name)
            else:
                self._crashes[task.name] = 0
                self._keep(stage, row, task, step)
            self._begin(stage, row, shown)

    def _begin(self, stage: EpisodeStage, row: int, shown: Observation) -> None:
        seed = int(shown.episode_seed[row])
        self._disturbances[row] = Disturbance(self._rows[row][0], seed, self._disturbance)
        stage.begin(row, shown.obs[row], seed)

    def _keep(self, stage: EpisodeStage, row: int, task: Task, step: Step) -> None:
        success = float(step.success[row])
        episode = stage.finish(
            row,
            f"{task.name}/{stage.seed(row)}",
            terminated=bool(step.terminated[row]),
            success=success,
            score=float(step.corrected_score[row]),
        )
        if not self._wanted[task.name]:
            return
        returns = self._returns[task.name]
        returns.append(float(episode.reward.sum(dtype=np.float64)))
        if not good_so_far(returns, episode.score, success):
            self._note_failure(task.name)
            return
        self._succeeded.add(task.name)
        reply = self._services.replay.append(episode, demo_set=self._demo_set)
        # Not one less: a duplicate adds nothing, and another run may be filling the same set.
        self._wanted[task.name] = max(0, self._episodes - reply.task_episodes)
        self._stored(sum(self._wanted.values()))

    def _note_failure(self, task: str) -> None:
        self._failures[task] += 1
        most = self._most_failures[task]
        if task not in self._succeeded:
            most = min(most, FAILURES_WITHOUT_SUCCESS)
        if self._failures[task] >= most:
            self._give_up(task, failures=self._failures[task])

    def _note_crash(self, task: str) -> None:
        self._crashes[task] += 1
        if self._crashes[task] >= MAX_CRASHES and self._wanted[task]:
            self._give_up(task, crashes=self._crashes[task])

    def _give_up(self, task: str, **why: int) -> None:
        log.warning("expert_given_up", task=task, missing=self._wanted[task], **why)
        self._given_up[task], self._wanted[task] = self._wanted[task], 0
