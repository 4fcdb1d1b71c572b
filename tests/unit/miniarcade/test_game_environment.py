"""The games behind Gymnasium's interface."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from newt.miniarcade import GAMES
from newt.miniarcade.environment import make, register


@pytest.mark.filterwarnings("ignore:.*infinity")  # States have no bounds, as for the agent.
@pytest.mark.parametrize("name", ["pygame-highway", "pygame-point-maze-var1", "pygame-cartpole-tremor"])
def test_gymnasiums_own_check(name: str) -> None:
    check_env(make(name, render_mode="rgb_array"), skip_render_check=True)


def test_seeds_and_their_sequences() -> None:
    first, second = make("pygame-pong"), make("pygame-pong")
    for env in (first, second):
        env.reset(seed=3)
    assert [first.reset()[0].tolist() for _ in range(3)] == [second.reset()[0].tolist() for _ in range(3)]
    assert first.reset()[0].tolist() != first.reset()[0].tolist()


def test_registered_for_gymnasium_make() -> None:
    register()
    env = gymnasium.make("MiniArcade/pygame-landing-v0", render_mode="rgb_array")
    env.reset(seed=0)
    for step in range(1, 201):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert (terminated, truncated) == (False, step == 200)
    assert env.observation_space.contains(obs)
    assert isinstance(reward, float)
    assert 0 <= info["score"] <= 1
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert frame.shape == (224, 224, 3)
    assert all(f"MiniArcade/{name}-v0" in gymnasium.registry for name in GAMES)


def test_wrong_render_mode() -> None:
    with pytest.raises(ValueError, match="'human'"):
        make("pygame-pong", render_mode="human")  # type: ignore[arg-type]
