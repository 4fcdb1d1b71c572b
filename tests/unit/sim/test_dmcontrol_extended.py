"""The extended DMControl tasks: what each pays for, worked out by hand, how episodes start, frames, whole episodes.

Recorded trajectories, dimensions and reproducibility are checked with those of all domains in test_domain_envs.py.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sim_building import build

from newt.tasks.registry import all_tasks, get_task
from services.sim.domains.dmcontrol_extended import cup

TASKS = [task.name for task in all_tasks() if task.domain == "dmcontrol-ext"]
OWN_BODIES = ["reacher-three-easy", "jumper-jump", "spinner-spin", "spinner-spin-four", "giraffe-run"]
UP = 2.0  # Metres; lifts a whole body above every height that a reward asks for.


def physics_of(task: str) -> Any:
    env: Any = build(task)
    return env._env.physics


def reward_of(task: str, qvel: dict[str, float] | None = None, **qpos: float) -> float:
    """What a single control step pays which ends in this state; joints that are not named are at 0."""
    env: Any = build(task)
    physics = env._env.physics
    with physics.reset_context():
        for joint, value in qpos.items():
            physics.named.data.qpos[joint] = value
        for joint, value in (qvel or {}).items():
            physics.named.data.qvel[joint] = value
    reward: float = env._env.task.get_reward(physics)
    env.close()
    return reward


@pytest.mark.parametrize(
    ("task", "speed", "expected"),
    [
        ("walker-walk-backward", -1.0, 1.0),
        ("walker-walk-backward", -0.5, (5 * 0.5 + 1) / 6),
        ("walker-walk-backward", 1.0, 1 / 6),  # The ramp goes on to 0 beyond its margin.
        ("walker-run-backward", -8.0, 1.0),
        ("walker-run-backward", -2.0, (5 * 0.25 + 1) / 6),
        ("walker-walk-incline", 1.0, 1.0),
        ("walker-run-incline", 4.0, (5 * 0.5 + 1) / 6),
        ("cheetah-run-backward", -8.0, 1.0),
        ("cheetah-run-backward", -2.0, 0.25),
        ("cheetah-run-front", 6.0, 1.0),
        ("cheetah-run-front", 3.0, (5 * 0.5 + 1) / 6),
        ("cheetah-run-back", 6.0, 1.0),
        ("cheetah-run-back", -6.0, 1 / 6),
        ("cheetah-jump", 0.5, 1.0),
        ("cheetah-jump", -0.75, (5 + 0.5) / 6),
        ("cheetah-jump", 1.0, 5 / 6),
        ("giraffe-run", 10.0, 1.0),
        ("giraffe-run", 5.0, (3 * 0.5 + 1) / 4),
        ("hopper-hop-backward", -1.0, 1.0),
        ("hopper-hop-backward", -0.5, 0.5),
        ("hopper-hop-backward", 1.0, 0.0),
    ],
)
def test_speed(task: str, speed: float, expected: float) -> None:
    assert reward_of(task, {"rootx": speed}, rootz=UP) == pytest.approx(expected)


def test_a_hopper_on_its_side_is_paid_nothing() -> None:
    assert reward_of("hopper-hop-backward", {"rootx": -5.0}, rootz=UP, rooty=math.pi / 2) == 0.0


@pytest.mark.parametrize(("task", "nose_up"), [("cheetah-run-front", 0.6), ("cheetah-run-back", -0.6)])
def test_the_leg_that_must_be_in_the_air(task: str, nose_up: float) -> None:
    # Pitching about +y lowers the nose, and with it the front foot.
    wrong, right = (reward_of(task, {"rootx": 6.0}, rooty=pitch, rootz=0.4) for pitch in (-nose_up, nose_up))
    assert right > wrong + 0.1


def test_lying_walkers() -> None:
    lying = {"rootz": 0.07 - 1.3, "rooty": -math.pi / 2}  # On the back, straight.
    # Half of an upside-down torso's share: the torso is level.
    assert reward_of("walker-lie-down", **lying) == pytest.approx((3 + 1 + 0.5) / 5)
    # Bent at the hips by a right angle, the ankles are 0.95 m above the hips and the feet's own frames too.
    hips = {"right_hip": math.pi / 2, "left_hip": math.pi / 2}
    feet = 0.1 ** (((1.1 - 0.07 - 0.95) / 0.55) ** 2)
    assert reward_of("walker-legs-up", **lying, **hips) == pytest.approx((3 + 2 * feet + 1 + 0.5) / 7)
    assert reward_of("walker-headstand", **lying, **hips) == pytest.approx(
        (3 * feet + 2 * 0.1 ** ((0.93 / 0.5) ** 2)) / 5
    )


def test_upside_down_walkers() -> None:
    standing = {"rootz": 0.37 - 1.3, "rooty": math.pi}  # On the head: hips at 0.67 m, feet above 1.1 m.
    hips = 0.1 ** ((0.33 / 0.5) ** 2)
    assert reward_of("walker-headstand", **standing) == pytest.approx((3 + 2 * hips) / 5)
    torso, left_foot = 0.1 ** ((0.63 / 0.5) ** 2), 0.1 ** (((0.67 + 0.95 - 0.08) / 0.5) ** 2)
    assert reward_of("walker-arabesque", **standing) == pytest.approx((3 * torso + left_foot + 1 + 1) / 6)
    # Upright on straight legs: nothing for the right foot's height nor for the head's.
    right_foot = 0.1 ** (((1.0 - 0.05) / 0.5) ** 2)
    assert reward_of("walker-arabesque") == pytest.approx((3 + 1 + right_foot) / 6)


def test_the_slope_rises_by_eight_degrees() -> None:
    physics = physics_of("walker-stand-incline")
    normal = physics.named.data.geom_xmat["floor"].reshape(3, 3)[:, 2]
    assert math.degrees(math.atan2(-normal[0], normal[2])) == pytest.approx(7.953, abs=1e-3)
    assert reward_of("walker-stand-incline", rootz=0.0) == 1.0


@pytest.mark.parametrize("task", ["jumper-jump", "spinner-jump", "spinner-jump-four"])
def test_jumps_are_paid_by_height(task: str) -> None:
    for torso, expected in ((1.5, 1.0), (3.0, 1.0), (0.75, 0.1), (0.532, 0.1 ** ((0.968 / 0.75) ** 2))):
        assert reward_of(task, rootz=torso - 0.9) == pytest.approx(expected)


@pytest.mark.parametrize("suffix", ["", "-four"])
def test_spinners_roll_forward_or_backward(suffix: str) -> None:
    for sign, paid, unpaid in (
        (1, "spinner-spin", "spinner-spin-backward"),
        (-1, "spinner-spin-backward", "spinner-spin"),
    ):
        rolling = {"rootx": 8.5 * sign, "rooty": 60.0 * sign}
        assert reward_of(paid + suffix, rolling, rootz=UP) > 0.95
        assert reward_of(unpaid + suffix, rolling, rootz=UP) == 0.0


def test_turning_on_the_spot_is_worth_two_fifths() -> None:
    # The eyes put the centre of mass a little above the axis, which therefore adds a little speed.
    assert reward_of("spinner-spin", {"rooty": 60.0}, rootz=UP) == pytest.approx(0.4, abs=0.01)
    assert reward_of("spinner-spin-backward", {"rooty": -60.0}, rootz=UP) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(("speed", "expected"), [(9.0, 1.0), (-9.0, 1.0), (4.5, 0.5), (-2.25, 0.25), (0.0, 0.0)])
def test_pendulum_spins_either_way(speed: float, expected: float) -> None:
    assert reward_of("pendulum-spin", {"hinge": speed}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ball", "velocity", "expected"),
    [
        ((0.0, 0.35), (6.0, 0.0), 0.0),  # In the cup, whose inside is at 0.55 m.
        ((0.25, 0.35), (0.0, 6.0), (0.5 + 2) / 3),
        ((0.25, 0.35), (0.0, 0.0), 0.5 / 3),
        ((0.0, 0.05), (1.8, 2.4), (0.6 + 2 * 0.5) / 3),
    ],
)
def test_cup_spin(ball: tuple[float, float], velocity: tuple[float, float], expected: float) -> None:
    paid = reward_of(
        "cup-spin",
        {"ball_x": velocity[0], "ball_z": velocity[1]},
        ball_x=ball[0],
        ball_z=ball[1],
    )
    assert paid == pytest.approx(expected)


def test_the_string_of_cup_spin_keeps_the_score_below_one() -> None:
    # The lowest point that the string allows is 8 mm below where the ball starts.
    paid = reward_of("cup-spin", {"ball_x": 60.0}, ball_z=-0.008)
    assert paid == pytest.approx(cup.BEST_SCORES["cup-spin"], abs=1e-3)
    env = build("cup-spin")
    env.reset(3)
    for angle in np.linspace(0, 40, 100):  # The cup is moved in circles.
        result = env.step(np.array([np.cos(angle), np.sin(angle)], np.float32))
    assert env.corrected_score == pytest.approx(result.score / 0.905)
    assert result.score > 0.01
    env.close()


def test_nine_in_ten_episodes_of_cup_spin_start_in_the_cup() -> None:
    env: Any = build("cup-spin")
    starts = 200
    inside = 0
    for seed in range(starts):
        env.reset(seed)
        assert env._env.physics.data.ncon == 0
        inside += int(env._env.physics.in_target())
    # Nine in ten, plus the few of the tenth which fall into the cup by chance; 0.06 is three standard deviations.
    assert inside / starts == pytest.approx(0.91, abs=0.06)


@pytest.mark.parametrize(
    ("task", "poles", "length", "mass"),
    [("cartpole-balance-long-sparse", 1, 1.5, 0.2), ("cartpole-balance-two-poles-sparse", 2, 1.0, 0.1)],
)
def test_cartpoles(task: str, poles: int, length: float, mass: float) -> None:
    physics = physics_of(task)
    for number in range(1, poles + 1):
        assert physics.named.model.geom_size[f"pole_{number}", 1] == pytest.approx(length / 2)
        assert physics.named.model.body_mass[f"pole_{number}"] == pytest.approx(mass)
    assert reward_of(task) == 1.0
    assert reward_of(task, slider=0.26) == 0.0
    assert reward_of(task, hinge_1=0.11) == 0.0  # cos 0.11 < 0.995
    if poles == 2:
        assert reward_of(task, hinge_2=0.11) == 0.0
        assert reward_of(task, hinge_1=0.05, hinge_2=0.06) == 0.0  # Tilts count from the vertical.
        assert reward_of(task, hinge_1=0.09, hinge_2=-0.09) == 1.0


@pytest.mark.parametrize(("task", "radius"), [("reacher-three-easy", 0.05), ("reacher-three-hard", 0.015)])
def test_reachers(task: str, radius: float) -> None:
    env: Any = build(task)
    physics, targets = env._env.physics, []
    for seed in range(20):
        env.reset(seed)
        targets.append(physics.named.model.geom_pos["target", :2].copy())
    distances = np.linalg.norm(targets, axis=1)
    assert 0.05 <= distances.min() < 0.1 < 0.15 < distances.max() <= 0.2
    with physics.reset_context():  # The arm lies straight along x, the finger 0.27 m out.
        np.testing.assert_allclose(physics.named.data.qpos[:], 0)
    for gap, paid in ((radius + 0.009, 1.0), (radius + 0.011, 0.0)):
        physics.named.model.geom_pos["target", :2] = 0.27, gap
        physics.forward()
        np.testing.assert_allclose(env._env.task.get_observation(physics)["to_target"], [0, gap], atol=1e-12)
        assert env._env.task.get_reward(physics) == paid


@pytest.mark.parametrize(
    ("task", "masses"),
    [
        ("jumper-jump", [1.506, 0.247, 0.247]),
        ("spinner-jump", [1.09887] + [0.18023] * 5),
        ("spinner-jump-four", [1.2077] + [0.19808] * 4),
        ("giraffe-run", [8.260, 2.792, 0.611, 0.904, 0.930, 0.513, 0.842, 0.703, 0.446]),
        ("reacher-three-hard", [0.0325, 0.0325, 0.0356, 0.0042]),
    ],
)
def test_masses(task: str, masses: Sequence[float]) -> None:
    physics = physics_of(task)
    np.testing.assert_allclose(physics.model.body_mass[1:], masses, rtol=5e-3)


@pytest.mark.parametrize(
    ("task", "lowest", "highest", "score"),
    [
        ("jumper-jump", 0.525, 0.54, 0.0216),
        ("spinner-jump", 0.525, 0.54, 0.0216),
        ("spinner-jump-four", 0.525, 0.54, 0.0216),
        ("giraffe-run", 0.515, 0.545, 0.25),  # A quarter for a head held up.
    ],
)
def test_bodies_start_at_rest_and_stay_there(task: str, lowest: float, highest: float, score: float) -> None:
    env: Any = build(task)
    for seed in range(4):
        env.reset(seed)
        assert lowest < env._env.physics.named.data.xpos["torso", "z"] < highest
    still = np.zeros(get_task(task).action_dim, np.float32)
    for _ in range(500):
        result = env.step(still)
    assert result.score == pytest.approx(score, abs=2e-3)


def test_the_giraffe_moves_its_neck_last_and_observes_it_first() -> None:
    env: Any = build("giraffe-run")
    before = env.reset(0)
    action = np.zeros(7, np.float32)
    undisturbed = env.step(action).obs
    env.reset(0)
    action[6] = 1.0
    change = np.abs(env.step(action).obs - undisturbed)
    assert before.shape == (19,)
    assert change[2:9].argmax() == 0


@pytest.mark.usefixtures("graphics")
@pytest.mark.parametrize("task", OWN_BODIES)
def test_the_body_is_in_the_middle_of_the_frame(task: str) -> None:
    env = build(task, rendering=True)
    env.reset(3)
    # Bodies are tan: the floor and the sky are blue. Two quarter-frames around the middle see most of it.
    red, _, blue = np.moveaxis(env.render().astype(int), 2, 0)
    tan = red > blue + 40
    assert 0.003 < tan.mean() < 0.3
    assert tan[28:196, 28:196].sum() > 0.7 * tan.sum()
    assert not tan[:4].any()
    assert not tan[-4:].any()


@pytest.mark.parametrize("task", TASKS)
def test_a_random_policy_plays_a_whole_episode_the_same_way_twice(task: str) -> None:
    facts, env = get_task(task), build(task)
    assert 1 / (env._env.control_timestep() * facts.action_repeat) == pytest.approx(facts.steps_per_s)
    actions = np.random.default_rng(1).uniform(-1, 1, (facts.episode_length, facts.action_dim)).astype(np.float32)
    finals = []
    for _ in range(2):
        env.reset(9)
        rewards = []
        for number, action in enumerate(actions, start=1):
            result = env.step(action)
            rewards.append(result.reward)
            assert result.truncated == (number == facts.episode_length)
        assert 0.0 <= min(rewards) <= max(rewards) <= 2.0
        assert result.score == pytest.approx(sum(rewards) / 1000)
        finals.append([*result.obs.tolist(), result.score])
    assert finals[0] == finals[1]
