from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch.utils._python_dispatch import TorchDispatchMode

from newt.agent.batch import UpdateBatch
from newt.agent.checkpoints import (
    CheckpointError,
    copied_checkpoint,
    copied_weights,
    load_checkpoint,
    save_checkpoint,
    weights_from_bytes,
    weights_info,
    weights_to_bytes,
)
from newt.agent.config import PlanConfig, TrainConfig
from newt.agent.planning import Planner
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel

MakeModel = Callable[..., WorldModel]
MakeBatch = Callable[..., UpdateBatch]


def trained(make_model: MakeModel, make_batch: MakeBatch, **config: object) -> tuple[Updater, UpdateBatch]:
    model = make_model()
    updater, batch = Updater(model, TrainConfig(warmup_updates=7, **config), seed=11), make_batch(model)  # type: ignore[arg-type]
    updater.pretrain_update(batch)
    updater.rl_update(batch)
    return updater, batch


@pytest.mark.parametrize("value_scale", ["shared", "per_task"])
def test_training_continues_exactly(
    make_model: MakeModel, make_batch: MakeBatch, tmp_path: Path, value_scale: str
) -> None:
    updater, batch = trained(make_model, make_batch, value_scale=value_scale)
    path = tmp_path / "agent.safetensors"
    save_checkpoint(path, updater, {"env_steps": 1200, "run": "r1"})
    checkpoint = load_checkpoint(path)
    assert checkpoint.info == {"env_steps": 1200, "run": "r1"}
    assert checkpoint.train_config == updater.config
    assert checkpoint.table.names == updater.model.table.names
    resumed = checkpoint.updater()
    for _ in range(2):
        updater.rl_update(batch)
        resumed.rl_update(batch)
    first, second = updater.state_dict(), resumed.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert list(tmp_path.iterdir()) == [path]


def test_damage_is_refused_wherever_it_is(make_model: MakeModel, make_batch: MakeBatch, tmp_path: Path) -> None:
    updater, _ = trained(make_model, make_batch)
    path = tmp_path / "agent.safetensors"
    save_checkpoint(path, updater)
    content = path.read_bytes()
    load_checkpoint(path)
    for cut in (0, 5, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"agent\.safetensors"):
            load_checkpoint(path)
    for position in (0, 9, 200, len(content) // 3, len(content) - 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x11
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError, match=r"agent\.safetensors"):
            load_checkpoint(path)
    settings = content.replace(b'\\"horizon\\": 3', b'\\"horizon\\": 5')
    assert settings != content
    path.write_bytes(settings)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(path)


def test_other_files_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(save({"a": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match="not written by newt"):
        load_checkpoint(path)
    path.write_bytes(weights_to_bytes(make_model()))
    with pytest.raises(CheckpointError, match="expected newt-checkpoint, got 'newt-weights'"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "missing")


def test_a_failed_write_keeps_the_old_file(
    make_model: MakeModel, make_batch: MakeBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, batch = trained(make_model, make_batch)
    path = tmp_path / "agent.safetensors"
    save_checkpoint(path, updater)
    content = path.read_bytes()
    updater.rl_update(batch)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, updater)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("overrides", [{}, {"language_dim": 0}, {"image_dim": 5}])
def test_a_planner_is_rebuilt_from_bytes_alone(make_model: MakeModel, overrides: dict[str, int]) -> None:
    model = make_model(**overrides)
    data = weights_to_bytes(model, {"weights_version": 12})
    rebuilt = weights_from_bytes(data)
    assert rebuilt.config == model.config
    assert torch.equal(rebuilt.table.embeddings, model.table.embeddings)
    config = PlanConfig(num_samples=16, num_policy_trajectories=2, num_elites=4, iterations=2)
    image = torch.ones(3, 5) if model.config.image_dim else None
    plans = [
        Planner(m, config).plan(torch.ones(3, 10), torch.arange(3), seeds=torch.arange(3), image=image)
        for m in (model, rebuilt)
    ]
    assert torch.equal(plans[0].action, plans[1].action)
    with pytest.raises(CheckpointError, match="weights"):
        weights_from_bytes(data[:-10])


class Operations(TorchDispatchMode):
    """Lists what is asked of a device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_weights_are_copied_in_one_operation_and_packed_later(make_model: MakeModel) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with Operations() as operations:
        pack = copied_weights(model, {"run_id": "r"})
    assert [name for name in operations.seen if name not in ("detach", "view", "split_with_sizes", "alias")] == ["cat"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    data = pack()
    assert weights_info(data) == {"run_id": "r"}
    rebuilt = weights_from_bytes(data).state_dict()
    assert all(torch.equal(rebuilt[name], before[name]) for name in before if not name.startswith("target_critics."))


def test_a_state_is_copied_in_one_operation_for_each_type_and_written_later(
    make_model: MakeModel, make_batch: MakeBatch, tmp_path: Path
) -> None:
    updater, batch = trained(make_model, make_batch)
    save_checkpoint(tmp_path / "at_once", updater, {"run": "r"})
    with Operations() as operations:
        updater.state_dict()
    assert operations.seen.count("cat") == len({value.dtype for value in updater.state_dict().values()})
    assert "clone" not in operations.seen
    write = copied_checkpoint(updater, {"run": "r"})
    updater.rl_update(batch)
    write(tmp_path / "later")
    first, second = load_checkpoint(tmp_path / "at_once"), load_checkpoint(tmp_path / "later")
    assert first.state.keys() == second.state.keys()
    assert all(torch.equal(value, second.state[name]) for name, value in first.state.items())
    assert first.info == second.info
