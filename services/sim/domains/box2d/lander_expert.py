"""A pilot for the lunar lander: wanted accelerations, and the engines that bring them about."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_GRAVITY = 10.0  # m/s².
_FULL_THRUST = 17.5  # m/s², of the main engine at full power, about.
_LEAST_POWER = 0.5  # Of the main engine, when it is on; a wanted power of less than
_SWITCH_POWER = 0.35  # this is better met by switching it off.

_RATE, _DAMPING = 1.5, 2.2  # Acceleration per metre from the goal, 1/s², and per m/s, 1/s.
_LARGEST_TILT = 0.6  # rad.
_TILT_GAIN, _TILT_DAMPING = 15.0, 5.0  # Side engine's action per rad of wrong angle, and per rad/s.

_LEGS = 0.6  # Metres above standing at which spread legs touch the ground.
_GLIDE = 0.7  # Metres that the craft stays higher per metre that it is off the pad's middle.
_BRAKING = 3.0  # m/s², with which a landing craft plans to slow down; it can do 7.5 when upright.
_TOUCHDOWN_SPEED = 0.5  # m/s.
_BRAKING_GAIN = 5.0  # Acceleration per m/s of wrong speed, 1/s.


@dataclass(frozen=True)
class Flight:
    """What the pilot knows of the craft.

    Attributes:
        way: Way to the goal, metres; for a landing, to standing on the pad.
        velocity: m/s.
        angle: Counter-clockwise, rad.
        spin: Its rate, rad/s.
    """

    way: tuple[float, float]
    velocity: tuple[float, float]
    angle: float
    spin: float


def hover(flight: Flight) -> npt.NDArray[np.float32]:
    """Flies to the goal and stays there; float32[2] in [-1, 1]: main engine, side engines."""
    return _steer(flight, _RATE * flight.way[1] - _DAMPING * flight.velocity[1])


def land(flight: Flight, standing: bool) -> npt.NDArray[np.float32]:
    """Falls, brakes as late as is safe, and switches off on the ground; float32[2] in [-1, 1]."""
    if standing:
        return np.array([-1, 0], np.float32)
    height = max(-flight.way[1] - _LEGS - _GLIDE * abs(flight.way[0]), 0.0)
    wanted = -_TOUCHDOWN_SPEED - math.sqrt(2 * _BRAKING * height)
    return _steer(flight, _BRAKING_GAIN * (wanted - flight.velocity[1]))


def _steer(flight: Flight, climb: float) -> npt.NDArray[np.float32]:
    """Engines for an acceleration upwards (m/s²); sideways the craft can only go by tilting."""
    sideways = _RATE * flight.way[0] - _DAMPING * flight.velocity[0]
    tilt = min(max(-sideways / _GRAVITY, -_LARGEST_TILT), _LARGEST_TILT)
    turn = _TILT_DAMPING * flight.spin - _TILT_GAIN * (tilt - flight.angle)
    power = (_GRAVITY + climb) / (_FULL_THRUST * max(math.cos(flight.angle), 0.5))
    throttle = 2 * max(power, _LEAST_POWER + 0.01) - 1 if power > _SWITCH_POWER else -1.0
    return np.clip([throttle, turn], -1.0, 1.0).astype(np.float32)
