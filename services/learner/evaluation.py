"""Evaluating an agent: some episodes per task, each from a seed of its own, without exploration.

Episode k of a task starts from the same seed in every evaluation with the same seed, so that the random, the pretrained
and the final agent of a run meet the same episodes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog

from newt.client.episodes import Episode as ReplayEpisode
from newt.client.sim import AutoReset, SimSession, Step
from newt.errors import NotFoundError, PreconditionError
from newt.runs.record import EpisodeStats
from newt.tasks.registry import Task
from services.learner import videos
from services.learner.acting import Actor, Decision, Mode, Model
from services.learner.child import RunFailedError
from services.learner.episodes import EpisodeStage
from services.learner.seeds import derive, generator
from services.learner.services import Services
from services.learner.sight import Floats, Sight

MAX_ROWS = 32  # of one session
MAX_VIDEO_TASKS = 8  # of one session: their frames are kept in memory until the episodes end
MAX_SESSIONS = 4  # at once
MAX_CRASHES = 3  # of one episode

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate.

    Attributes:
        tasks: Which tasks.
        episodes: Per task.
        mode: Who acts.
        model: The model that acts (unused by random actions).
        seed: Origin of all seeds.
        env_step: Env steps of the run, for constrained planning; None plans unconstrained.
        max_steps: Episodes end after so many steps, if not before; also the length of the plan in mode open_loop.
        marks: Shares of an episode, or of max_steps, after which to note the return so far.
        video_folder: Where to put one video per task; None for no videos.
        video_prefix: Put before the task in the names of the videos.
        on_episode: Called with the number of each episode among those of its task and the episode itself, whose id is
            TASK/SEED; from several threads. None: transitions are not kept.
    """

    tasks: Sequence[Task]
    episodes: int
    mode: Mode
    model: Model
    seed: int
    env_step: int | None = None
    max_steps: int | None = None
    marks: Sequence[float] = ()
    video_folder: Path | None = None
    video_prefix: str = ""
    on_episode: Callable[[int, ReplayEpisode], None] | None = None

    def length(self, task: Task) -> int:
        """Steps of an episode of a task."""
        return task.episode_length if self.max_steps is None else min(self.max_steps, task.episode_length)

    def episode_seed(self, task: str, index: int) -> int:
        """What episode `index` of a task starts from."""
        return derive(self.seed, task, index)

    def mark_steps(self, task: Task) -> list[int]:
        """The marks of a task, in steps."""
        return [max(1, round(share * self.length(task))) for share in self.marks]


@dataclass
class Episode:
    """One episode to be played, and what came of it.

    Attributes:
        task: What is played.
        index: Number among the task's episodes.
        seed: What it starts from.
        reward: Sum of rewards.
        marked: Sum of rewards up to each of the plan's marks, by step.
        steps: Steps played.
        success: At the last step; NaN where undefined.
        score: At the last step.
        crashes: Broken attempts.
        frames: Of its video.
    """

    task: Task
    index: int
    seed: int
    reward: float = 0.0
    marked: dict[int, float] = field(default_factory=dict)
    steps: int = 0
    success: float = float("nan")
    score: float = 0.0
    corrected_score: float = 0.0
    crashes: int = 0
    frames: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def restart(self) -> None:
        """Forgets a broken attempt."""
        self.crashes += 1
        if self.crashes > MAX_CRASHES:
            raise RunFailedError(f"the simulator of {self.task.name} broke {self.crashes} times in one episode")
        self.reward, self.steps = 0.0, 0
        self.marked.clear()
        self.frames.clear()

    def return_at(self, step: int) -> float:
        """Sum of rewards up to a marked step; of an episode that ended before, its whole return."""
        return self.marked.get(step, self.reward)


@dataclass(frozen=True)
class EvaluationOutcome:
    """What came out.

    Attributes:
        tasks: Means by task.
        weights_version: Lowest version that acted; 0 for none.
        videos: File names by task.
        episodes: Every episode, in the order of tasks and numbers; frames are gone.
    """

    tasks: dict[str, EpisodeStats]
    weights_version: int
    videos: dict[str, str]
    episodes: list[Episode]


