"""RemoteVectorEnv against Gymnasium's own environments, wrappers and checks."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import (
    ClipAction,
    DtypeObservation,
    FlattenObservation,
    NormalizeObservation,
    RecordEpisodeStatistics,
)
from sim_running import RunningServer

from newt.client import RemoteVectorEnv
from newt.errors import InvalidInputError, NotFoundError, PreconditionError, UnavailableError
from newt.tasks.pace import DEFAULT_STEPS_PER_S
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from services.sim import domains
from services.sim.domains.noop import DIE, RAISE
from services.sim.seeds import mix

Make = Callable[..., RemoteVectorEnv]


@pytest.fixture
def remote(all_domains: RunningServer) -> Iterator[Make]:
    made: list[RemoteVectorEnv] = []

    def make(*args: Any, **kwargs: Any) -> RemoteVectorEnv:
        made.append(RemoteVectorEnv(*args, address=all_domains.address, **kwargs))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


class LocalEnv(gymnasium.Env[Any, Any]):
    """The same simulator without the service, as Gymnasium wants it; follows the service's seed sequence."""

    def __init__(self, domain: str, task: str, obs_dim: int, action_dim: int) -> None:
        self._env = domains.make(domain, task, False)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (action_dim,), np.float32)
        self._origin = self._episode = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is None:
            seed = mix(self._origin, self._episode)
            self._episode += 1
        else:
            self._origin, self._episode = seed, 0
        return self._env.reset(seed), {"episode_seed": np.uint64(seed)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self._env.step(action)
        score = np.float32(result.score)
        info = {"success": np.float32(result.success), "score": score, "corrected_score": score}
        return result.obs, float(np.float32(result.reward)), result.terminated, result.truncated, info


class SingleView(gymnasium.Env[Any, Any]):
    """One row as a plain environment, so that Gymnasium's checker can look at it."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, envs: RemoteVectorEnv) -> None:
        self._envs = envs
        self.observation_space = envs.single_observation_space
        self.action_space = envs.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        obs, _ = self._envs.reset(seed=seed, options=options)
        return self._row(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, _ = self._envs.step(action[None])
        return self._row(obs), float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        return self._envs.render()[0]

    @staticmethod
    def _row(obs: Any) -> Any:
        return {key: value[0] for key, value in obs.items()} if isinstance(obs, dict) else obs[0]


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is.*infinity")
@pytest.mark.parametrize(
    ("task", "obs_mode"), [("walker-walk", "state"), ("mw-reach", "state"), ("noop-short", "rgb"), ("noop", "state")]
)
def test_gymnasiums_checker_accepts_it(remote: Make, task: str, obs_mode: str) -> None:
    check_env(SingleView(remote(task, 1, obs_mode=obs_mode)))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    ("domain", "task", "steps"),
    [("noop", "noop-short", 17), ("mujoco", "mujoco-reacher", 60), ("dmcontrol", "cartpole-swingup", 5)],
)
def test_step_by_step_like_gymnasiums_sync_vector_env(
    remote: Make, domain: str, task: str, steps: int, mode: AutoresetMode
) -> None:
    ours = remote(task, 3, autoreset_mode=mode)
    facts = ours.tasks[0]

    def make() -> LocalEnv:
        return LocalEnv(domain, task, facts.obs_dim, facts.action_dim)

    theirs = SyncVectorEnv([make] * 3, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.num_envs == theirs.num_envs
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    _check_same(ours.reset(seed=5), theirs.reset(seed=5))
    ours.action_space.seed(0)
    for _ in range(steps):
        action = ours.action_space.sample()
        step, their_step = ours.step(action), theirs.step(action)
        _check_same(step, their_step)
        assert ours.observation_space.contains(step[0])
        ended = step[2] | step[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            mask = {"reset_mask": ended}
            _check_same(ours.reset(options=dict(mask)), theirs.reset(options=dict(mask)))
    mask = {"reset_mask": np.array([False, True, False])}
    seeds = [None, 9, None]
    _check_same(ours.reset(seed=seeds, options=dict(mask)), theirs.reset(seed=seeds, options=dict(mask)))  # type: ignore[arg-type]
    _check_same(ours.reset(seed=[3, None, 4]), theirs.reset(seed=[3, None, 4]))  # type: ignore[arg-type]
    theirs.close()


def test_corrected_scores_come_beside_the_published_ones(remote: Make) -> None:
    envs = remote(["cup-spin", "pendulum-spin"])
    envs.reset(seed=[0, 1])
    envs.action_space.seed(0)
    for _ in range(60):
        info = envs.step(envs.action_space.sample())[-1]
    assert (info["score"] > 0).all()
    assert info["corrected_score"] == pytest.approx(info["score"] / [0.905, 1])
    assert info["_corrected_score"].all()


def _check_same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    """The same arrays, dtypes, info keys and masks. Unmasked info entries mean nothing and may differ."""
    for mine, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert data_equivalence(mine, other), (mine, other)
        assert mine.dtype == other.dtype
    _check_info(ours[-1], theirs[-1])


def _check_info(mine: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(mine) == set(other)
    for key, value in other.items():
        if key.startswith("_"):
            np.testing.assert_array_equal(mine[key], value)
        elif isinstance(value, dict):
            _check_info(mine[key], value)
        else:
            assert mine[key].dtype == value.dtype, key
            mask = other[f"_{key}"]
            for row, other_row in zip(mine[key][mask], value[mask], strict=True):
                np.testing.assert_array_equal(row, other_row)


def test_five_lines(all_domains: RunningServer) -> None:
    used = all_domains.service.sessions.used_instances
    envs = RemoteVectorEnv("walker-walk", num_envs=8, address=all_domains.address)
    assert all_domains.service.sessions.used_instances == used + 8
    obs, _ = envs.reset(seed=0)
    for _ in range(3):
        obs, *_ = envs.step(envs.action_space.sample())
    assert obs.shape == (8, 24)
    envs.close()
    envs.close()
    assert all_domains.service.sessions.used_instances == used


def test_gymnasiums_wrappers_work(remote: Make) -> None:
    envs = RecordEpisodeStatistics(ClipAction(remote("noop-short", 2)))
    envs.reset(seed=0)
    for _ in range(5):
        *_, info = envs.step(np.full((2, 2), 7, np.float32))
    assert info["episode"]["l"].tolist() == [5, 5]
    assert info["episode"]["r"].tolist() == [5.0, 5.0]
    envs.reset(seed=0, options={"reset_mask": np.array([True, False])})


def test_wrappers_that_want_the_next_step(remote: Make) -> None:
    envs = remote("noop-short", 2, obs_mode="rgb", autoreset_mode=AutoresetMode.NEXT_STEP)
    wrapped = DtypeObservation(NormalizeObservation(FlattenObservation(envs)), np.float64)
    obs, _ = wrapped.reset(seed=0)
    for _ in range(7):
        obs, *_ = wrapped.step(np.zeros((2, 2), np.float32))
    assert obs.dtype == np.float64
    assert obs.shape == (2, envs.tasks[0].obs_dim + 3 * 224 * 224)


def test_a_crash_restarts_in_the_next_step(remote: Make) -> None:
    envs = remote("noop-faulty", 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    envs.reset(seed=0)
    fail, fine = np.array([[RAISE], [0.125]], np.float32), np.full((2, 1), 0.125, np.float32)
    _, reward, _, truncated, info = envs.step(fail)
    assert (reward.tolist(), truncated.tolist(), info["env_error"].tolist()) == (
        [0, 0.125],
        [True, False],
        [True, False],
    )
    _, reward, terminated, truncated, info = envs.step(fail)  # The row's action is ignored.
    assert "env_error" not in info
    assert (reward.tolist(), truncated.any(), terminated.any()) == ([0, 0.125], False, False)
    assert (info["_episode_seed"].tolist(), info["_score"].tolist()) == ([True, False], [False, True])
    assert envs.step(fine)[1].tolist() == [0.125, 0.125]


def test_unseeded_environments_differ(remote: Make) -> None:
    one, two = remote("noop", 2), remote("noop", 2)
    starts = np.concatenate([one.reset()[0][:, 0], two.reset()[0][:, 0]])
    assert len(set(starts.tolist())) == 4


def test_a_seed_repeats_everything_that_follows(remote: Make) -> None:
    envs = remote("noop-short", 2)
    envs.reset()
    runs = []
    for _ in range(2):
        run = [envs.reset(seed=3)[0]]
        run += [envs.step(np.zeros((2, 2), np.float32))[0] for _ in range(12)]
        runs.append(np.stack(run))
    np.testing.assert_array_equal(*runs)
    assert len(np.unique(runs[0][:, :, 0])) == 6  # Two rows, three episodes each.


def test_mixed_tasks_are_padded(remote: Make) -> None:
    envs = remote(["walker-walk", "mw-reach"])
    assert envs.single_observation_space.shape == (PADDED_OBS_DIM,)
    assert envs.single_action_space.shape == (PADDED_ACTION_DIM,)
    obs, _ = envs.reset(seed=0)
    assert not obs[0, 24:].any()
    _, reward, _, _, info = envs.step(envs.action_space.sample())
    assert reward.dtype == np.float64
    assert np.isnan(info["success"]).tolist() == [True, False]
    same = remote(["walker-walk", "walker-run"])
    assert same.single_observation_space.shape == (24,)
    assert (envs.metadata["render_fps"], same.metadata["render_fps"]) == (DEFAULT_STEPS_PER_S, 20)


def test_frames_and_rendering(remote: Make) -> None:
    envs = remote("noop-short", 2, obs_mode="rgb")
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)
    for _ in range(5):
        obs, *_, info = envs.step(np.zeros((2, 2), np.float32))
    assert envs.observation_space.contains(obs)
    assert envs.single_observation_space.contains(info["final_obs"][1])
    assert info["final_obs"][1]["rgb"][0, 5, 5] == 15
    assert obs["rgb"][1, 0, 5, 5] == 10
    frames = envs.render()
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[0], obs["rgb"][0].transpose(1, 2, 0))


def test_expert_actions(remote: Make) -> None:
    envs = remote("mw-reach", 1, with_expert=True)
    _, info = envs.reset(seed=1)
    succeeded = []
    for _ in range(100):
        *_, info = envs.step(info["expert_action"])
        succeeded.append(info.get("success", [0.0])[0])  # The last step's is in final_info.
    assert max(succeeded) == 1.0
    assert info["final_info"]["success"][0] == 1.0


def test_a_crash_is_a_harmless_truncation(remote: Make) -> None:
    envs = remote("noop-faulty", 2)
    before, _ = envs.reset(seed=0)
    _, reward, terminated, truncated, info = envs.step(np.array([[RAISE], [0]], np.float32))
    assert reward.tolist() == [0.0, 0.0]
    assert truncated.tolist() == [True, False]
    assert not terminated.any()
    assert info["env_error"].tolist() == [True, False]
    np.testing.assert_array_equal(info["final_obs"][0], before[0])


def test_wrong_use(remote: Make, all_domains: RunningServer) -> None:
    for arguments in (("noop",), ("noop", 0), (["noop"] * 2, 3)):
        with pytest.raises(ValueError, match="num_envs"):
            remote(*arguments)
    with pytest.raises(ValueError, match="AutoresetMode"):
        remote("noop", 1, autoreset_mode="NextStep")
    with pytest.raises(ValueError, match="obs_mode"):
        remote("noop", 1, obs_mode="pixels")
    with pytest.raises(NotFoundError, match="walker-walk"):
        remote("walker-wlk", 1)
    envs = remote("noop", 2)
    with pytest.raises(PreconditionError, match="Reset"):
        envs.step(np.zeros((2, 6), np.float32))
    envs.reset()
    with pytest.raises(ValueError, match=r"expected \(2, 6\)"):
        envs.step(np.zeros((2, 5), np.float32))
    with pytest.raises(InvalidInputError, match="row 1, column 3"):
        envs.step(np.array([[0] * 6, [0, 0, 0, np.nan, 0, 0]], np.float32))
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.zeros(2, np.bool_)})
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"reset_mask": [True, False]})
    with pytest.raises(ValueError, match="got 3 seeds"):
        envs.reset(seed=[1, 2, 3])
    envs.step(np.zeros((2, 6), np.float32))


def test_a_long_pause_is_no_problem(start: Callable[..., RunningServer]) -> None:
    server = start(default_lease_s=1.0)
    envs = RemoteVectorEnv("noop", 1, address=server.address)
    envs.reset()
    time.sleep(2.0)
    envs.step(np.zeros((1, 6), np.float32))
    envs.close()
    assert server.service.sessions.used_instances == 0


def test_a_server_that_goes_away(start: Callable[..., RunningServer]) -> None:
    server = start()
    envs = RemoteVectorEnv("noop", 1, address=server.address, timeout_s=5)
    envs.reset()
    envs.step(np.zeros((1, 6), np.float32))
    server.service.server.stop(0)
    with pytest.raises(UnavailableError):
        envs.step(np.zeros((1, 6), np.float32))
    envs.close()


def test_a_server_that_is_away_for_a_while(start: Callable[..., RunningServer]) -> None:
    """Too many workers have died, so the server answers UNAVAILABLE until their deaths are forgotten."""
    server = start(max_restarts_per_minute=1, workers=1)
    die = np.full((1, 1), DIE, np.float32)
    still = np.zeros((1, 1), np.float32)
    envs = RemoteVectorEnv("noop-faulty", 1, address=server.address, timeout_s=5)
    envs.reset()
    assert envs.step(die)[4]["env_error"].all()
    forget = threading.Timer(1.0, server.service.pool._restarts._spent.clear)
    forget.start()
    assert envs.step(die)[4]["env_error"].all()
    forget.join()
    with pytest.raises(UnavailableError, match="workers died"):
        envs.step(die)
    with pytest.raises(PreconditionError, match="reset"):
        envs.step(still)
    server.service.pool._restarts._spent.clear()
    envs.reset()
    assert "env_error" not in envs.step(still)[4]
    envs.close()
