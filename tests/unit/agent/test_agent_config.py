import dataclasses
import json
import math

import pytest
import torch

from newt.agent.config import ConfigError, ModelConfig, PlanConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel, parameter_counts


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
    with pytest.raises(ConfigError, match=r"lr must be greater than 0\.0 and at most 1e\+30, got nan"):
        TrainConfig(lr=float("nan"))
    with pytest.raises(ConfigError, match="num_elites"):
        PlanConfig(num_samples=32)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1, 2**63, 2**64, 10**400, "1", True, None, [], {}])
def test_no_number_is_without_bounds(value: object) -> None:
    for kind in (ModelConfig, TrainConfig, PlanConfig):
        for field in dataclasses.fields(kind):
            number = not isinstance(field.default, bool | str | tuple)
            fits = (field.name in ("vmin", "vmax") and value == -1) or (field.name == "lr" and value in (2**63, 2**64))
            if number and not fits:
                with pytest.raises(ConfigError, match=f"^{field.name} must be"):
                    kind.from_dict({field.name: value})


@pytest.mark.parametrize("document", [None, 3, "plan", [["horizon", 3]], {"horizon": {}}, {1: 2}, {"size": 5}])
def test_documents_that_are_no_settings_are_refused(document: object) -> None:
    for kind in (ModelConfig, TrainConfig, PlanConfig):
        with pytest.raises(ConfigError):
            kind.from_dict(document)


@pytest.mark.parametrize("size", ["XS", "S", "B", "L", "XL"])
def test_parameters_are_counted_before_the_model_is_made(size: str) -> None:
    for changes in ({}, {"language_dim": 0}, {"image_dim": 768, "encoder_layers": 1}, {"critic_dim": 320}):
        config = ModelConfig.from_size(size, **changes)
        table = TaskTable.build(["a"], torch.zeros(1, config.language_dim), [3], [0.9])
        assert table.masks.any()
        with torch.device("meta"):
            model = WorldModel(config, table)
        assert parameter_counts(model)["total"] == config.parameters()
    with pytest.raises(ConfigError, match="more than the 251,658,240 that can be published"):
        ModelConfig.from_size(size, mlp_dim=16_384)


def test_critics_can_be_wider_than_the_rest() -> None:
    """Each of two critics has 10 + 2 + 3 inputs, layers of 20 with their norms, and 5 bins."""
    sizes = {"latent_dim": 10, "simnorm_dim": 5, "mlp_dim": 8, "num_critics": 2, "num_bins": 5}
    inputs = {"obs_dim": 4, "action_dim": 2, "language_dim": 3}
    narrow, wide = ModelConfig(**sizes, **inputs), ModelConfig(**sizes, **inputs, critic_dim=20)
    one = (16 * 20 + 2 * 20) + (21 * 20 + 2 * 20) + 21 * 5
    other = (16 * 8 + 2 * 8) + (9 * 8 + 2 * 8) + 9 * 5
    assert wide.parameters() - narrow.parameters() == 2 * (one - other)
    model = WorldModel(wide, TaskTable.build(["a"], torch.zeros(1, 3), [2], [0.9], max_action_dim=2))
    assert parameter_counts(model)["total"] == wide.parameters()
    with pytest.raises(ConfigError, match="num_samples 16384"):
        PlanConfig(num_samples=16_384).check_memory(ModelConfig.from_size("XS", critic_dim=8_192))


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
