"""Image features for demonstrations that have none: their actions are played again, and what is seen is encoded.

A simulator repeats an episode from its seed and its actions, drawn or not, so demonstrations can be collected without
drawing and get their features later, from any encoder. An episode that does not repeat is left out: it came from
another version of the simulator, or from a file that does not tell its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import structlog

from newt.client.sim import AutoReset
from newt.client.sim_session import SimSession
from newt.client.steps import Observation
from newt.errors import NotFoundError, PreconditionError
from newt.tasks.registry import Task
from newt.wire.episodes import Episode
from newt.wire.limits import PADDED_ACTION_DIM
from services.learner.playing.sight import Floats, Sight
from services.learner.waiting import RunFailedError
from services.learner.worker.connections import Services

ROWS = 8
MAX_SESSIONS_LOST = 3
# Between two machines the last digits of a simulator may differ.
TOLERANCE = 1e-3

log = structlog.get_logger(__name__)


def add_features(
    services: Services,
    source: str,
    target: str,
    tasks: Sequence[Task],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, tuple[int, str]]:
    """Copies the demonstrations of some tasks into another set, with the features of the services' encoder.

    Episodes that the target has already are not played again.

    Args:
        services: Simulators, replay and vision.
        source: Name of the set that is read.
        target: Name of the set that is filled.
        tasks: Which tasks.
        on_progress: Called with episodes done and wanted.

    Returns:
        How many episodes are left out, and why, by task; tasks without any left out are absent.
    """
    episodes = {task.name: _read(services, source, task.name) for task in tasks}
    total, done = sum(map(len, episodes.values())), 0
    left_out: dict[str, tuple[int, str]] = {}
    for task in tasks:
        have = {episode.episode_id for episode in _read(services, target, task.name)}
        lacking = [episode for episode in episodes[task.name] if episode.episode_id not in have]
        done += len(episodes[task.name]) - len(lacking)
        for low in range(0, len(lacking), ROWS):
            part = lacking[low : low + ROWS]
            for episode in _with_features(services, task, part):
                if isinstance(episode, str):
                    left_out[task.name] = (left_out.get(task.name, (0, ""))[0] + 1, episode)
                else:
                    services.replay.append(episode, demo_set=target)
            done += len(part)
            on_progress(done, total)
    for name, (count, why) in left_out.items():
        log.warning("demos_without_features", task=name, episodes=count, reason=why)
    return left_out


def _with_features(services: Services, task: Task, episodes: Sequence[Episode]) -> list[Episode | str]:
    """The episodes with features; in place of one that does not repeat, the reason."""
    for _ in range(MAX_SESSIONS_LOST):
        try:
            seeds = [episode.seed for episode in episodes]
            with services.open(
                task.domain, [task] * len(episodes), seeds, auto_reset=AutoReset.DISABLED, with_frames=True
            ) as session:
                return _Replayed(services, task, episodes, session).play()
        except (NotFoundError, PreconditionError) as error:
            log.warning("session_lost", domain=task.domain, error=str(error))
    raise RunFailedError(f"the {services.sims[task.domain].peer} lost {MAX_SESSIONS_LOST} sessions in a row")


class _Replayed:
    """Episodes of one task, side by side in one session."""

    def __init__(self, services: Services, task: Task, episodes: Sequence[Episode], session: SimSession) -> None:
        self._services, self._task, self._episodes, self._session = services, task, episodes, session
        self._sight = Sight(services.vision, len(episodes))
        self._images: list[list[Floats]] = [[] for _ in episodes]
        self._failures: dict[int, str] = {}

    def play(self) -> list[Episode | str]:
        rows = range(len(self._episodes))
        longest = max(len(episode.reward) for episode in self._episodes)
        self._note(0, *self._reset(list(rows)))
        for t in range(longest):
            action = np.zeros((len(rows), PADDED_ACTION_DIM), np.float32)
            for row, episode in enumerate(self._episodes):
                if t < len(episode.reward):
                    action[row, : self._task.action_dim] = episode.action[t]
            step = self._session.step(action)
            for row in np.flatnonzero(step.crashed).tolist():
                self._failures.setdefault(row, "its simulator broke")
            self._note(t + 1, step.observation, self._sight.look(step.observation))
            over = np.flatnonzero(step.terminated | step.truncated).tolist()
            if over and t + 1 < longest:
                self._reset(over)
        return [
            self._failures.get(row)
            or replace(episode, image=np.stack(self._images[row]), image_encoder=self._sight.encoder_name)
            for row, episode in enumerate(self._episodes)
        ]

    def _reset(self, rows: list[int]) -> tuple[Observation, Floats]:
        seeds = [self._episodes[row].seed for row in rows]
        shown = self._session.reset(rows, seeds)
        return shown, self._sight.begin(rows, shown)

    def _note(self, t: int, shown: Observation, image: Floats) -> None:
        for row, episode in enumerate(self._episodes):
            if t > len(episode.reward) or row in self._failures:
                continue
            got, expected = shown.obs[row, : self._task.obs_dim], episode.obs[t]
            if not np.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE):
                difference = float(np.abs(got - expected).max())
                self._failures[row] = (
                    f"played again, it differs by {difference:.3g} in step {t}: it came from another version of the "
                    "simulator, or its seed is not known"
                )
            self._images[row].append(image[row])


def _read(services: Services, demo_set: str, task: str) -> list[Episode]:
    try:
        return list(services.replay.read_episodes(demo_set=demo_set, task=task))
    except NotFoundError:
        return []
