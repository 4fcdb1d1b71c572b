"""Other people's libraries, the real ones, on a real simulator service: an episode's facts arrive in their terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
from sim_running import RunningServer
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import nn
from torchrl.envs import GymWrapper, check_env_specs

import newt.client.envs  # noqa: F401  # registers the ids
from newt.client import RemoteEnv, RemoteVectorEnv
from newt.client.stable_baselines3 import RemoteVecEnv
from newt.errors import InvalidInputError
from services.sim.domains.noop import RAISE, TERMINATE

GOOD = 0.8  # of the five rewards of up to 1 that an episode of noop-short pays


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on cores of others take a hundred times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def used_instances(all_domains: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The service is in the environment, and has all instances back at the end."""
    monkeypatch.setenv("NEWT_SIM", all_domains.address)
    before = all_domains.service.sessions.used_instances
    yield
    assert all_domains.service.sessions.used_instances == before


def test_stable_baselines3_learns() -> None:
    envs = VecNormalize(VecMonitor(RemoteVecEnv("noop-short", 8)))
    model = PPO(
        "MlpPolicy", envs, n_steps=40, batch_size=160, learning_rate=1e-2, n_epochs=5, gamma=0.9, seed=1, device="cpu"
    )
    model.learn(4_800)
    assert np.mean([episode["r"] for episode in model.ep_info_buffer or ()]) > 5 * GOOD
    assert np.mean(model.ep_success_buffer or [0.0]) > 0.9
    rewards, lengths = evaluate_policy(model, envs, n_eval_episodes=8, return_episode_rewards=True)
    assert set(lengths) == {5}
    assert np.mean(rewards) > 5 * GOOD
    envs.close()


def test_stable_baselines3_is_told_how_episodes_end() -> None:
    envs = RemoteVecEnv(["noop-faulty", "noop-faulty", "noop-faulty"])
    assert envs.get_attr("task")[0].name == "noop-faulty"
    with pytest.raises(AttributeError, match="another process"):
        envs.env_method("set_level", 3)
    envs.seed(5)
    first = envs.reset()
    assert [info["episode_seed"] for info in envs.reset_infos] == [5, 6, 7]
    obs, reward, done, infos = envs.step(np.array([[TERMINATE], [RAISE], [0.0]], np.float32))
    assert done.tolist() == [True, True, False]
    assert [info.get("TimeLimit.truncated") for info in infos] == [False, True, None]
    assert reward.tolist() == [np.float32(TERMINATE), 0.0, 0.0]
    assert infos[1]["env_error"]
    assert infos[0]["terminal_observation"].tolist() == [first[0][0], 1.0, np.float32(TERMINATE)]
    assert obs[0][1] == 0 != obs[2][1]
    assert "success" not in infos[2]  # the task defines none
    envs.seed(5)
    np.testing.assert_array_equal(envs.reset(), first)
    assert len(envs.get_images()) == 3
    envs.close()


def test_stable_baselines3_sees() -> None:
    envs = RemoteVecEnv("noop-short", 2, obs_mode="rgb")
    assert is_image_space(envs.observation_space["rgb"], check_channels=True)  # type: ignore[index]
    assert is_image_space_channels_first(envs.observation_space["rgb"])  # type: ignore[index]  # nothing is transposed
    envs.reset()
    for _ in range(5):
        obs, _, done, infos = envs.step(np.zeros((2, 2), np.float32))
    assert {name: array.shape for name, array in obs.items()} == {"state": (2, 3), "rgb": (2, 3, 224, 224)}
    assert done.all()
    assert infos[1]["terminal_observation"]["rgb"].mean() > obs["rgb"][1].mean()
    envs.close()


def test_torchrl_steps_one_and_many() -> None:
    env = GymWrapper(RemoteEnv("noop-short"))
    check_env_specs(env)
    played = env.rollout(20, break_when_any_done=False)
    ended = played["next", "done"].squeeze(-1)
    assert ended.nonzero().squeeze(-1).tolist() == [4, 9, 14, 19]
    assert not played["next", "terminated"].any()
    torch.testing.assert_close(played["next", "observation"][:, 2], played["action"][:, 0])
    env.close()
    envs = GymWrapper(RemoteVectorEnv("noop-short", 3, autoreset_mode=AutoresetMode.DISABLED))
    played = envs.rollout(12, break_when_any_done=False)
    assert played.batch_size == (3, 12)
    torch.testing.assert_close(
        played["next", "observation"][..., 1], torch.tensor([[1.0, 2, 3, 4, 5] * 2 + [1, 2]] * 3)
    )
    envs.close()


class ActorCritic(nn.Module):
    """As small as it gets."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(obs_dim, 32), nn.Tanh(), nn.Linear(32, action_dim))
        self.critic = nn.Sequential(nn.Linear(obs_dim, 32), nn.Tanh(), nn.Linear(32, 1))
        self.log_std = nn.Parameter(torch.full((action_dim,), -0.5))

    def forward(self, obs: torch.Tensor) -> tuple[torch.distributions.Normal, torch.Tensor]:
        return torch.distributions.Normal(self.actor(obs), self.log_std.exp()), self.critic(obs).squeeze(-1)


def test_a_plain_loop_in_one_file_learns() -> None:
    """Advantage actor-critic, as one writes it down for Gymnasium's own vectors: their wrappers, NEXT_STEP."""
    torch.manual_seed(1)
    envs: Any = gymnasium.make_vec("newt/task-v0", num_envs=8, task="noop-short")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs = gymnasium.wrappers.vector.ClipAction(NormalizeObservation(RecordEpisodeStatistics(envs)))
    net = ActorCritic(3, 2)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    obs, _ = envs.reset(seed=1)
    restarted = np.zeros(8, bool)
    returns: list[float] = []
    for _ in range(120):
        steps = []
        for _ in range(6):
            distribution, value = net(torch.as_tensor(obs, dtype=torch.float32))
            action = distribution.sample()
            obs, reward, terminated, truncated, info = envs.step(action.numpy())
            # A row that was restarted in place of a step has nothing to learn from.
            kept = ~torch.as_tensor(restarted)
            steps.append((distribution.log_prob(action).sum(-1), value, torch.as_tensor(reward), kept))
            restarted = terminated | truncated
            if "episode" in info:
                returns += info["episode"]["r"][info["_episode"]].tolist()
        log_prob, values, rewards, counted = (torch.stack(column) for column in zip(*steps, strict=True))
        advantage = (rewards - values).float() * counted
        loss = (advantage.square() - advantage.detach() * log_prob).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(returns) == 8 * 120  # six steps of the vector are one episode and its restart
    assert np.mean(returns[:40]) < 2 < 5 * GOOD < np.mean(returns[-80:])
    envs.close()


def test_steps_in_two_halves_and_their_mistakes() -> None:
    envs = RemoteVectorEnv("noop-short", 2)
    envs.reset(seed=0)
    envs.step_async(np.zeros((2, 2)))
    obs, *_ = envs.step_wait()
    assert obs[:, 1].tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="no step is under way"):
        envs.step_wait()
    with pytest.raises(ValueError, match="shape"):
        envs.step_async(np.zeros((1, 2)))
    with pytest.raises(InvalidInputError, match="action"):
        envs.step(np.full((2, 2), 3.0))
    envs.close()
