import json

import pytest
import torch

from newt.agent import ConfigError, ModelConfig, PlanConfig, TaskTable, TrainConfig


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig.from_size("B", image_dim=768),
        TrainConfig(warmup_updates=5000, target_critic="online"),
        PlanConfig(num_samples=64, num_elites=8),
    ],
)
def test_settings_survive_json(config: ModelConfig | TrainConfig | PlanConfig) -> None:
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_impossible_settings_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown TrainConfig settings"):
        TrainConfig.from_dict({"learning_rate": 1.0})
    with pytest.raises(ConfigError, match="latent_dim 20 must be a multiple"):
        ModelConfig(latent_dim=20)
    with pytest.raises(ConfigError, match="num_critics"):
        ModelConfig(num_critics=1)
    with pytest.raises(ConfigError, match="unknown model size 'XXL'"):
        ModelConfig.from_size("XXL")
    with pytest.raises(ConfigError, match="lr must be positive"):
        TrainConfig(lr=float("nan"))
    with pytest.raises(ConfigError, match="num_elites"):
        PlanConfig(num_samples=32)


def test_constraint_schedule() -> None:
    config = PlanConfig()
    weights = {
        step: config.constraint_weight(step)
        for step in (0, 2_000_000, 5_000_000, 7_000_000, 10_000_000, 12_000_000, 50_000_000)
    }
    assert weights == pytest.approx({0: 1, 2e6: 1, 5e6: 0.7, 7e6: 0.5, 10e6: 0.2, 12e6: 0, 50e6: 0})
    assert config.constraint_weight(None) == 0
    assert PlanConfig(constrained=False).constraint_weight(0) == 0


def test_task_table_masks_and_refusals() -> None:
    table = TaskTable.build(["a", "b"], torch.zeros(2, 3), [1, 3], [0.9, 1.0], max_action_dim=4)
    assert table.masks.tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]
    assert table.index("b") == 1
    with pytest.raises(KeyError, match="'c' is not in this agent's table"):
        table.index("c")
    with pytest.raises(ValueError, match="action_dims must lie in"):
        TaskTable.build(["a"], torch.zeros(1, 3), [17], [0.9])
    with pytest.raises(ValueError, match="distinct"):
        TaskTable.build(["a", "a"], torch.zeros(2, 3), [1, 1], [0.9, 0.9])
    with pytest.raises(ValueError, match="discounts"):
        TaskTable.build(["a"], torch.zeros(1, 3), [1], [0.0])
