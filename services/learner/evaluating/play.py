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
import structlog

from newt.acting.stage import EpisodeStage
from newt.client.sim import AutoReset, SimSession
from newt.client.steps import Step
from newt.errors import NotFoundError, PreconditionError
from newt.runs.record import EpisodeStats
from newt.tasks.pace import real_time
from newt.tasks.registry import Task
from newt.videos import Frame, frame_stride, write_mp4
from newt.wire.episodes import Episode
from services.learner.playing.actor import Acting, Decision, Mode
from services.learner.playing.sight import Floats, Sight
from services.learner.seeds import derive, generator
from services.learner.waiting import RunFailedError
from services.learner.worker.connections import Services

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
        mode: Way of acting.
        model: The model that acts (unused by random actions).
        seed: Origin of all seeds.
        env_step: Env steps of the run, for constrained planning; None: those of the weights.
        max_steps: Episodes end after so many steps, if not before; also the length of the plan in mode open_loop.
        marks: Shares of an episode, or of max_steps, after which to note the return so far.
        video_folder: Folder for one video per task; None for no videos.
        video_prefix: Put before the task in the names of the videos.
        on_episode: Called with the number of each episode among those of its task and the episode itself, whose id is
            TASK/SEED; from several threads. None: transitions are not kept.
    """

    tasks: Sequence[Task]
    episodes: int
    mode: Mode
    model: Acting
    seed: int
    env_step: int | None = None
    max_steps: int | None = None
    marks: Sequence[float] = ()
    video_folder: Path | None = None
    video_prefix: str = ""
    on_episode: Callable[[int, Episode], None] | None = None

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
class PlannedEpisode:
    """One episode to be played, and what came of it.

    Attributes:
        task: What is played.
        index: Number among the task's episodes.
        seed: What it starts from.
        reward: Sum of rewards.
        marked: Sum of rewards up to each of the plan's marks, by step.
        steps: Steps played.
        success: Success at the last step; NaN where undefined.
        score: Score at the last step.
        crashes: Broken attempts.
        frames: Frames of its video.
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
    frames: list[Frame] = field(default_factory=list)

    def restart(self) -> None:
        """Forgets a broken attempt."""
        self.crashes += 1
        if self.crashes > MAX_CRASHES:
            raise RunFailedError(f"the simulator of {self.task.name} broke {self.crashes} times in one episode")
        self.reward, self.steps, self.success = 0.0, 0, float("nan")
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
    episodes: list[PlannedEpisode]


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


def _split(plan: EvaluationPlan) -> list[list[list[PlannedEpisode]]]:
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
                    PlannedEpisode(task, index, plan.episode_seed(task.name, index))
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
        rows: list[list[PlannedEpisode]],
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
        plan_steps = self._length if plan.mode == "open_loop" else 1
        actor = plan.model.actor(services.planner, self._tasks, random, plan_steps)
        obs, image = self._reset(session, list(range(len(self._tasks))))
        first = np.ones(len(self._tasks), np.bool_)
        while any(self._queues):
            self._draw(session)
            decision = actor.act(plan.mode, obs, first, explore=False, env_step=plan.env_step, image=image)
            version = int(decision.weights_version.min())
            if version:
                self._version = min(self._version or version, version)
            session.send(decision.action)
            step = session.receive()
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
        shown = session.reset(rows, seeds)
        image = self._sight.begin(rows, shown)
        if self._stage is not None:
            for row, seed in zip(rows, seeds, strict=True):
                self._stage.begin(row, shown.obs[row], seed, image[row])
        return shown.obs, image

    def _record(self, step: Step, decision: Decision, image: Floats) -> list[int]:
        """Adds a step to the running episodes; returns the rows that must be reset."""
        ended = []
        self._services.saw(self._tasks, step)
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
            episode.success = float(step.success[row])
            if self._stage is not None:
                action, reward = decision.action[row], float(step.reward[row])
                obs = step.observation.obs[row]
                self._stage.step(row, action, reward, obs, int(decision.behaviour[row]), next_image=image[row])
            if episode.steps in self._marks:
                episode.marked[episode.steps] = episode.reward
            if over or episode.steps == self._length:
                if not over:
                    ended.append(row)
                episode.score = float(step.score[row])
                episode.corrected_score = float(step.corrected_score[row])
                self._hand_over(row, episode, terminated=bool(step.terminated[row]))
                queue.pop(0)
        return ended

    def _hand_over(self, row: int, episode: PlannedEpisode, *, terminated: bool) -> None:
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
            if queue and queue[0].index == 0 and queue[0].steps % frame_stride(self._length) == 0
        ]
        if wanted:
            frames = session.render(wanted)
            for row, frame in zip(wanted, frames, strict=True):
                episode = self._queues[row][0]
                episode.frames.append(Frame(frame, episode.steps, episode.reward, episode.success))


def _stats(episodes: Sequence[PlannedEpisode]) -> EpisodeStats:
    successes = [episode.success for episode in episodes if not np.isnan(episode.success)]
    corrected = [episode.corrected_score for episode in episodes]
    return EpisodeStats(
        score=float(np.mean([episode.score for episode in episodes])),
        corrected_score=float(np.mean(corrected)),
        score_std=float(np.std(corrected, ddof=1)) if len(corrected) > 1 else None,
        return_=float(np.mean([episode.reward for episode in episodes])),
        success=float(np.mean(successes)) if successes else None,
        length=float(np.mean([episode.steps for episode in episodes])),
        episodes=len(episodes),
    )


def _write_videos(plan: EvaluationPlan, episodes: Sequence[PlannedEpisode]) -> dict[str, str]:
    written: dict[str, str] = {}
    if plan.video_folder is not None:
        for episode in episodes:
            if episode.frames:
                name = f"{plan.video_prefix}{episode.task.name}.mp4"
                length = plan.length(episode.task)
                end = Frame(episode.frames[-1].picture, episode.steps, episode.reward, episode.success)
                pace = real_time([episode.task])
                write_mp4(plan.video_folder / name, episode.task.name, [*episode.frames, end], length, pace)
                written[episode.task.name] = name
                episode.frames = []
    return written
