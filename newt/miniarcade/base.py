"""The base class of all games."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

SIZE = 224
"""Height and width of every picture, pixels; games reckon in the same pixels, x to the right and y downward."""

Keys = Mapping[str, Sequence[float]]

SIDEWAYS: Keys = {"left": (-1,), "right": (1,)}
ALL_WAYS: Keys = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


class Outcome(NamedTuple):
    """What one step brought.

    Attributes:
        obs: float32[O].
        reward: Reward of this step.
        truncated: The episode's last step was taken. No game ends earlier.
        success: 1 or 0 after this step, NaN where the game knows no success.
        score: Score in [0, 1] of the episode so far.
    """

    obs: npt.NDArray[np.float32]
    reward: float
    truncated: bool
    success: float
    score: float


class Game(ABC):
    """A game of fixed length, one action per frame.

    A game has five parts: `start`, `advance`, `observe`, `score` and `draw`. The base class counts steps, sums
    rewards and owns the random generator. An episode depends on its seed and actions only: pictures are functions of
    the state and of `decoration`, and drawing them changes nothing.

        game = make_game("pygame-highway")
        obs = game.reset(seed=0)
        outcome = game.step(game.expert_action())
        frame = game.render()  # uint8[224, 224, 3]; needs pygame

    Attributes:
        OBS_DIM: O, entries of an observation.
        ACTION_DIM: A, entries of an action, each in [-1, 1].
        LENGTH: Steps of an episode.
        FPS: Steps per second when a person plays.
        KEYS: Key name to the action it stands for; actions of keys held together add up.
        IDLE: The action while no key is held.
        has_expert: Whether there is a scripted player.
        seed: Seed of the current episode.
        steps: Taken in it.
        total: Its return so far.
        rng: Draws everything that influences states. Pictures must not use it.
    """

    OBS_DIM: ClassVar[int]
    ACTION_DIM: ClassVar[int]
    LENGTH: ClassVar[int] = 500
    FPS: ClassVar[int] = 30
    KEYS: ClassVar[Keys]
    IDLE: ClassVar[Sequence[float]] = ()
    has_expert: ClassVar[bool] = True

    def __init__(self) -> None:
        self.seed = 0
        self.steps = self.LENGTH  # Nothing to play before the first reset.
        self.total = 0.0
        self.rng = np.random.default_rng(0)
        self._canvas: Canvas | None = None

    @abstractmethod
    def start(self) -> None:
        """Sets up a new episode, drawing from `rng`."""

    @abstractmethod
    def advance(self, action: list[float]) -> float:
        """Plays one step; returns its reward.

        Args:
            action: A numbers in [-1, 1].
        """

    @abstractmethod
    def observe(self) -> list[float]:
        """The O numbers that a player is told."""

    @abstractmethod
    def score(self) -> float:
        """The score of `total`, before it is limited to [0, 1]."""

    @abstractmethod
    def draw(self, canvas: Canvas) -> None:
        """Paints the current state over whatever is on the canvas. Must change nothing else."""

    def success(self) -> float:
        """1 or 0 if the game knows success; NaN by default."""
        return math.nan

    def expert(self) -> list[float]:
        """The scripted player's action for the current state; limited to [-1, 1] by the caller."""
        raise NotImplementedError(f"{type(self).__name__} has no scripted player")

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Starts the episode of this seed.

        Args:
            seed: 0..2**64-1.

        Returns:
            float32[O], the first observation.
        """
        self.seed, self.steps, self.total = seed, 0, 0.0
        self.rng = np.random.default_rng(seed)
        self.start()
        return np.array(self.observe(), np.float32)

    def step(self, action: Sequence[float] | npt.NDArray[np.floating]) -> Outcome:
        """Plays one step.

        Args:
            action: float[A]; entries beyond [-1, 1] are limited to it.

        Raises:
            ValueError: Not A finite numbers.
            RuntimeError: The episode is over, or was never started.
        """
        if self.steps >= self.LENGTH:
            raise RuntimeError(f"no episode is running: call reset first (episodes have {self.LENGTH} steps)")
        values = [float(value) for value in action]
        if len(values) != self.ACTION_DIM or not all(map(math.isfinite, values)):
            raise ValueError(f"got action {values}, expected {self.ACTION_DIM} finite numbers in [-1, 1]")
        reward = self.advance([clip(value, -1.0, 1.0) for value in values])
        self.steps += 1
        self.total += reward
        return Outcome(
            np.array(self.observe(), np.float32),
            reward,
            self.steps >= self.LENGTH,
            self.success(),
            clip(self.score(), 0.0, 1.0),
        )

    def expert_action(self) -> npt.NDArray[np.float32]:
        """The scripted player's action for the current state, float32[A] in [-1, 1].

        Raises:
            NotImplementedError: The game has none.
        """
        return np.clip(np.array(self.expert(), np.float32), -1, 1)

    def render(self) -> npt.NDArray[np.uint8]:
        """Draws the current state, uint8[224, 224, 3]; changes nothing.

        Raises:
            ImportError: pygame is not installed.
        """
        return self.canvas().pixels()

    def canvas(self) -> Canvas:
        """The current state, drawn on the game's own canvas. The next drawing overwrites it."""
        from newt.miniarcade.canvas import Canvas  # Here, because playing from states needs no pygame.

        if self._canvas is None:
            self._canvas = Canvas(SIZE)
        self.draw(self._canvas)
        return self._canvas

    def decoration(self, *key: int) -> np.random.Generator:
        """A generator for what is only seen, the same whenever it is asked for with the same key in an episode.

        Args:
            key: Positive numbers that tell decorations of an episode apart.
        """
        return np.random.default_rng((self.seed, *key))

    def coin(self) -> int:
        """-1 or 1, equally likely."""
        return 1 if self.rng.random() < 0.5 else -1


def clip(value: float, low: float, high: float) -> float:
    """The nearest number in [low, high]."""
    return low if value < low else high if value > high else value


def overlap(a: tuple[float, float, int, int], b: tuple[float, float, int, int]) -> bool:
    """Whether two boxes (left, top, width, height) share area. Their corners are truncated to whole pixels."""
    ax, ay, bx, by = int(a[0]), int(a[1]), int(b[0]), int(b[1])
    return ax < bx + b[2] and bx < ax + a[2] and ay < by + b[3] and by < ay + a[3]


def mixed(a: Sequence[int], b: Sequence[int], share: float) -> tuple[int, int, int]:
    """A colour between two: `share` 0 is a, 1 is b."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue
