"""FastTD3, every formula against numbers worked by hand."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from newt.agent.config import ConfigError
from newt.agent.task_table import TaskTable
from newt.baselines.config import FastTD3Config
from newt.baselines.fasttd3 import FastTD3, critic_target, project
from newt.baselines.fasttd3_networks import Actor, Critics
from newt.baselines.fasttd3_ring import StepRing
from newt.baselines.normalisers import ObsNormaliser, RewardNormaliser, RunningMoments
from newt.baselines.vector import Transition

ATOMS = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
SMALL = FastTD3Config(actor_dim=16, critic_dim=32, batch_size=64, n_step=1, start_steps=2, capacity_steps=100)


def step(rows: int, **given: Tensor) -> Transition:
    no = torch.zeros(rows, dtype=torch.bool)
    values = {
        "obs": torch.zeros(rows, 5),
        "action": torch.zeros(rows, 3),
        "reward": torch.zeros(rows),
        "reached": torch.zeros(rows, 5),
        "terminated": no,
        "truncated": no,
        "valid": ~no,
    }
    return Transition(**(values | given))


# ---- projection


def projected(probability: list[float], reward: float, discount: float) -> list[float]:
    return project(torch.tensor([probability]).float(), torch.tensor([reward]), torch.tensor([discount]), ATOMS)[
        0
    ].tolist()


def test_projection_shares_mass_between_neighbours() -> None:
    # All mass at 1, moved to 0.3 + 0.5 * 1 = 0.8: 0.2 of it on 0, 0.8 on 1.
    assert projected([0, 0, 0, 1, 0], 0.3, 0.5) == pytest.approx([0, 0, 0.2, 0.8, 0])


def test_projection_onto_an_atom_keeps_the_mass() -> None:
    assert projected([0, 0, 0, 1, 0], 0.0, 1.0) == [0, 0, 0, 1, 0]
    assert projected([0.25, 0.25, 0, 0, 0.5], 1.0, 1.0) == [0, 0.25, 0.25, 0, 0.5]  # the last is clamped
    assert projected([0.2, 0.2, 0.2, 0.2, 0.2], -2.0, 0.0) == pytest.approx([1, 0, 0, 0, 0])  # nothing bootstrapped


def test_projection_clamps_returns_beyond_the_atoms() -> None:
    assert projected([0, 0, 1, 0, 0], 7.0, 0.9) == [0, 0, 0, 0, 1]
    assert projected([0, 0, 1, 0, 0], -7.0, 0.9) == [1, 0, 0, 0, 0]


@given(
    st.lists(st.floats(0.01, 1), min_size=5, max_size=5),
    st.floats(-5, 5, width=32),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
)
def test_projection_conserves_mass_and_the_mean_inside(weights: list[float], reward: float, discount: float) -> None:
    probability = torch.tensor([weights]) / sum(weights)
    result = project(probability, torch.tensor([reward]), torch.tensor([discount]), ATOMS)
    assert float(result.sum()) == pytest.approx(1.0, abs=1e-5)
    assert bool((result >= 0).all())
    mean = float((probability[0] * (reward + discount * ATOMS).clamp(-2, 2)).sum())
    assert float(result[0] @ ATOMS) == pytest.approx(mean, abs=1e-4)


def test_both_critics_learn_the_whole_distribution_of_the_lesser() -> None:
    high, low = torch.tensor([0.0, 0, 0, 0, 1]), torch.tensor([0.5, 0, 0, 0, 0.5])  # means 2 and 0
    both = torch.stack([torch.stack([high, low]), torch.stack([low, high])])  # [2, B = 2, Z]
    zero, one = torch.zeros(2), torch.ones(2)
    lesser = critic_target(both, zero, one, ATOMS, lesser=True)
    assert torch.equal(lesser, torch.stack([low, low]).expand(2, 2, 5))
    assert torch.equal(critic_target(both, zero, one, ATOMS, lesser=False), both)


# ---- n-step transitions


def filled(capacity: int, rewards: list[float], **at: int) -> StepRing:
    """One instance, gamma 0.5, whose step t shows t and reaches t + 0.5."""
    ring = StepRing(1, capacity, 5, 3, torch.tensor([0.5]), torch.device("cpu"))
    for t, reward in enumerate(rewards):
        flags = {name: torch.tensor([t == when]) for name, when in at.items() if name != "broken"}
        valid = torch.tensor([t != at.get("broken", -1)])
        obs, reached = torch.full((1, 5), float(t)), torch.full((1, 5), t + 0.5)
        ring.add(step(1, obs=obs, reached=reached, reward=torch.tensor([reward]), valid=valid, **flags))
    return ring


def drawn(ring: StepRing, age: int, n_step: int) -> tuple[float, float, float, float, float]:
    batch = ring.at(torch.tensor([0]), torch.tensor([age]), n_step)
    values = batch.obs[0, 0], batch.reward[0], batch.reached[0, 0], batch.discount[0], batch.weight[0]
    obs, reward, reached, discount, weight = (float(value) for value in values)
    return obs, reward, reached, discount, weight


def test_three_steps() -> None:
    ring = filled(10, [1, 2, 4, 8])
    # 1 + 0.5 * 2 + 0.25 * 4, then the value of what step 2 reached, times 0.125.
    assert drawn(ring, 0, 3) == (0, 3.0, 2.5, 0.125, 1)
    assert drawn(ring, 0, 1) == (0, 1.0, 0.5, 0.5, 1)


def test_steps_end_with_the_task_and_nothing_is_bootstrapped() -> None:
    assert drawn(filled(10, [1, 2, 4, 8], terminated=1), 0, 3) == (0, 2.0, 1.5, 0.0, 1)


def test_steps_end_with_a_time_limit_and_what_was_reached_is_valued() -> None:
    ring = filled(10, [1, 2, 4, 8], truncated=1)
    assert drawn(ring, 0, 3) == (0, 2.0, 1.5, 0.25, 1)
    assert drawn(ring, 2, 3) == (2, 8.0, 3.5, 0.25, 1)  # of the next episode: 4 + 0.5 * 8, and no more is there


def test_the_newest_step_is_followed_by_nothing() -> None:
    ring = filled(3, [1, 2, 4, 8, 16])  # holds steps 2, 3 and 4; 4 lies before 2 in memory
    assert ring.size == 3
    assert drawn(ring, 0, 8) == (2, 4 + 0.5 * 8 + 0.25 * 16, 4.5, 0.125, 1)
    assert drawn(ring, 2, 8) == (4, 16.0, 4.5, 0.5, 1)


def test_no_steps_lead_into_a_broken_one_which_itself_weighs_nothing() -> None:
    ring = filled(10, [1, 2, math.nan, 8], broken=2)
    assert drawn(ring, 0, 4) == (0, 2.0, 1.5, 0.25, 1)
    assert drawn(ring, 2, 4)[4] == 0
    assert drawn(ring, 3, 4) == (3, 8.0, 3.5, 0.5, 1)


def test_draws_are_equal_by_instance_and_of_what_is_there() -> None:
    ring = StepRing(3, 8, 5, 3, torch.tensor([0.5, 0.9, 0.9]), torch.device("cpu"))
    for t in range(4):
        ring.add(step(3, obs=torch.full((3, 5), t + 1.0)))
    batch = ring.sample(50, 2, torch.Generator().manual_seed(0))
    assert batch.row.bincount().tolist() == [50, 50, 50]
    assert set(batch.obs[:, 0].tolist()) == {1, 2, 3, 4}


# ---- normalisers


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30), st.integers(1, 5))
def test_running_moments_are_those_of_everything_seen(values: list[float], parts: int) -> None:
    moments, x = RunningMoments(2, 1), torch.tensor(values)
    for part in x.tensor_split(parts):
        moments.update(part[:, None], torch.ones(len(part), dtype=torch.int64))
    assert moments.count.tolist() == [0, len(values)]
    assert float(moments.mean[1, 0]) == pytest.approx(float(x.mean()), abs=1e-2)
    assert float(moments.variance[1, 0]) == pytest.approx(float(x.var(correction=0)), rel=1e-2, abs=1e-1)
    assert (float(moments.mean[0, 0]), float(moments.variance[0, 0])) == (0, 1)  # of which nothing was seen


def test_observations_are_normalised() -> None:
    normaliser = ObsNormaliser(1)
    normaliser.update(torch.tensor([[1.0], [3.0]]))  # mean 2, standard deviation 1
    assert float(normaliser(torch.tensor([4.0]))) == pytest.approx(2 / 1.01)


def test_rewards_are_normalised_by_task_with_a_return_for_each_instance() -> None:
    """Two instances of task 1 with different rewards, one of task 0; gamma 0.5."""
    normaliser = RewardNormaliser(torch.tensor([1, 1, 0]), torch.full((3,), 0.5), 2, limit=10.0)
    none, all_ = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    normaliser.update(torch.tensor([4.0, 0.0, 0.0]), none, all_)  # G: 4, 0; 0
    normaliser.update(torch.tensor([4.0, 2.0, 0.0]), torch.tensor([True, False, False]), all_)  # G: 6, 2; 0
    # Task 1 has seen 4, 0, 6 and 2: mean 3, variance (1 + 9 + 9 + 1) / 4 = 5. The largest, 6, asks for 0.6 only.
    assert normaliser.scale().tolist() == pytest.approx([0.0, math.sqrt(5)], abs=1e-6)
    # The first has begun anew: G = 100. That asks for 10; 4, 0, 6, 2, 100 and 1 have a standard deviation of 36.8.
    normaliser.update(torch.tensor([100.0, 0.0, 0.0]), none, all_)
    assert float(normaliser.scale()[1]) == pytest.approx(float(torch.tensor([4.0, 0, 6, 2, 100, 1]).std(correction=0)))
    assert normaliser.returns.tolist() == [100, 1, 0]


def test_the_largest_return_fits_the_atoms() -> None:
    normaliser = RewardNormaliser(torch.tensor([0]), torch.ones(1), 1, limit=10.0)
    no, yes = torch.tensor([False]), torch.tensor([True])
    for _ in range(100):  # always 50: no spread at all
        normaliser.update(torch.tensor([50.0]), yes, yes)
    assert float(normaliser.scale()[0]) == pytest.approx(5.0)
    normaliser.update(torch.tensor([math.nan]), yes, no)  # a broken step says nothing
    assert float(normaliser.scale()[0]) == pytest.approx(5.0)


# ---- the whole


def test_the_published_size() -> None:
    """Actor 0.49 M, two critics of 1.35 M: 3.2 M, with 128 observations and a text of 512."""
    table = TaskTable.build(["one"], torch.zeros(1, 512), [16], [0.99], 16)
    config = FastTD3Config()
    actor = sum(p.numel() for p in Actor(config, table, 128).parameters())
    critics = sum(p.numel() for p in Critics(config, 640, 16).parameters())
    assert (actor, critics) == (494_480, 2 * 1_354_853)


def test_actions_fit_the_task_and_every_instance_has_its_noise(table: TaskTable) -> None:
    learner = FastTD3(replace(SMALL, max_noise=2.0), table, torch.tensor([0, 1, 1]), 5, seed=0)
    before = learner._sigma.clone()
    assert len(set(before.flatten().tolist())) == 3
    actions = torch.stack([learner.act(torch.randn(3, 5)) for _ in range(20)])
    assert bool((actions.abs() <= 1).all())
    assert bool((actions[:, 0, 1:] == 0).all())
    assert bool((actions[:, 1:, 2] == 0).all())
    learner.observe(step(3, truncated=torch.tensor([False, True, False])))
    assert (learner._sigma != before).flatten().tolist() == [False, True, False]


def test_updates_are_counted_and_better_actions_are_found(table: TaskTable) -> None:
    tasks = torch.tensor([0] * 8 + [1] * 8)
    config = replace(SMALL, lr=1e-2, max_noise=0.8, v_min=-1.0, v_max=1.0, normalise_rewards=False)
    learner = FastTD3(config, table, tasks, 5, seed=0)
    obs, over = torch.zeros(16, 5), torch.ones(16, dtype=torch.bool)
    metrics = None
    for _ in range(60):
        action = learner.act(obs)
        metrics = learner.observe(step(16, action=action, reward=-action[:, 0], terminated=over))
    assert metrics is not None
    assert set(metrics) == {"critic_loss", "actor_loss", "target_value", "reward_scale"}
    assert learner.updates == 2 * 59
    assert float(learner.policy.best_action(obs, tasks)[:, 0].max().detach()) < -0.5


def test_only_the_critics_have_targets_which_follow_after_every_update(table: TaskTable) -> None:
    learner = FastTD3(
        replace(SMALL, target_rate=1.0, updates_per_step=1, start_steps=1), table, torch.tensor([0, 1]), 5, seed=0
    )
    learner.act(torch.zeros(2, 5))
    learner.observe(step(2, reward=torch.ones(2)))
    state = learner.state_dict()
    critics = {name: value for name, value in state.items() if name.startswith("critics.")}
    assert critics
    for name, value in critics.items():
        assert torch.equal(value, state[f"targets.{name.removeprefix('critics.')}"])


def test_a_restored_learner_acts_the_same(table: TaskTable) -> None:
    first = FastTD3(SMALL, table, torch.tensor([0, 1]), 5, seed=0)
    for _ in range(4):
        action = first.act(torch.randn(2, 5, generator=torch.Generator().manual_seed(1)))
        first.observe(step(2, obs=torch.randn(2, 5), reward=action.sum(-1), action=action))
    second = FastTD3(SMALL, table, torch.tensor([0, 1]), 5, seed=9)
    second.load_state_dict(first.state_dict())
    obs = torch.randn(2, 5)
    assert torch.equal(first.policy.best_action(obs, first.tasks), second.policy.best_action(obs, second.tasks))
    assert second.updates == first.updates == 6
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"v_min": 3.0, "v_max": 3.0}, "v_min"),
        ({"min_noise": 0.5}, "min_noise"),
        ({"v_min": 1.0}, "v_min"),
        ({"n_step": 200}, "n_step"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_impossible_settings_are_named(change: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        replace(SMALL, **change)  # type: ignore[arg-type]
