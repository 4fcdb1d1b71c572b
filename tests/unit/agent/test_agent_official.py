from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from newt.agent.config import ModelConfig
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.official.names import from_official, official_names, to_official

MakeModel = Callable[..., WorldModel]


def test_published_weights_round_trip_through_a_file(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    path = tmp_path / "10_000_000.pt"
    published = {f"module.{name}": t for name, t in to_official(model.state_dict(), model.config).items()}
    torch.save({"model": published}, path)
    loaded = torch.load(path, weights_only=True)["model"]
    assert loaded["module._Qs.target._Qs.2.1.ln.weight"].shape == (40,)
    torch.testing.assert_close(loaded["module._Qs.online._Qs.1.0.weight"], model.critics.layer(0).weight[1].detach())
    other = make_model(seed=5)
    other.load_state_dict(from_official(loaded, model.config))
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    del loaded["module._pi.2.bias"]
    with pytest.raises(KeyError, match=r"_pi\.2\.bias"):
        from_official(loaded, model.config)


@pytest.mark.parametrize(("size", "tensors"), [("S", 104), ("B", 144), ("L", 148), ("XL", 192)])
def test_published_tensor_counts(size: str, tensors: int) -> None:
    names = official_names(ModelConfig.from_size(size))
    flat = [name for group in names.values() for name in group]
    assert len(flat) == len(set(flat)) == tensors - 4  # besides task table, masks and two constants


def test_published_number_count_of_size_l() -> None:
    config = ModelConfig.from_size("L")
    table = TaskTable.build([str(i) for i in range(200)], torch.zeros(200, 512), [4] * 200, [0.99] * 200)
    assert table.masks.shape == (200, 16)
    with torch.device("meta"):
        model = WorldModel(config, table)
    numbers = sum(tensor.numel() for tensor in model.state_dict().values())
    assert numbers + 200 * 512 + 200 * 16 + 2 == 31_578_361
