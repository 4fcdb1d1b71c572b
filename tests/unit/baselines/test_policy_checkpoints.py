"""Files of learners: what is written comes back, and what is damaged or of another kind is refused with its reason."""

import json
from pathlib import Path

import pytest
import torch

from newt.agent import blobs
from newt.agent.checkpoints import CheckpointError, load_checkpoint
from newt.agent.task_table import TaskTable
from newt.baselines.checkpoints import load_policy, save_policy
from newt.baselines.config import Config, FastTD3Config, PPOConfig
from newt.baselines.headers import is_policy, read_policy_header
from newt.baselines.learners import make_learner

CONFIGS = (
    PPOConfig(hidden_dim=8, rollout_steps=4, minibatches=2, epochs=1),
    FastTD3Config(actor_dim=8, critic_dim=8, batch_size=8),
)
INFO = {"env_steps": 70, "updates": 3, "text_encoder": "some", "counts": {"one": [70, 2]}}


@pytest.fixture
def wide() -> TaskTable:
    return TaskTable.build(["one", "two"], torch.randn(2, 4), [1, 2], [0.9, 0.5], 16)


def written(path: Path, table: TaskTable, config: Config) -> Path:
    save_policy(path, make_learner(config, table, torch.tensor([0, 1]), 128, seed=3), config, table, INFO)
    return path


@pytest.mark.parametrize("config", CONFIGS, ids=["ppo", "fasttd3"])
def test_a_learner_comes_back(tmp_path: Path, wide: TaskTable, config: Config) -> None:
    path = written(tmp_path / "x.safetensors", wide, config)
    learner = make_learner(config, wide, torch.tensor([0, 1]), 128, seed=3)
    checkpoint = load_policy(path)
    assert checkpoint.header == read_policy_header(path)
    assert (checkpoint.header.config, checkpoint.header.tasks, checkpoint.info) == (config, wide.names, INFO)
    assert checkpoint.state.keys() == learner.state_dict().keys()
    obs, task = torch.randn(2, 128), torch.tensor([1, 0])
    policy = checkpoint.policy()
    assert torch.equal(policy.best_action(obs, task), learner.policy.best_action(obs, task))
    assert is_policy(path)


def test_it_acts_for_other_tasks_by_their_texts(tmp_path: Path, wide: TaskTable) -> None:
    checkpoint = load_policy(written(tmp_path / "x", wide, CONFIGS[0]))
    one = TaskTable.build(["new"], wide.embeddings[1:], [2], [0.9], 16)
    obs = torch.randn(3, 128)
    own = checkpoint.policy().best_action(obs, torch.ones(3, dtype=torch.int64))
    assert torch.equal(checkpoint.policy(one).best_action(obs, torch.zeros(3, dtype=torch.int64)), own)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("algorithm", "sac", "algorithm"),
        ("version", 2, "written in format 2, this version reads up to 1: update newt"),
        ("version", "1", "version"),
        ("settings", {"hidden_dim": -1}, "hidden_dim"),
        ("settings", {"hidden_dim": 16}, "do not fit"),
        ("obs_dim", 64, "obs_dim"),
        ("language_dim", 5, "table.embeddings"),
        ("tasks", {"names": ["one"], "action_dims": [1], "discounts": [2.0]}, "discounts"),
        ("info", {"env_steps": -1}, "env_steps"),
        ("format", "newt-checkpoint", "format"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, wide: TaskTable, field: str, value: object, named: str) -> None:
    path = written(tmp_path / "x", wide, CONFIGS[0])
    text, tensors = blobs.unpack(path.read_bytes(), "x")
    path.write_bytes(blobs.pack({**json.loads(text), field: value}, tensors))
    with pytest.raises(CheckpointError, match=named):
        load_policy(path)


def test_what_a_later_version_adds_is_left_aside(tmp_path: Path, wide: TaskTable) -> None:
    path = written(tmp_path / "x", wide, CONFIGS[0])
    text, tensors = blobs.unpack(path.read_bytes(), "x")
    document = json.loads(text)
    document = {**document, "later": 1, "settings": {**document["settings"], "later": 1}}
    path.write_bytes(blobs.pack(document, tensors))
    assert load_policy(path).header.config == CONFIGS[0]


def test_damage_and_other_kinds_are_refused(tmp_path: Path, wide: TaskTable) -> None:
    path = written(tmp_path / "x", wide, CONFIGS[1])
    with pytest.raises(CheckpointError, match="expected newt-checkpoint"):
        load_checkpoint(path)
    blob = bytearray(path.read_bytes())
    blob[-5] ^= 1
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match="damaged"):
        load_policy(path)
    path.write_bytes(blob[: len(blob) // 2])
    with pytest.raises(CheckpointError, match="complete"):
        load_policy(path)