def evaluate(
    services: Services, plan: EvaluationPlan, on_progress: Callable[[float], None] = lambda share: None
) -> EvaluationOutcome:
    """Plays all episodes, several sessions at a time.

    Args:
        services: Simulators and planner.
        plan: What to do.
        on_progress: Called with the share of steps done, from several threads.
    """
    sessions = _split(plan)
    total = sum(plan.length(episode.task) for rows in sessions for row in rows for episode in row)
    done, lock = 0, threading.Lock()

    def stepped(steps: int) -> None:
        nonlocal done
        with lock:
            done += steps
            share = done / total
        on_progress(min(1.0, share))

    with ThreadPoolExecutor(MAX_SESSIONS, thread_name_prefix="evaluate") as pool:
        played = [pool.submit(_SessionPlayer(services, plan, rows, stepped).play) for rows in sessions]
        versions = [future.result() for future in played]
    episodes = [episode for rows in sessions for row in rows for episode in row]
    by_task = {task.name: sorted((e for e in episodes if e.task == task), key=lambda e: e.index) for task in plan.tasks}
    stats = {name: _stats(played) for name, played in by_task.items()}
    videos = _write_videos(plan, episodes)
    return EvaluationOutcome(stats, min(versions), videos, [e for played in by_task.values() for e in played])


