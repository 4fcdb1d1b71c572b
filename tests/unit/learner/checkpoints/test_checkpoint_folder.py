from __future__ import annotations

from pathlib import Path

import pytest
import torch

from newt.agent.checkpoints import copied_checkpoint
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from services.learner.checkpoints.folder import CheckpointFolder, name_of
from services.learner.checkpoints.scores import CheckpointScore, note_score


@pytest.fixture
def updater() -> Updater:
    table = TaskTable.build(["reach"], torch.zeros(1, 0), [4], [0.99])
    sizes = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "num_bins": 11}
    return Updater(WorldModel(ModelConfig.from_size("XS", language_dim=0, **sizes), table), TrainConfig())


def _save(folder: CheckpointFolder, updater: Updater, name: str, updates: int) -> Path:
    updater.updates = updates
    return folder.save(name, copied_checkpoint(updater, {"env_steps": 10 * updates, "updates": updates}))


def test_names_tell_the_steps() -> None:
    assert name_of(0, pretrain_updates_left=500, updates=1_500) == "pretraining-1_500"
    assert name_of(0, pretrain_updates_left=0, updates=2_000) == "0"
    assert name_of(1_234_567, pretrain_updates_left=0, updates=9) == "1_234_567"


def test_the_newest_comes_back_whole(tmp_path: Path, updater: Updater) -> None:
    folder = CheckpointFolder(tmp_path)
    _save(folder, updater, "0", 1)
    _save(folder, updater, "10", 5)
    newest = folder.newest()
    assert newest is not None
    name, checkpoint = newest
    assert (name, checkpoint.info["env_steps"], checkpoint.updater().updates) == ("10", 50, 5)
    assert [(c.name, c.env_steps, c.updates) for c in folder.list()] == [("0", 10, 1), ("10", 50, 5)]


def test_old_ones_go_but_not_the_pretrained_one(tmp_path: Path, updater: Updater) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for updates, name in enumerate(["pretraining-1", "0", "10", "20", "30"], start=1):
        _save(folder, updater, name, updates)
    assert [checkpoint.name for checkpoint in folder.list()] == ["0", "20", "30"]


def test_the_best_is_kept_and_has_a_name(tmp_path: Path, updater: Updater) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    with pytest.raises(NotFoundError, match="no best checkpoint"):
        folder.resolve("best")
    scores = {"0": 0.3, "10": 0.9, "20": 0.5, "30": 0.7}
    for updates, (name, score) in enumerate(scores.items(), start=1):
        _save(folder, updater, name, updates)
        note_score(tmp_path, name, CheckpointScore(score=score, kind="periodic", updates=updates))
    _save(folder, updater, "40", 9)
    assert [(c.name, c.score, c.best) for c in folder.list()] == [
        ("0", 0.3, False),
        ("10", 0.9, True),
        ("30", 0.7, False),
        ("40", None, False),
    ]
    assert folder.resolve("best") == "10"
    _save(folder, updater, "10", 99)  # another one of that name, after the run went back
    assert folder.resolve("best") == "30"
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(NotFoundError, match="no best checkpoint"):
        folder.resolve("best")


def test_a_damaged_one_is_passed_over(tmp_path: Path, updater: Updater) -> None:
    folder = CheckpointFolder(tmp_path)
    _save(folder, updater, "10", 1)
    damaged = _save(folder, updater, "20", 2)
    content = bytearray(damaged.read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    newest = folder.newest()
    assert newest is not None
    assert newest[0] == "10"
    with pytest.raises(CorruptDataError, match="sha256"):
        folder.load("20")


def test_a_truncated_one_is_listed_as_broken(tmp_path: Path, updater: Updater) -> None:
    folder = CheckpointFolder(tmp_path)
    path = _save(folder, updater, "10", 1)
    path.write_bytes(path.read_bytes()[:100])
    (broken,) = folder.list()
    assert "safetensors" in str(broken.broken)
    assert folder.newest() is None
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        folder.resolve("newest")


def test_unknown_names_are_refused(tmp_path: Path, updater: Updater) -> None:
    folder = CheckpointFolder(tmp_path)
    _save(folder, updater, "0", 1)
    with pytest.raises(NotFoundError, match="there are: 0"):
        folder.path("10")
    with pytest.raises(InvalidInputError, match="checkpoint"):
        folder.path("../0")
