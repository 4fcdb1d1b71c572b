"""Task vectors that are trained, as TD-MPC2's: no longer than 1, part of the training state, rows of the task table."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from newt.agent.batch import UpdateBatch
from newt.agent.checkpoints import (
    copied_weights,
    load_checkpoint,
    save_checkpoint,
    weights_from_bytes,
    weights_to_bytes,
)
from newt.agent.config import TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel, parameter_counts

MakeModel = Callable[..., WorldModel]
MakeBatch = Callable[..., UpdateBatch]


def test_rows_are_shortened_to_length_one(make_model: MakeModel) -> None:
    model = make_model(learned_embeddings=True, language_dim=2)
    with torch.no_grad():
        model.task_embeddings.copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4], [-2.0, 0.0], [0.0, 1.0]]))
    model.limit_embeddings()
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [-1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(model.task_embeddings, expected, atol=1e-6)


def test_the_limit_is_that_of_an_embedding_layer(make_model: MakeModel) -> None:
    model = make_model(learned_embeddings=True)
    layer = nn.Embedding(4, 6, max_norm=1.0)
    with torch.no_grad():
        layer.weight.copy_(model.task_embeddings)
    model.limit_embeddings()
    assert torch.allclose(model.task_embeddings, layer(torch.arange(4)), atol=1e-6)


def test_the_model_loss_trains_them_and_they_stay_short(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model(learned_embeddings=True)
    updater = Updater(model, TrainConfig(lr=0.5))
    before = model.task_embeddings.detach().clone()
    for seed in range(3):
        updater.rl_update(make_batch(model, seed=seed))
    assert not torch.equal(model.task_embeddings, before)
    assert float(model.task_embeddings.detach().norm(dim=-1).max()) <= 1 + 1e-6
    assert parameter_counts(model)["embeddings"] == 4 * 6


def test_the_policy_loss_does_not_move_them(make_model: MakeModel, make_batch: MakeBatch) -> None:
    """With only the policy's loss left, whose gradient the policy's optimiser takes alone."""
    model = make_model(learned_embeddings=True)
    model.limit_embeddings()
    updater = Updater(model, TrainConfig(consistency_coef=0, reward_coef=0, value_coef=0))
    before = model.task_embeddings.detach().clone()
    updater.rl_update(make_batch(model))
    assert torch.equal(model.task_embeddings, before)


def test_they_are_stored_resumed_and_chosen_by_task(
    make_model: MakeModel, make_batch: MakeBatch, tmp_path: Path
) -> None:
    model = make_model(learned_embeddings=True)
    updater = Updater(model, TrainConfig(), seed=3)
    updater.rl_update(make_batch(model))
    save_checkpoint(tmp_path / "a.safetensors", updater)
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    own = model.task_embeddings.detach()
    assert torch.equal(checkpoint.table.embeddings, own)

    resumed = checkpoint.updater()
    for each in (updater, resumed):
        each.rl_update(make_batch(model, seed=9))
    state = updater.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())

    rows = checkpoint.table.embeddings[[2, 0]]
    table = TaskTable.build(["spin", "reach"], rows, [1, 2], [0.9, 0.99], max_action_dim=4)
    assert torch.equal(checkpoint.model(table).task_embeddings, rows)
    served = weights_from_bytes(weights_to_bytes(model))
    assert torch.equal(served.task_embeddings, model.task_embeddings)


def test_weights_that_were_copied_are_not_those_of_later_updates(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model(learned_embeddings=True)
    updater = Updater(model, TrainConfig(lr=0.1))
    updater.rl_update(make_batch(model))
    before, pack = model.task_embeddings.detach().clone(), copied_weights(model)
    updater.rl_update(make_batch(model, seed=2))
    served = weights_from_bytes(pack())
    assert torch.equal(served.task_embeddings, before)
    assert torch.equal(served.table.embeddings, before)
