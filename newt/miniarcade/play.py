"""A window in which a person plays. Needs pygame and a display."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from newt.errors import PreconditionError
from newt.miniarcade import make_game
from newt.miniarcade.base import SIZE, Game, clip

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
try:
    import pygame as pygame  # for newt.recordings.person as well
except ImportError as error:
    raise PreconditionError(f"playing needs pygame ({error}): install newt[sim-miniarcade]") from error

NAMES = {
    pygame.K_LEFT: "left",
    pygame.K_RIGHT: "right",
    pygame.K_UP: "up",
    pygame.K_DOWN: "down",
    pygame.K_SPACE: "space",
}
"""What keys are called, by pygame's numbers."""
_UNSEEN = ("offscreen", "dummy", "evdev")


def key_action(game: Game, held: Collection[str]) -> list[float]:
    """The action of the keys held together: A numbers in [-1, 1].

    Args:
        game: Its `KEYS` and `IDLE` say what a key means.
        held: Names of keys; those without a meaning are ignored.
    """
    action = list(game.IDLE) or [0.0] * game.ACTION_DIM
    for key in held:
        if key in game.KEYS:
            action = [total + part for total, part in zip(action, game.KEYS[key], strict=True)]
    return [clip(value, -1.0, 1.0) for value in action]


def play(name: str, seed: int = 0, scale: int = 3, expert: bool = False, episodes: int | None = None) -> list[float]:
    """Opens a window and plays until it is closed.

    Arrow keys and space play, R starts the next episode, P pauses, Escape leaves.

    Args:
        name: Name of the game.
        seed: Seed of the first episode; every further one is one more.
        scale: Window pixels per game pixel.
        expert: Let the scripted player play.
        episodes: Leave after so many; None never does.

    Returns:
        Scores of the episodes that were played to the end.

    Raises:
        PreconditionError: There is no display.
        ValueError: No game of this name.
    """
    game = make_game(name)
    window = open_window(SIZE * scale)
    try:
        return _Session(game, name, window, seed, expert).run(episodes)
    finally:
        pygame.display.quit()


def open_window(size: int) -> pygame.Surface:
    """A square window of so many pixels. Raises PreconditionError where there is no display."""
    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        # Where it finds no display, SDL goes on with a driver that shows nothing to anybody.
        if driver in _UNSEEN and os.environ.get("SDL_VIDEODRIVER") != driver:
            pygame.display.quit()
            raise pygame.error("no display found")
        return pygame.display.set_mode((size, size))
    except pygame.error as error:
        raise PreconditionError(
            f"cannot open a window ({error}): run this where there is a display, or with X forwarded (ssh -X)"
        ) from error


def show_picture(window: pygame.Surface, picture: npt.NDArray[np.uint8], caption: str) -> None:
    """Shows uint8[height, width, 3] in the whole window."""
    pygame.transform.scale(pygame.surfarray.make_surface(picture.swapaxes(0, 1)), window.get_size(), window)
    pygame.display.set_caption(caption)
    pygame.display.flip()


class _Session:
    """The window's loop."""

    def __init__(self, game: Game, name: str, window: pygame.Surface, seed: int, expert: bool) -> None:
        self.game, self.name, self.window, self.seed, self.expert = game, name, window, seed, expert
        self.scores: list[float] = []
        self.paused = False
        self.held: set[str] = set()

    def run(self, episodes: int | None) -> list[float]:
        """Until the window is closed, or so many episodes are over."""
        clock = pygame.time.Clock()
        self.game.reset(self.seed)
        score = 0.0
        while self._handle_events():
            if not self.paused:
                action = self.game.expert_action().tolist() if self.expert else key_action(self.game, self.held)
                outcome = self.game.step(action)
                score = outcome.score
                if outcome.truncated:
                    self.scores.append(score)
                    if episodes is not None and len(self.scores) >= episodes:
                        break
                    self._restart()
            self._show(score)
            clock.tick(self.game.FPS)
        return self.scores

    def _restart(self) -> None:
        self.seed += 1
        self.game.reset(self.seed)

    def _handle_events(self) -> bool:
        """Whether to go on."""
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                return False
            if event.type == pygame.KEYUP:
                self.held.discard(NAMES.get(event.key, ""))
            if event.type == pygame.KEYDOWN:
                if event.key == pygame.K_ESCAPE:
                    return False
                if event.key == pygame.K_p:
                    self.paused = not self.paused
                elif event.key == pygame.K_r:
                    self._restart()
                elif event.key in NAMES:
                    self.held.add(NAMES[event.key])
        return True

    def _show(self, score: float) -> None:
        pygame.transform.scale(self.game.canvas().surface, self.window.get_size(), self.window)
        state = "paused" if self.paused else f"{self.game.LENGTH - self.game.steps} steps left"
        last = f", last episode {self.scores[-1]:.2f}" if self.scores else ""
        pygame.display.set_caption(f"{self.name}: score {score:.2f}, {state}{last}")
        pygame.display.flip()