def _split(plan: EvaluationPlan) -> list[list[list[Episode]]]:
    """Sessions of rows of episodes. A session has tasks of one domain and one length, so that its rows end together."""
    groups: dict[tuple[str, int], list[Task]] = {}
    for task in plan.tasks:
        groups.setdefault((task.domain, task.episode_length), []).append(task)
    sessions = []
    for tasks in groups.values():
        size = MAX_VIDEO_TASKS if plan.video_folder else MAX_ROWS
        for low in range(0, len(tasks), size):
            part = tasks[low : low + size]
            parallel = min(plan.episodes, max(1, MAX_ROWS // len(part)))
            rows = [
                [
                    Episode(task, index, plan.episode_seed(task.name, index))
                    for index in range(first, plan.episodes, parallel)
                ]
                for task in part
                for first in range(parallel)
            ]
            sessions.append(rows)
    return sessions


class _SessionPlayer:
    """Plays the episodes of one session, row by row in parallel."""

    def __init__(
        self,
        services: Services,
        plan: EvaluationPlan,
        rows: list[list[Episode]],
        stepped: Callable[[int], None],
    ) -> None:
        self._services, self._plan, self._stepped = services, plan, stepped
        self._queues = [list(row) for row in rows]
        self._tasks = [row[0].task for row in rows]
        self._domain = self._tasks[0].domain
        self._length = plan.length(self._tasks[0])
        self._marks = set(plan.mark_steps(self._tasks[0]))
        # Random actions need no eyes, and drawing takes time.
        self._vision = services.vision if plan.mode != "random" else None
        self._sight = Sight(self._vision, len(rows))
        self._stage = EpisodeStage(self._tasks, self._sight.encoder_name) if plan.on_episode else None
        self._version = 0

    def play(self) -> int:
        """Plays all; returns the lowest version of the weights that acted."""
        while any(self._queues):
            try:
                with self._open() as session:
                    self._play(session)
            except (NotFoundError, PreconditionError) as error:
                # The simulator service was restarted: what is unfinished starts again.
                log.warning("evaluation_session_lost", domain=self._domain, error=str(error))
                for queue in self._queues:
                    if queue:
                        queue[0].restart()
        return self._version

    def _open(self) -> SimSession:
        seeds = [derive(self._plan.seed, "idle", row) for row in range(len(self._tasks))]
        return self._services.open(
            self._domain, self._tasks, seeds, auto_reset=AutoReset.DISABLED, with_frames=self._vision is not None
        )

    def _play(self, session: SimSession) -> None:
        services, plan = self._services, self._plan
        # Fresh for every session: the same plan then makes the same draws.
        random = generator(plan.seed, "evaluation", plan.mode, self._domain, self._tasks[0].name)
        actor = Actor(
            services.planner,
            services.planner_name,
            plan.model,
            self._tasks,
            random,
            services.patience,
            plan_steps=self._length if plan.mode == "open_loop" else 1,
        )
        obs, image = self._reset(session, list(range(len(self._tasks))))
        first = np.ones(len(self._tasks), np.bool_)
        while any(self._queues):
            self._draw(session)
            decision = actor.act(plan.mode, obs, first, explore=False, env_step=plan.env_step, image=image)
            if decision.weights_version:
                self._version = min(self._version or decision.weights_version, decision.weights_version)
            session.send(decision.action)
            step = services.patience.call(services.sim_name(self._domain), session.receive)
            obs, image = step.observation.obs, self._sight.look(step.observation)
            ended = self._record(step, decision, image)
            first = np.zeros(len(self._tasks), np.bool_)
            if ended and any(self._queues):
                obs, image = self._reset(session, ended)
                first[ended] = True

    def _reset(self, session: SimSession, rows: list[int]) -> tuple[Floats, Floats]:
        """Starts the next episodes of some rows; returns observations and image features of all."""
        seeds = []
        for row in rows:
            queue = self._queues[row]
            seeds.append(queue[0].seed if queue else self._plan.episode_seed(self._tasks[row].name, 0))
        name = self._services.sim_name(self._domain)
        shown = self._services.patience.call(name, lambda: session.reset(rows, seeds))
        image = self._sight.begin(rows, shown)
        if self._stage is not None:
            for row, seed in zip(rows, seeds, strict=True):
                self._stage.begin(row, shown.obs[row], seed, image[row])
        return shown.obs, image

    def _record(self, step: Step, decision: Decision, image: Floats) -> list[int]:
        """Adds a step to the running episodes; returns the rows that must be reset."""
        ended = []
        self._stepped(sum(bool(queue) for queue in self._queues))
        for row, queue in enumerate(self._queues):
            over = bool(step.terminated[row] or step.truncated[row])
            if over:
                ended.append(row)
            if not queue:
                continue
            episode = queue[0]
            if step.crashed[row]:
                episode.restart()
                continue
            episode.reward += float(step.reward[row])
            episode.steps += 1
            if self._stage is not None:
                action, reward = decision.action[row], float(step.reward[row])
                obs = step.observation.obs[row]
                self._stage.step(row, action, reward, obs, decision.behaviour, next_image=image[row])
            if episode.steps in self._marks:
                episode.marked[episode.steps] = episode.reward
            if over or episode.steps == self._length:
                if not over:
                    ended.append(row)
                episode.success, episode.score = float(step.success[row]), float(step.score[row])
                episode.corrected_score = float(step.corrected_score[row])
                self._hand_over(row, episode, terminated=bool(step.terminated[row]))
                queue.pop(0)
        return ended

    def _hand_over(self, row: int, episode: Episode, *, terminated: bool) -> None:
        if self._stage is not None and self._plan.on_episode is not None:
            episode_id = f"{episode.task.name}/{self._stage.seed(row)}"
            whole = self._stage.finish(
                row, episode_id, terminated=terminated, success=episode.success, score=episode.corrected_score
            )
            self._plan.on_episode(episode.index, whole)

    def _draw(self, session: SimSession) -> None:
        if self._plan.video_folder is None:
            return
        wanted = [
            row
            for row, queue in enumerate(self._queues)
            if queue and queue[0].index == 0 and queue[0].steps % videos.frame_stride(queue[0].task.episode_length) == 0
        ]
        if wanted:
            name = self._services.sim_name(self._domain)
            frames = self._services.patience.call(name, lambda: session.render(wanted))
            for row, frame in zip(wanted, frames, strict=True):
                self._queues[row][0].frames.append(frame)


def _stats(episodes: Sequence[Episode]) -> EpisodeStats:
    successes = [episode.success for episode in episodes if not np.isnan(episode.success)]
    return EpisodeStats(
        score=float(np.mean([episode.score for episode in episodes])),
        corrected_score=float(np.mean([episode.corrected_score for episode in episodes])),
        return_=float(np.mean([episode.reward for episode in episodes])),
        success=float(np.mean(successes)) if successes else None,
        length=float(np.mean([episode.steps for episode in episodes])),
        episodes=len(episodes),
    )


def _write_videos(plan: EvaluationPlan, episodes: Sequence[Episode]) -> dict[str, str]:
    written: dict[str, str] = {}
    if plan.video_folder is not None:
        for episode in episodes:
            if episode.frames:
                name = f"{plan.video_prefix}{episode.task.name}.mp4"
                videos.write_mp4(plan.video_folder / name, episode.frames)
                written[episode.task.name] = name
                episode.frames = []
    return written
