"""What an evaluation is to play, and the episodes that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from newt.tasks.registry import Task
from newt.videos import Frame
from newt.wire.episodes import Episode
from services.learner.playing.actor import Acting, Mode
from services.learner.seeds import derive
from services.learner.waiting import RunFailedError

MAX_CRASHES = 3  # of one episode


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
        spares_others: A task whose simulator breaks again and again is left out; else it ends the evaluation.
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
    spares_others: bool = False

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
        left_out: Whether they were too many.
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
    left_out: bool = False
    frames: list[Frame] = field(default_factory=list)

    def restart(self, crashes: int = 1) -> None:
        """Forgets a broken attempt, in which so much crashed. Raises RunFailedError if it is one too many."""
        self.crashes += crashes
        if self.crashes > MAX_CRASHES:
            raise RunFailedError(
                f"the simulator of {self.task.name} broke {self.crashes} times in one episode; its log says why, mend "
                "it there (of a task of your own: `newt env check`) and begin again"
            )
        self.reward, self.steps, self.success = 0.0, 0, float("nan")
        self.marked.clear()
        self.frames.clear()

    def return_at(self, step: int) -> float:
        """Sum of rewards up to a marked step; of an episode that ended before, its whole return."""
        return self.marked.get(step, self.reward)
