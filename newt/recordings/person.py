"""A person at a keyboard or a gamepad, in a window that shows the task. Needs pygame and a display."""

from __future__ import annotations

import numpy as np

from newt.client.single_env import RemoteEnv
from newt.miniarcade import GAMES, make_game
from newt.miniarcade.play import NAMES, key_action, open_window, pygame, show_picture
from newt.recordings.playing import Again, Stop
from newt.wire.episodes import Floats

_DEAD_ZONE = 0.1  # A stick at rest is not quite at 0.
_FRAME = 224


class Person:
    """Chooses actions by what is held: a gamepad's axes, where one is moved, else keys.

    In games of MiniArcade keys mean what they mean there. In all others, left and right are the first column, down and
    up the second, space the third; a gamepad's axes are the columns in their order, up being positive. R throws the
    episode away and begins the next, Escape ends.

    Args:
        task: Name of the task.
        columns: A, of its actions.
        fps: Steps per second.
        scale: Window pixels per pixel of the task's picture.

    Raises:
        PreconditionError: There is no display.
    """

    def __init__(self, task: str, columns: int, fps: float, scale: int = 3) -> None:
        self._task, self._columns, self._fps = task, columns, fps
        self._game = make_game(task) if task in GAMES else None
        self._window = open_window(_FRAME * scale)
        self._clock = pygame.time.Clock()
        self._held: set[str] = set()
        self._episode, self._steps = 0, 0
        pygame.joystick.init()
        self._pads = [pygame.joystick.Joystick(number) for number in range(pygame.joystick.get_count())]

    def begin(self) -> None:
        """Another episode; what is held stays held."""
        self._episode, self._steps = self._episode + 1, 0

    def act(self, env: RemoteEnv, obs: Floats) -> Floats:
        """Shows the task as it is, waits for the next step's time, and reads keys and sticks."""
        caption = f"{self._task}: episode {self._episode}, step {self._steps}; R again, Escape ends"
        show_picture(self._window, env.render(), caption)
        self._clock.tick(self._fps)
        self._steps += 1
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                raise Stop
            if event.type == pygame.KEYDOWN and event.key == pygame.K_r:
                raise Again
            if event.type == pygame.KEYDOWN and event.key in NAMES:
                self._held.add(NAMES[event.key])
            if event.type == pygame.KEYUP:
                self._held.discard(NAMES.get(event.key, ""))
        sticks = self._sticks()
        return sticks if sticks.any() else self._keys()

    def close(self) -> None:
        """Closes the window."""
        pygame.joystick.quit()
        pygame.display.quit()

    def _keys(self) -> Floats:
        if self._game is not None:
            return np.array(key_action(self._game, self._held), np.float32)
        action = np.zeros(max(self._columns, 3), np.float32)
        for key, column, value in (("left", 0, -1), ("right", 0, 1), ("down", 1, -1), ("up", 1, 1), ("space", 2, 1)):
            action[column] += value * (key in self._held)
        return action[: self._columns]

    def _sticks(self) -> Floats:
        action = np.zeros(self._columns, np.float32)
        for pad in self._pads[:1]:
            for axis in range(min(self._columns, pad.get_numaxes())):
                value = pad.get_axis(axis) * (-1 if axis % 2 else 1)  # pygame counts downwards
                action[axis] = 0.0 if abs(value) < _DEAD_ZONE else max(-1.0, min(1.0, value))
        return action
