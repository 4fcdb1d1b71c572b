import math
from pathlib import Path

import pytest
import torch

from newt.agent.batch import UpdateBatch, draw_noise
from newt.agent.checkpoints import load_checkpoint, save_checkpoint, weights_from_bytes, weights_to_bytes
from newt.agent.config import ConfigError, ModelConfig, PlanConfig, TrainConfig
from newt.agent.planning import Planner
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel, parameter_counts
from newt.baselines.bc import CloneUpdater, cloning_loss

SIZES = {"latent_dim": 16, "encoder_dim": 24, "encoder_layers": 2, "mlp_dim": 32, "obs_dim": 6, "action_dim": 4}
CONFIG = ModelConfig.from_dict({**SIZES, "language_dim": 5, "policy_only": True})


def build_model(seed: int = 0) -> WorldModel:
    embeddings = torch.randn(2, 5, generator=torch.Generator().manual_seed(3))
    table = TaskTable.build(["reach", "push"], embeddings, [2, 4], [0.9, 0.9], max_action_dim=4)
    return WorldModel(CONFIG, table, torch.Generator().manual_seed(seed))


def build_batch(rows: int = 64, seed: int = 1) -> UpdateBatch:
    """Of an expert whose actions are tanh of the first observed numbers, the other way round in `push`."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(4, rows, 6, generator=generator)
    task = torch.arange(rows) % 2
    action = torch.tanh(obs[:-1, :, :4]) * (1 - 2 * task)[:, None]
    return UpdateBatch(obs, action, torch.zeros(3, rows), torch.zeros(3, rows, dtype=torch.bool), task)


def test_the_loss_is_the_one_worked_by_hand() -> None:
    """Two tasks of 2 and 4 valid entries; a policy whose mean is atanh(0.5) everywhere and whose noise is 0."""
    model = build_model()
    last = model.policy_head.layer(2)
    with torch.no_grad():
        last.weight.zero_()
        last.bias[:4] = math.atanh(0.5)
        last.bias[4:] = 0.0  # log std: -4
    action = torch.zeros(3, 2, 4)
    action[:, 0] = torch.tensor([0.5, 0.1, 0.9, 0.9])  # the last two are not of the task
    action[:, 1] = torch.tensor([0.5, 0.5, 0.5, -0.5])
    batch = UpdateBatch(
        torch.randn(4, 2, 6), action, torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.bool), torch.tensor([0, 1])
    )
    noise = draw_noise(model, 2, 3, torch.tensor(0), pretrain=True)
    assert noise.bc_policy is not None
    noise.bc_policy.zero_()
    loss, latents, metrics = cloning_loss(model, TrainConfig(entropy_coef=0.01), batch, noise)
    # reach: (0 + 0.4^2) / 2 = 0.08; push: (0 + 0 + 0 + 1) / 4 = 0.25
    assert float(metrics["bc"]) == pytest.approx((0.08 + 0.25) / 2, abs=1e-6)
    # log density at the mean, -log sigma - log sqrt(2 pi), is 4 - 0.918939 on valid entries and -0.918939 on others;
    # times -n: reach -2 (2 * 4 - 4 * 0.918939) = -8.648490, push -4 (4 * 4 - 4 * 0.918939) = -49.296979
    entropy = (-8.648490 - 49.296979) / 2
    assert float(metrics["policy_scaled_entropy"]) == pytest.approx(entropy, abs=1e-4)
    assert float(loss.detach()) == pytest.approx(0.165 - 0.01 * entropy, abs=1e-5)
    assert latents.shape == (3, 2, 16)


def test_there_are_an_encoder_and_a_policy_and_nothing_else() -> None:
    model = build_model()
    assert {name.split(".")[0] for name in model.state_dict()} == {"encoder", "policy_head"}
    # affine and norm by hand: encoder 11 -> 24 -> 16, policy 21 -> 32 -> 32 -> 8
    encoder = 12 * 24 + 2 * 24 + 25 * 16 + 2 * 16
    policy = 22 * 32 + 2 * 32 + 33 * 32 + 2 * 32 + 33 * 8
    assert parameter_counts(model) == {"encoder": encoder, "policy": policy, "total": encoder + policy}
    assert CONFIG.parameters() == encoder + policy


def test_it_learns_what_the_expert_does_in_each_task() -> None:
    updater = CloneUpdater(build_model(), TrainConfig(lr=3e-3, encoder_lr_factor=1.0))
    first = float(updater.pretrain_update(build_batch(seed=100))["bc"])
    for seed in range(150):
        metrics = updater.pretrain_update(build_batch(seed=seed))
    assert float(metrics["bc"]) < 0.15 * first
    with pytest.raises(RuntimeError, match="no online phase"):
        updater.rl_update(build_batch())


def test_a_checkpoint_goes_on_to_the_bit_and_acts(tmp_path: Path) -> None:
    updater = CloneUpdater(build_model(), TrainConfig(), seed=5)
    updater.pretrain_update(build_batch(seed=1))
    save_checkpoint(tmp_path / "bc.safetensors", updater)
    checkpoint = load_checkpoint(tmp_path / "bc.safetensors")
    again = checkpoint.updater(kind=CloneUpdater)
    for each in (updater, again):
        each.pretrain_update(build_batch(seed=2))
    state = updater.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())

    served = weights_from_bytes(weights_to_bytes(updater.model))
    obs, task, seeds = torch.randn(5, 6), torch.arange(5) % 2, torch.arange(5)
    planner = Planner(served, PlanConfig())
    action = planner.policy(obs, task, seeds=seeds, explore=False)
    expected = updater.model.policy(updater.model.encode(obs, task), task, torch.zeros(5, 4)).mean_action
    assert torch.allclose(action, expected, atol=1e-5)
    with pytest.raises(ValueError, match="no world model to plan with"):
        planner.plan(obs, task, seeds=seeds)


def test_a_width_is_needed_to_learn_task_vectors() -> None:
    with pytest.raises(ConfigError, match="learned_embeddings"):
        ModelConfig.from_dict({**SIZES, "language_dim": 0, "learned_embeddings": True})
