"""Observations in standard deviations of their task: moments, encoder, planner's copy, storing, other tasks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from newt.agent.batch import UpdateBatch
from newt.agent.checkpoints import load_checkpoint, save_checkpoint, weights_from_bytes, weights_to_bytes
from newt.agent.config import ConfigError, ModelConfig, TrainConfig
from newt.agent.inference import InferenceModel
from newt.agent.moments import sums_by_index, sums_by_product
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.runs.sections import ModelSpec

MakeModel = Callable[..., WorldModel]
MakeBatch = Callable[..., UpdateBatch]


def far_apart(batch: UpdateBatch) -> UpdateBatch:
    """Columns of very different sizes, elsewhere in each task, and one that never moves."""
    sizes = 10.0 ** torch.arange(-3, 7).float()[: batch.obs.shape[-1]].clamp(max=3)
    obs = (batch.obs + batch.task[None, :, None]) * sizes
    obs[..., -1] = 5.0
    object.__setattr__(batch, "obs", obs)
    return batch


def trained(make_model: MakeModel, make_batch: MakeBatch) -> tuple[Updater, list[UpdateBatch]]:
    model = make_model(obs_scaling="per_task")
    updater = Updater(model, TrainConfig(), seed=3)
    batches = [far_apart(make_batch(model, seed=seed)) for seed in range(4)]
    for index, batch in enumerate(batches):
        (updater.pretrain_update if index < 2 else updater.rl_update)(batch)
    return updater, batches


def test_moments_are_those_of_all_observations_of_a_task(make_model: MakeModel, make_batch: MakeBatch) -> None:
    updater, batches = trained(make_model, make_batch)
    moments = updater.model.obs_moments
    for task in range(4):
        seen = np.concatenate([batch.obs[:, batch.task == task].flatten(0, 1).numpy() for batch in batches])
        np.testing.assert_allclose(moments.mean[task].numpy(), seen.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moments.variance[task].numpy(), seen.var(0), rtol=1e-3, atol=1e-8)


def test_the_encoder_sees_deviations_from_the_mean(make_model: MakeModel, make_batch: MakeBatch) -> None:
    updater, batches = trained(make_model, make_batch)
    scaled, obs, task = updater.model, batches[0].obs[0], batches[0].task
    plain = WorldModel(ModelConfig.from_dict({**scaled.config.to_dict(), "obs_scaling": "none"}), scaled.table)
    weights = {name: value for name, value in scaled.state_dict().items() if not name.startswith("obs_moments.")}
    plain.load_state_dict(weights)
    moments = scaled.obs_moments
    by_hand = (obs - moments.mean[task]) / (moments.variance[task].sqrt() + 1e-3)
    assert float(by_hand[:, :9].abs().max()) < 10
    torch.testing.assert_close(scaled.encode(obs, task), plain.encode(by_hand, task))
    # A column that has never moved, and then does, is far out but no more than that.
    moved = obs.clone()
    moved[:, -1] += 100.0
    by_hand[:, -1] = 10.0
    torch.testing.assert_close(scaled.encode(moved, task), plain.encode(by_hand, task))


def test_what_plans_sees_the_same(make_model: MakeModel, make_batch: MakeBatch) -> None:
    updater, batches = trained(make_model, make_batch)
    model, obs, task = updater.model, batches[1].obs[0], batches[1].task
    copy = InferenceModel.from_model(model)
    groups = model.config.latent_dim // model.config.simnorm_dim
    strided = copy.encode(obs, task)[:, 0].unflatten(-1, (model.config.simnorm_dim, groups))
    torch.testing.assert_close(strided.transpose(1, 2).flatten(1), model.encode(obs, task), rtol=1e-5, atol=1e-6)


def test_moments_are_stored_served_and_resumed(make_model: MakeModel, make_batch: MakeBatch, tmp_path: Path) -> None:
    updater, batches = trained(make_model, make_batch)
    save_checkpoint(tmp_path / "a.safetensors", updater)
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    obs, task = batches[0].obs[0], batches[0].task
    expected = updater.model.encode(obs, task)
    for model in (checkpoint.model(), weights_from_bytes(weights_to_bytes(updater.model))):
        assert torch.equal(model.encode(obs, task), expected)
    resumed = checkpoint.updater()
    for each in (updater, resumed):
        each.rl_update(batches[2])
    state = updater.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())


def test_other_tasks_keep_what_is_known_of_theirs(make_model: MakeModel, make_batch: MakeBatch, tmp_path: Path) -> None:
    updater, _ = trained(make_model, make_batch)
    save_checkpoint(tmp_path / "a.safetensors", updater)
    rows = torch.zeros(2, 6)
    table = TaskTable.build(["juggle", "reach"], rows, [1, 2], [0.9, 0.99], max_action_dim=4)
    moments = load_checkpoint(tmp_path / "a.safetensors").model(table).obs_moments
    own = updater.model.obs_moments
    assert torch.equal(moments.mean[1], own.mean[0])
    assert torch.equal(moments.variance[1], own.variance[0])
    assert (float(moments.count[0]), float(moments.mean[0].abs().max()), float(moments.variance[0].min())) == (0, 0, 1)


def test_the_published_agent_sees_raw_numbers(make_model: MakeModel) -> None:
    assert not hasattr(make_model(), "obs_moments")
    assert ModelSpec(size="S").config().obs_scaling == "none"
    scaled = ModelSpec(size="S", obs_scaling="per_task").config()
    assert (scaled.size, scaled.obs_scaling) == ("S", "per_task")
    assert ModelSpec.of(scaled) == ModelSpec(size="S", obs_scaling="per_task")
    with pytest.raises(ConfigError, match="obs_scaling must be one of"):
        ModelConfig.from_dict({"obs_scaling": "shared"})


def test_sums_by_a_product_are_sums() -> None:
    generator = torch.Generator().manual_seed(1)
    values, group = torch.randn(500, 7, generator=generator), torch.randint(5, (500,), generator=generator)
    by_index = sums_by_index(values, group, 6)
    torch.testing.assert_close(sums_by_product(values, group, 6), by_index, rtol=1e-5, atol=1e-4)
    assert torch.equal(by_index[5], torch.zeros(7))
