"""ManiSkill's tasks: what those of our own pay for, scores, contacts, missing drivers and meshes, frames.

Dimensions and reproducibility are checked with those of all domains in test_domain_envs.py.
"""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sim_building import build

from newt.tasks.registry import all_tasks, get_task
from services.sim.domains import DOMAINS

pytestmark = [
    pytest.mark.skipif(bool(DOMAINS["maniskill"].missing_packages()), reason="needs newt[sim-maniskill]"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mani_skill", "ignore:.*precision lowered by casting"),
]

ROOT = Path(__file__).parents[3]
TASKS = [task.name for task in all_tasks() if task.domain == "maniskill"]
# One of each robot and each kind of scene.
ONE_OF_EACH = [
    "ms-ant-run", "ms-cartpole-swingup", "ms-hopper-hop", "ms-anymal-reach", "ms-reach", "ms-reach-xarm6",
    "ms-pick-cube-so", "ms-pick-apple", "ms-push-rubiks-cube",
]  # fmt: skip
JOINTS = {"ms-reach": 9, "ms-reach-xarm6": 12}


def random_actions(task: str, steps: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).uniform(-1, 1, (steps, get_task(task).action_dim)).astype(np.float32)


def test_every_task_has_a_variant() -> None:
    from services.sim.domains.maniskill.variants import VARIANTS

    assert sorted(VARIANTS) == sorted(TASKS)


def test_pace() -> None:
    from services.sim.domains.maniskill.scenes import scene_class

    for task in map(get_task, TASKS):  # Without building them, for which some lack meshes here.
        scene_type = scene_class(task.name)
        rate = scene_type._default_sim_config.fget(object.__new__(scene_type)).control_freq
        assert rate / task.action_repeat == task.steps_per_s, task.name


@pytest.mark.parametrize(
    ("task", "hand", "goal", "item", "terms"),
    [("ms-pick-cube", 19, 26, 29, 5), ("ms-pick-cube-xarm6", 25, 32, 35, 5), ("ms-pick-banana", 18, 25, 32, 6)],
)
def test_picking_observes_positions_and_pays_for_closeness(
    task: str, hand: int, goal: int, item: int, terms: int
) -> None:
    env = build(task)
    for seed in range(3):
        env.reset(seed)
        result = env.step(np.zeros(get_task(task).action_dim, np.float32))
        hand_at, goal_at, item_at = (result.obs[start : start + 3] for start in (hand, goal, item))
        np.testing.assert_allclose(result.obs[-6:], [*(item_at - hand_at), *(goal_at - item_at)], atol=1e-6)
        assert (np.abs(item_at[:2]) <= 0.1).all()
        # Neither grasped nor placed: two control steps that pay for the hand's closeness alone.
        expected = 2 * (1 - math.tanh(5 * float(np.linalg.norm(item_at - hand_at)))) / terms
        assert result.reward == pytest.approx(expected, abs=0.02)
    env.close()


@pytest.mark.parametrize("task", ["ms-reach", "ms-reach-xarm6"])
def test_reach_observes_the_way_to_the_goal_and_pays_for_its_length(task: str) -> None:
    env, joints = build(task), JOINTS[task]
    seen = []
    for seed in range(8):
        obs = env.reset(seed)
        hand, goal, way = obs[2 * joints : 2 * joints + 3], obs[2 * joints + 7 : 2 * joints + 10], obs[-3:]
        np.testing.assert_allclose(goal - hand, way, atol=1e-6)
        assert (np.abs(goal[:2]) <= 0.1).all()
        assert 0 <= goal[2] <= 0.3
        seen.append(goal)
    assert np.ptp(seen, axis=0).min() > 0.05
    # Standing still, both control steps of an agent step pay about the same.
    result = env.step(np.zeros(get_task(task).action_dim, np.float32))
    expected = 2 * (1 + result.success - math.tanh(5 * float(np.linalg.norm(result.obs[-3:]))))
    assert result.reward == pytest.approx(expected, abs=0.05)
    env.close()


def test_reach_succeeds_at_the_goal_without_standing_still() -> None:
    env = build("ms-reach")
    obs, rewards = env.reset(3), []
    for _ in range(get_task("ms-reach").episode_length):
        # The hand moves by at most 10 cm per control step, two of which make an agent step.
        action = np.append(np.clip(obs[-3:] / 0.2, -1, 1), 1).astype(np.float32)
        result = env.step(action)
        obs = result.obs
        rewards.append(result.reward)
    assert result.success == result.score == 1.0
    assert np.linalg.norm(obs[-3:]) <= 0.025
    assert 3.5 < rewards[-1] <= 4.0
    assert rewards[0] < rewards[-1] - 1
    env.close()


def test_sparse_cartpole_pays_one_while_the_pole_is_within_46_degrees() -> None:
    env: Any = build("ms-cartpole-balance-sparse")
    env.reset(0)
    paid = {}
    for degrees in (0, 40, -40, 44, 48, -48, 90, 180):
        env._env.agent.robot.set_qpos(np.array([[0, math.radians(degrees)]], np.float32))
        paid[degrees] = float(env._env.get_reward(None, None, {}))
    assert paid == {0: 1, 40: 1, -40: 1, 44: 1, 48: 0, -48: 0, 90: 0, 180: 0}
    assert env.step(np.zeros(1, np.float32)).reward == 0
    env.close()
    hanging = build("ms-cartpole-swingup-sparse")
    hanging.reset(0)
    assert hanging.step(np.zeros(1, np.float32)).reward == 0
    hanging.close()


def test_balancing_scores_the_share_of_a_thousand() -> None:
    env = build("ms-cartpole-balance-sparse")
    env.reset(1)
    rewards = [env.step(np.zeros(1, np.float32)) for _ in range(5)]
    assert [result.reward for result in rewards] == [2.0] * 5
    assert rewards[-1].score == pytest.approx(0.01)
    env.close()


def test_scores_of_the_ant_and_the_hopper_have_corrected_ones_beside_them() -> None:
    ant: Any = build("ms-ant-walk")
    ant.reset(0)
    total = sum(ant.step(action).reward for action in random_actions("ms-ant-walk", 10))
    last = ant.step(np.zeros(8, np.float32))
    assert math.isnan(last.success)
    assert last.score == 0
    assert ant.corrected_score == pytest.approx((total + last.reward) / 1000)
    assert ant.corrected_score > 0
    hopper: Any = build("ms-hopper-stand")
    hopper.reset(0)
    hopper._return = 499.0  # As if it had stood all the time but for one control step.
    last = hopper.step(np.zeros(4, np.float32))
    assert last.score == pytest.approx((499 + last.reward) / 600)
    assert hopper.corrected_score == pytest.approx(min((499 + last.reward) / 500, 1))
    for env in (ant, hopper):
        env.close()


def test_pushed_objects_must_reach_the_disc_and_lie_low() -> None:
    env: Any = build("ms-push-can")
    obs = env.reset(4)
    goal, start = obs[-10:-7], obs[-7:-4]
    np.testing.assert_allclose(goal[:2] - start[:2], [0.2, 0], atol=1e-6)
    assert start[2] == pytest.approx(0.04)
    library = env._env

    def success(position: tuple[float, float, float]) -> bool:
        library.obj.set_pose(library.obj.pose.create_from_pq(np.asarray(position, np.float32)))
        return bool(library.evaluate()["success"])

    x, y, _ = map(float, goal)
    assert success((x, y + 0.09, 0.04))
    assert not success((x, y + 0.11, 0.04))
    assert not success((x, y, 0.051))  # Standing upright.
    env.close()


def test_contacts_leave_no_trace_in_the_next_episode() -> None:
    """The arm sweeps over the table and shoves the object away, then the episode of another seed is played."""
    task = "ms-push-rubiks-cube"
    used, fresh = build(task), build(task)

    def sweep(env: Any, seed: int) -> list[npt.NDArray[np.float32]]:
        history = [env.reset(seed)]
        for step in range(20):
            hand, item = history[-1][18:21], history[-1][-7:-4]
            target = item + np.array([0.1 if step > 8 else -0.12, 0, -0.01])
            action = np.zeros(7, np.float32)
            action[:3] = np.clip((target - hand) / 0.2, -1, 1)
            action[6] = -1
            history.append(env.step(action).obs)
        return history

    first = sweep(used, 1)
    assert np.linalg.norm(first[-1][-7:-5] - first[0][-7:-5]) > 0.05  # The object has moved.
    for before, after in zip(sweep(used, 2), sweep(fresh, 2), strict=True):
        np.testing.assert_array_equal(before, after)
    used.close()
    fresh.close()


@pytest.mark.parametrize("task", ["ms-pick-hammer", "ms-push-pear", "ms-anymal-reach", "ms-reach-xarm6"])
def test_missing_meshes_are_named_with_the_step_that_fetches_them(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.sim.domains.maniskill import assets
    from services.sim.domains.maniskill.variants import VARIANTS

    monkeypatch.setattr("mani_skill.ASSET_DIR", tmp_path)
    pack = VARIANTS[task].pack
    with pytest.raises(assets.MissingAssetError, match=rf"(?s){task} needs .*python -m \S+assets {pack}`"):
        build(task)
    build("ms-reach").close()  # Needs none.


def test_the_download_step_keeps_what_is_there_and_refuses_unknown_packs() -> None:
    def run(*packs: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-m", "services.sim.domains.maniskill.assets", *packs]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    done = run()  # MS_ASSET_DIR has the stand-ins.
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["ycb", "xarm6", "anymal_c"]
    assert done.stdout.count("already in") == 3
    unknown = run("ycb", "kitchen")
    assert unknown.returncode == 2
    assert "no pack kitchen; there are ycb, xarm6, anymal_c" in unknown.stderr


def test_no_other_domain_is_imported_or_needed() -> None:
    code = (
        "import sys; sys.modules['mujoco'] = None\n"  # As if it were not installed.
        "from services.sim import domains\n"
        "domains.make('maniskill', 'ms-reach', False).reset(0)\n"
        "print([name for name in ('dm_control', 'metaworld', 'grpc._cython') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_missing_driver_is_one_clear_error() -> None:
    code = (
        "from services.sim import domains\n"
        "from services.sim.domains.base import RenderingError\n"
        "try: domains.make('maniskill', 'ms-reach', False)\n"
        "except RenderingError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "VK_ICD_FILENAMES": "/nowhere.json"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "ManiSkill needs a working Vulkan driver" in done.stdout
    assert "scripts/maniskill-vulkan.sh" in done.stdout


@pytest.mark.parametrize(
    ("backend", "gpu", "software"),
    [("auto", False, True), ("egl", False, False), ("osmesa", True, True)],
)
def test_the_software_driver_is_for_machines_without_a_gpu(
    backend: str, gpu: bool, software: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from services.sim.domains.maniskill import vulkan

    driver = tmp_path / "driver.json"
    driver.touch()
    monkeypatch.setattr(vulkan, "_SOFTWARE_DRIVERS", (tmp_path / "absent.json", driver))
    monkeypatch.setattr(vulkan, "_GPU_DEVICES", (tmp_path if gpu else tmp_path / "absent",))
    monkeypatch.setenv("NEWT_SIM_RENDER_BACKEND", backend)
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
    monkeypatch.setenv("VK_ICD_FILENAMES", "")
    vulkan.choose_driver()
    assert (os.environ["VK_ICD_FILENAMES"] == str(driver)) == software
    monkeypatch.setenv("VK_ICD_FILENAMES", "mine.json")
    vulkan.choose_driver()
    assert os.environ["VK_ICD_FILENAMES"] == "mine.json"


@pytest.mark.parametrize("works", [True, False])
def test_a_gpu_that_does_not_draw_is_not_used(works: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a GPU's driver would be registered is SwiftShader, or nothing, as in a container without `graphics`."""
    from services.sim.domains.maniskill import vulkan

    (driver,) = (path for path in vulkan._SOFTWARE_DRIVERS[:1] if path.exists())
    registered = tmp_path / "vulkan" / "icd.d"
    registered.mkdir(parents=True)
    if works:
        (registered / "gpu.json").write_text(driver.read_text().replace("./", f"{driver.parent}/"))
    monkeypatch.setattr(vulkan, "_GPU_DEVICES", (tmp_path,))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("NEWT_SIM_RENDER_BACKEND", "auto")
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
    monkeypatch.setenv("VK_ICD_FILENAMES", "")  # so that it is put back
    monkeypatch.delenv("VK_ICD_FILENAMES")
    vulkan.choose_driver()
    assert os.environ.get("VK_ICD_FILENAMES") == (None if works else str(driver))


@pytest.mark.parametrize("task", ["ms-reach", "ms-ant-run"])
def test_frames_follow_the_state_and_change_nothing(task: str) -> None:
    actions = random_actions(task, 3)
    drawn, undrawn = build(task, rendering=True), build(task)
    np.testing.assert_array_equal(drawn.reset(5), undrawn.reset(5))
    first = drawn.render()
    assert first.shape == (224, 224, 3)
    assert first.dtype == np.uint8
    for action in actions:
        result, other = drawn.step(action), undrawn.step(action)
        drawn.render()
        np.testing.assert_array_equal(result.obs, other.obs)
        assert result.reward == other.reward
    last = drawn.render()
    assert (last != first).any()
    np.testing.assert_array_equal(drawn.render(), last)
    np.testing.assert_array_equal(undrawn.render(), last)  # Both are drawn by the process's one drawing of the task.
    drawn.reset(5)
    np.testing.assert_array_equal(drawn.render(), first)
    drawn.close()
    undrawn.close()


def test_the_goal_is_a_green_ball() -> None:
    env = build("ms-reach", rendering=True)
    green = []
    for seed in (0, 1):
        env.reset(seed)
        red, blue = env.render()[..., 0].astype(int), env.render()[..., 2].astype(int)
        rows, columns = np.nonzero(env.render()[..., 1] > np.maximum(red, blue) + 60)
        assert 10 < len(rows) < 1500
        green.append((rows.mean(), columns.mean()))
    assert math.dist(*green) > 3
    env.close()


@pytest.mark.long
@pytest.mark.parametrize("task", ONE_OF_EACH)
def test_every_kind_of_scene_can_be_drawn(task: str) -> None:
    env = build(task, rendering=True)
    env.reset(0)
    frame = env.render()
    assert frame.shape == (224, 224, 3)
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) >= 3
    env.close()


@pytest.mark.long
@pytest.mark.parametrize("task", ["ms-cartpole-balance", "ms-pull-cube-tool", "ms-anymal-reach", "ms-pick-mug"])
def test_whole_episodes(task: str) -> None:
    facts, env = get_task(task), build(task)
    env.reset(0)
    for step, action in enumerate(random_actions(task, facts.episode_length), start=1):
        result = env.step(action)
        assert result.truncated == (step == facts.episode_length)
        assert not result.terminated
        assert 0 <= result.score <= 1
    env.close()
