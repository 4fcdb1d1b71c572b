"""Atari: 27 games of the Arcade Learning Environment, observed through their memory, played with an analogue stick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ale_py import ALEInterface, LoggerMode
from ale_py.env import AtariEnv as Console

from newt.tasks.registry import get_task
from services.sim.domains.base import FRAME_SIZE, SimEnv, StepResult

_MAX_FRAMES = 108_000  # The limit of the library's v5 environments. No episode of 1000 steps reaches it.
_SCREEN_HEIGHT, _SCREEN_WIDTH = 210, 160
_TOP, _LEFT = (FRAME_SIZE - _SCREEN_HEIGHT) // 2, (FRAME_SIZE - _SCREEN_WIDTH) // 2


@dataclass(frozen=True)
class _Game:
    """A cartridge, and the returns that count as nothing and as everything.

    Attributes:
        rom: The library's name of it.
        low: Return of score 0.
        high: Return of score 1.
    """

    rom: str
    low: float
    high: float


_GAMES = {
    "atari-alien": _Game("alien", 0, 1000),
    "atari-assault": _Game("assault", 0, 1000),
    "atari-asterix": _Game("asterix", 0, 5000),
    "atari-atlantis": _Game("atlantis", 0, 50000),
    "atari-bank-heist": _Game("bank_heist", 0, 1000),
    "atari-battle-zone": _Game("battle_zone", 0, 15000),
    "atari-beamrider": _Game("beam_rider", 0, 2000),
    "atari-boxing": _Game("boxing", -100, 100),
    "atari-chopper-command": _Game("chopper_command", 0, 1000),
    "atari-crazy-climber": _Game("crazy_climber", 0, 20000),
    "atari-double-dunk": _Game("double_dunk", 0, 25),
    "atari-gopher": _Game("gopher", 0, 2000),
    "atari-ice-hockey": _Game("ice_hockey", -15, 15),
    "atari-jamesbond": _Game("jamesbond", 0, 1000),
    "atari-kangaroo": _Game("kangaroo", 0, 10000),
    "atari-krull": _Game("krull", 0, 10000),
    "atari-ms-pacman": _Game("ms_pacman", 0, 5000),
    "atari-name-this-game": _Game("name_this_game", 0, 3000),
    "atari-phoenix": _Game("phoenix", 0, 1000),
    "atari-pong": _Game("pong", -21, 21),
    "atari-road-runner": _Game("road_runner", 0, 50000),
    "atari-robotank": _Game("robotank", 0, 50),
    "atari-seaquest": _Game("seaquest", 0, 5000),
    "atari-space-invaders": _Game("space_invaders", 0, 2000),
    "atari-tutankham": _Game("tutankham", 0, 100),
    "atari-upndown": _Game("up_n_down", 0, 5000),
    "atari-yars-revenge": _Game("yars_revenge", 0, 20000),
}


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance. Frames need no driver: the console draws its own picture."""
    ALEInterface.setLoggerMode(LoggerMode.Error)  # Before the first console, which would greet.
    return AtariEnv(task)


class AtariEnv(SimEnv):
    """A game of 1000 agent steps of four frames each, score = return between the game's two anchors.

    The action is (deflection, angle, fire), each over its whole range as it goes from -1 to 1: deflection 0..1, angle
    -pi..pi (0 is right, pi/2 up), fire when positive. The stick counts as moved along an axis beyond a deflection of
    0.5 along it, so the zero action does nothing. Paddle games also use the amount of deflection.

    Nothing in a game is random, and every episode starts the same: the seed has no effect. A game that is over stays
    as it is, without rewards, until the steps are used up.
    """

    def __init__(self, task: str) -> None:
        facts = get_task(task)
        self._game, self._length = _GAMES[task], facts.episode_length
        self._env: Any = Console(
            game=self._game.rom,
            obs_type="ram",
            frameskip=facts.action_repeat,
            repeat_action_probability=0.0,
            continuous=True,
            continuous_action_threshold=0.5,
            max_num_frames_per_episode=_MAX_FRAMES,
            render_mode="rgb_array",
        )
        self._env.reset()
        # Some games (assault, beamrider, ice-hockey, yars-revenge) otherwise remember the episode before.
        self._start = self._env.clone_state(include_rng=True)
        self._action_low = self._env.action_space.low
        self._action_range = self._env.action_space.high - self._env.action_space.low
        self._steps = 0
        self._return = 0.0

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Switches the console off and on; the seed is not used."""
        self._env.reset()  # A restored state alone would leave the old picture on the screen.
        self._env.restore_state(self._start)
        self._steps, self._return = 0, 0.0
        return _as_observation(self._env.ale.getRAM())

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Holds the stick for four frames; the reward is the change of the game's own points."""
        stick = (self._action_low + (action + 1) / 2 * self._action_range).astype(np.float32)
        memory, reward, _, _, _ = self._env.step(stick)
        self._steps += 1
        self._return += reward
        low, high = self._game.low, self._game.high
        return StepResult(
            obs=_as_observation(memory),
            reward=float(reward),
            terminated=False,
            truncated=self._steps >= self._length,
            success=math.nan,
            score=min(max((self._return - low) / (high - low), 0.0), 1.0),
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The console's 210 x 160 picture, not scaled, in the middle of a black frame."""
        frame = np.zeros((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        frame[_TOP : _TOP + _SCREEN_HEIGHT, _LEFT : _LEFT + _SCREEN_WIDTH] = self._env.render()
        return frame


def _as_observation(memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return memory.astype(np.float32) / np.float32(255)
