"""Evaluating an agent: some episodes per task, each from a seed of its own, without exploration.

Episode k of a task starts from the same seed in every evaluation with the same seed, so that the random, the pretrained
and the final agent of a run meet the same episodes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from newt.acting.stage import EpisodeStage
from newt.client.sim import AutoReset
from newt.client.sim_session import SimSession
from newt.client.steps import Step
from newt.errors import NotFoundError, PreconditionError
from newt.runs.record import EpisodeStats
from newt.tasks.pace import real_time
from newt.tasks.registry import Task
from newt.videos import Frame, frame_stride, write_mp4
from services.learner.evaluating.plan import EvaluationPlan, PlannedEpisode
from services.learner.playing.actor import Decision
from services.learner.playing.leaving import Bools, Leaving
from services.learner.playing.sight import Floats, Sight
from services.learner.seeds import derive, generator
from services.learner.waiting import RunFailedError
from services.learner.worker.connections import Services, SimsGoneError, give_up

MAX_ROWS = 32  # of one session
MAX_VIDEO_TASKS = 8  # of one session: their frames are kept in memory until the episodes end
MAX_SESSIONS = 4  # at once
GONE = 2  # crashes that simulators which do not come back stand for: each is several attempts

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EvaluationOutcome:
    """What came out.

    Attributes:
        tasks: Means by task, without those that were left out.
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

    Raises:
        RunFailedError: The simulator of a task breaks again and again; with `spares_others`, those of all.
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
    broken = {episode.task.name for episode in episodes if episode.left_out}
    tasks = [task for task in plan.tasks if task.name not in broken]
    if not tasks:
        raise RunFailedError(f"the simulators of all tasks broke again and again ({', '.join(sorted(broken))})")
    episodes = [episode for episode in episodes if episode.task.name not in broken]
    by_task = {task.name: sorted((e for e in episodes if e.task == task), key=lambda e: e.index) for task in tasks}
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
        self._leaving, self._left = Leaving(len(rows)), 0
        self._undrawn: set[int] = set()

    def play(self) -> int:
        """Plays all; returns the lowest version of the weights that acted."""
        while any(self._queues):
            try:
                with self._open() as session:
                    self._play(session)
            except (NotFoundError, PreconditionError) as error:
                # The simulator service was restarted, or its simulators died again and again: what is unfinished starts
                # again.
                log.warning("evaluation_session_lost", domain=self._domain, error=str(error))
                for row, queue in enumerate(self._queues):
                    if queue:
                        self._begin_again(row, GONE if isinstance(error, SimsGoneError) else 1)
        return self._version

    def _begin_again(self, row: int, crashes: int = 1) -> None:
        """Forgets the broken attempt of a row; leaves its task out if that is one too many and others are spared."""
        episode = self._queues[row][0]
        try:
            episode.restart(crashes)
        except RunFailedError as error:
            if not self._plan.spares_others:
                raise
            log.error("task_left_out", task=episode.task.name, error=str(error))
            episode.left_out = True
            for queue, task in zip(self._queues, self._tasks, strict=True):
                if task == episode.task:
                    queue.clear()

    def _open(self) -> SimSession:
        seeds = [derive(self._plan.seed, "idle", row) for row in range(len(self._tasks))]
        return self._services.open(
            self._domain,
            self._tasks,
            seeds,
            auto_reset=AutoReset.DISABLED,
            with_frames=self._vision is not None,
            lost=give_up,
        )

    def _play(self, session: SimSession) -> None:
        services, plan = self._services, self._plan
        # Fresh for every session: the same plan then makes the same draws. After a simulator that was left, others.
        left = [self._left] if self._left else []
        random = generator(plan.seed, "evaluation", plan.mode, self._domain, self._tasks[0].name, *left)
        plan_steps = self._length if plan.mode == "open_loop" else 1
        actor = plan.model.actor(services.planner, self._tasks, random, plan_steps)
        self._undrawn.clear()
        self._leaving = Leaving(len(self._tasks))
        obs, image = self._reset(session, list(range(len(self._tasks))))
        first = np.ones(len(self._tasks), np.bool_)
        while self._plays().any():
            self._draw(session)
            decision = actor.act(plan.mode, obs, first, explore=False, env_step=plan.env_step, image=image)
            version = int(decision.weights_version.min())
            if version:
                self._version = min(self._version or version, version)
            session.send(decision.action)
            step = session.receive(lost=give_up)
            obs, image = step.observation.obs, self._sight.look(step.observation)
            ended = self._record(step, decision, image)
            first = np.zeros(len(self._tasks), np.bool_)
            first[ended] = True
            self._leaving.saw(step.draining, first)
            if ended and self._plays().any():
                obs, image = self._reset(session, ended)
        if any(self._queues):
            self._left += 1
            log.info("simulator_left", domain=self._domain, episodes_left=sum(map(len, self._queues)))

    def _plays(self) -> Bools:
        """bool[N], the rows whose steps are those of an episode that was asked for."""
        return np.array([bool(queue) for queue in self._queues]) & self._leaving.present

    def _reset(self, session: SimSession, rows: list[int]) -> tuple[Floats, Floats]:
        """Starts the next episodes of some rows; returns observations and image features of all."""
        plays = self._plays()
        seeds = [
            self._queues[row][0].seed if plays[row] else self._plan.episode_seed(self._tasks[row].name, 0)
            for row in rows
        ]
        shown = session.reset(rows, seeds, lost=give_up)
        image = self._sight.begin(rows, shown)
        if self._stage is not None:
            for row, seed in zip(rows, seeds, strict=True):
                self._stage.begin(row, shown.obs[row], seed, image[row])
        return shown.obs, image

    def _record(self, step: Step, decision: Decision, image: Floats) -> list[int]:
        """Adds a step to the running episodes; returns the rows that must be reset."""
        ended = []
        self._services.saw(self._tasks, step)
        plays = self._plays()
        self._stepped(int(plays.sum()))
        for row, queue in enumerate(self._queues):
            over = bool(step.terminated[row] or step.truncated[row])
            if over:
                ended.append(row)
            if not plays[row] or not queue:  # the task of a row before it may just have been left out
                continue
            episode = queue[0]
            if step.crashed[row]:
                self._begin_again(row)
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
        stride = frame_stride(self._length)
        playing = [(row, self._queues[row][0]) for row in np.flatnonzero(self._plays()).tolist()]
        wanted = [row for row, episode in playing if episode.index == 0 and episode.steps % stride == 0]
        wanted = [row for row in wanted if row not in self._undrawn]
        for row, frame in self._rendered(session, wanted):
            episode = self._queues[row][0]
            episode.frames.append(Frame(frame, episode.steps, episode.reward, episode.success))

    def _rendered(self, session: SimSession, rows: list[int]) -> list[tuple[int, npt.NDArray[np.uint8]]]:
        """Pictures of rows, without those of environments that draw nothing: they have no video, which is no mishap."""
        if not rows:
            return []
        try:
            return list(zip(rows, session.render(rows), strict=True))
        except PreconditionError as error:  # a session that is lost says so again at its next step
            if len(rows) > 1:
                return [drawn for row in rows for drawn in self._rendered(session, [row])]
            log.warning("not_drawn", task=self._tasks[rows[0]].name, error=str(error))
            self._undrawn.add(rows[0])
            return []


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
