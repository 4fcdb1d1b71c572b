"""PPO, every formula against numbers worked by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from newt.agent.task_table import TaskTable
from newt.baselines.config import UNTUNED_PPO, PPOConfig
from newt.baselines.ppo import (
    PPO,
    PPOPolicy,
    advantages,
    normal_log_prob,
    policy_loss,
    tanh_correction,
    value_loss,
)
from newt.baselines.vector import Transition

SMALL = PPOConfig(hidden_dim=8, rollout_steps=4, minibatches=2, epochs=2)


def column(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)[:, None]


def transition(rows: int, obs_dim: int = 5, **given: Tensor) -> Transition:
    no = torch.zeros(rows, dtype=torch.bool)
    values = {
        "obs": torch.zeros(rows, obs_dim),
        "action": torch.zeros(rows, 3),
        "reward": torch.zeros(rows),
        "reached": torch.zeros(rows, obs_dim),
        "terminated": no,
        "truncated": no,
        "valid": ~no,
    }
    return Transition(**(values | given))


def test_advantages_inside_of_an_episode() -> None:
    # gamma 0.5, lambda 0.8: delta_1 = 2 + 0.5 * 4 - 3 = 1;  delta_0 = 1 + 0.5 * 3 - 2 = 0.5; A_0 = 0.5 + 0.4 * 1
    found = advantages(column(1, 2), column(2, 3), column(3, 4), flags(0, 0), torch.tensor([0.5]), 0.8)
    assert found.squeeze(1).tolist() == pytest.approx([0.9, 1.0])


def test_nothing_is_carried_over_the_end_of_an_episode() -> None:
    # The first step ends an episode with the value 3 of what it reached: delta_0 = 0.5 and no more.
    found = advantages(column(1, 2), column(2, 3), column(3, 4), flags(1, 0), torch.tensor([0.5]), 0.8)
    assert found.squeeze(1).tolist() == pytest.approx([0.5, 1.0])
    # Where nothing is bootstrapped, delta_0 = 1 - 2.
    found = advantages(column(1, 2), column(2, 3), column(0, 4), flags(1, 0), torch.tensor([0.5]), 0.8)
    assert found.squeeze(1).tolist() == pytest.approx([-1.0, 1.0])


def test_every_instance_has_its_tasks_discount() -> None:
    ones, zeros = torch.ones(1, 2), torch.zeros(1, 2)
    found = advantages(zeros, zeros, ones, zeros.bool(), torch.tensor([0.9, 0.5]), 0.95)
    assert found.tolist() == [[pytest.approx(0.9), pytest.approx(0.5)]]


def test_log_density_of_a_tanh_normal_is_its_integrals_derivative() -> None:
    mask = torch.ones(1, dtype=torch.float64)
    mean, log_std = torch.tensor([0.3], dtype=torch.float64), torch.tensor([-0.7], dtype=torch.float64)

    def below(action: float) -> float:  # P(tanh(u) < action)
        z = (math.atanh(action) - 0.3) / math.exp(-0.7)
        return 0.5 * (1 + math.erf(z / math.sqrt(2)))

    for action in (-0.9, 0.0, 0.4, 0.99):
        u = torch.tensor([math.atanh(action)], dtype=torch.float64)
        found = float(normal_log_prob(u, mean, log_std, mask) - tanh_correction(u, mask))
        h = 1e-6
        assert found == pytest.approx(math.log((below(action + h) - below(action - h)) / (2 * h)), abs=1e-4)


def test_log_density_by_hand() -> None:
    # u = 1, mu = 0, sigma = 1: log N = -0.5 - 0.9189385;  log(1 - tanh(1)^2) = log 0.4199743 = -0.8675617
    u, mask = torch.ones(2), torch.tensor([1.0, 0.0])  # the second entry does not count
    assert float(normal_log_prob(u, torch.zeros(2), torch.zeros(2), mask)) == pytest.approx(-1.4189385)
    assert float(tanh_correction(u, mask)) == pytest.approx(-0.8675617)
    assert math.isfinite(float(tanh_correction(torch.full((1,), 60.0), torch.ones(1))))  # 1 - tanh^2 is 0 there


@pytest.mark.parametrize(
    ("advantage", "ratio", "expected"),
    [
        (2.0, 1.5, -2.4),  # a gain counts up to the ratio 1.2
        (2.0, 0.5, -1.0),  # a loss of probability of what was good counts in full
        (-2.0, 0.5, 1.6),  # what was bad is worth no less than the ratio 0.8
        (-2.0, 1.5, 3.0),
        (2.0, 1.1, -2.2),
    ],
)
def test_clipped_policy_loss(advantage: float, ratio: float, expected: float) -> None:
    loss = policy_loss(torch.tensor([advantage]), torch.tensor([math.log(ratio)]), 0.2)
    assert float(loss) == pytest.approx(expected)


def test_clipped_value_loss() -> None:
    # v_old = 1, target 2. v = 1.8: unclipped 0.04, clipped to 1.2: 0.64, which is more. v = 0.5: 2.25 against 1.44.
    value, old, target = torch.tensor([1.8, 0.5]), torch.ones(2), torch.full((2,), 2.0)
    assert float(value_loss(value, old, target, 0.2)) == pytest.approx(0.5 * (0.64 + 2.25) / 2)
    assert float(value_loss(value, old, target, None)) == pytest.approx(0.5 * (0.04 + 2.25) / 2)


@pytest.mark.parametrize(("bootstrap", "expected"), [(True, 0.5 + 0.9 * 3.0 - 3.0), (False, 0.5 - 3.0)])
def test_a_time_limit_is_bootstrapped_or_not(table: TaskTable, bootstrap: bool, expected: float) -> None:
    """A rollout of one step, cut off by the time limit, with a critic that says 3 of everything."""
    config = PPOConfig(
        hidden_dim=4, rollout_steps=1, minibatches=1, epochs=1, reward_scale=0.5, bootstrap_truncated=bootstrap
    )
    learner = PPO(config, table, torch.tensor([0, 0]), 5, seed=0)
    constant(learner, 3.0)
    seen: dict[str, Tensor] = {}
    learner._update = lambda batch: seen.update(batch) or {}  # type: ignore[method-assign, func-returns-value]
    learner.act(torch.zeros(2, 5))
    learner.observe(transition(2, reward=torch.ones(2), truncated=torch.ones(2, dtype=torch.bool)))
    assert seen["advantage"].tolist() == pytest.approx([expected] * 2)
    assert seen["target"].tolist() == pytest.approx([expected + 3.0] * 2)


def test_a_termination_is_never_bootstrapped_and_a_broken_step_not_learnt(table: TaskTable) -> None:
    config = PPOConfig(hidden_dim=4, rollout_steps=2, minibatches=1, epochs=1, reward_scale=1.0, gae_lambda=1.0)
    learner = PPO(config, table, torch.tensor([0, 1, 1]), 5, seed=0)
    constant(learner, 3.0)
    seen: dict[str, Tensor] = {}
    learner._update = lambda batch: seen.update(batch) or {}  # type: ignore[method-assign, func-returns-value]
    learner.act(torch.zeros(3, 5))
    learner.observe(transition(3, reward=torch.tensor([1.0, 1.0, 1.0]), terminated=torch.tensor([True, False, False])))
    learner.act(torch.zeros(3, 5))
    broken = torch.tensor([True, True, False])
    learner.observe(transition(3, reward=torch.tensor([1.0, 1.0, math.nan]), valid=broken))
    by_row = {(int(t), round(float(a), 4)) for t, a in zip(seen["task"], seen["advantage"], strict=True)}
    # Row 0: 1 - 3, then 1 + 0.9 * 3 - 3. Row 1, gamma 0.5: delta = -0.5 twice, so -0.75 and -0.5. Row 2: -0.5 alone.
    assert by_row == {(0, -2.0), (0, 0.7), (1, -0.75), (1, -0.5)}
    assert len(seen["task"]) == 5


def constant(learner: PPO, value: float) -> None:
    """Makes the critic say one number."""
    last = learner.policy.critic[-1]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[operator, union-attr]
        last.bias.fill_(value)  # type: ignore[operator, union-attr]


def test_actions_fit_the_task(table: TaskTable) -> None:
    for config in (SMALL, UNTUNED_PPO):
        learner = PPO(config, table, torch.tensor([0, 1]), 5, seed=0)
        with torch.no_grad():
            learner.policy.log_std.fill_(1.5)
        action = torch.stack([learner.act(torch.randn(2, 5)) for _ in range(3)])
        assert bool((action.abs() <= 1).all())
        assert bool((action[:, 0, 1:] == 0).all())
        assert bool((action[:, 1, 2] == 0).all())
        assert bool((action[:, 1, :2] != 0).all())


def test_the_published_size() -> None:
    """0.5 M parameters upstream and 3.5 M in the paper: with 128 observations and a text of 512."""
    table = TaskTable.build(["one"], torch.zeros(1, 512), [16], [0.99], 16)

    def size(config: PPOConfig) -> int:
        return sum(p.numel() for p in PPOPolicy(config, table, 128).parameters())

    # (640 + 1) * 1024 + 1025 * 1024 twice, 1025 * 16, 1025, and 16 deviations.
    assert size(PPOConfig()) == 3_429_409
    assert size(UNTUNED_PPO) == 464_161


def test_updates_are_counted_and_better_actions_become_likely(table: TaskTable) -> None:
    config = replace(SMALL, lr=1e-2, reward_scale=1.0)
    tasks = torch.zeros(32, dtype=torch.int64)
    learner = PPO(config, table, tasks, 5, seed=0)
    obs = torch.zeros(32, 5)
    metrics = None
    for _ in range(4 * 30):
        action = learner.act(obs)
        metrics = learner.observe(transition(32, action=action, reward=-10 * (action[:, 0] - 0.7).square())) or metrics
    assert metrics is not None
    assert set(metrics) >= {"policy_loss", "value_loss", "approx_kl", "clip_fraction", "explained_variance"}
    assert learner.updates == 30 * 4
    assert float(learner.policy.best_action(obs, tasks)[0, 0].detach()) == pytest.approx(0.7, abs=0.2)


def test_a_restored_learner_goes_on_to_the_bit(table: TaskTable) -> None:
    def rollout(learner: PPO) -> Tensor:
        for step in range(4):
            action = learner.act(torch.full((2, 5), float(step)))
            learner.observe(transition(2, reward=action.sum(-1)))
        return learner.policy.best_action(torch.ones(2, 5), learner.tasks)

    first = PPO(SMALL, table, torch.tensor([0, 1]), 5, seed=0)
    rollout(first)
    second = PPO(SMALL, table, torch.tensor([0, 1]), 5, seed=9)
    second.load_state_dict(first.state_dict())
    assert second.updates == first.updates == 4
    assert torch.equal(rollout(first), rollout(second))
    with pytest.raises(ValueError, match="do not fit"):
        PPO(UNTUNED_PPO, table, torch.tensor([0, 1]), 5, seed=0).load_state_dict(first.state_dict())
