"""When a run's updates begin to be computed by compiled code, and when they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from structlog.testing import capture_logs
from torch._dynamo.utils import counters

from newt.agent import code_maker
from newt.agent.batch import UpdateBatch
from newt.agent.distributed import SOLO, Ranks
from newt.agent.recorded import WARM_UPS
from newt.agent.update import Updater
from newt.runs.spec import RunSpec
from services.learner.data_folder import DataFolder
from services.learner.training.agents import fresh_model
from services.learner.training.update_code import UpdateCode

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _traced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without minutes of code generation, and without a priority that the process would keep."""
    monkeypatch.setattr(UpdateCode, "backend", "aot_eager")
    monkeypatch.setattr(code_maker, "NICENESS", 0)


def spec(**resources: Any) -> RunSpec:
    return RunSpec.model_validate(
        {
            "tasks": ["mujoco-reacher"],
            "model": {"size": "XS", "latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "encoder_layers": 1},
            "train": {"horizon": 1},
            "plan": {"horizon": 1},
            "algorithm": {"name": "tdmpc2"},  # which has one phase
            "schedule": {"total_env_steps": 1000, "seed_env_steps": 200, "updates_per_env_step": 1.0},
            "resources": resources,
        }
    )


def updater(of: RunSpec) -> Updater:
    return Updater(fresh_model(of, None), of.train_settings())


def batch(of: Updater) -> UpdateBatch:
    config = of.model.config
    return UpdateBatch(
        obs=torch.zeros(2, 4, config.obs_dim),
        action=torch.zeros(1, 4, config.action_dim),
        reward=torch.zeros(1, 4),
        terminated=torch.zeros(1, 4, dtype=torch.bool),
        task=torch.zeros(4, dtype=torch.int64),
    )


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def made(code: UpdateCode) -> bool:
    assert code._maker is not None
    return code._maker.wait(300)


def test_code_is_used_from_a_checkpoint_on(tmp_path: Path) -> None:
    own = updater(asked := spec(compile=True))
    code = UpdateCode(own, asked, DataFolder(tmp_path), SOLO, used=False)
    code.change()
    assert not code.used  # it is not made yet
    code.begin(batch(own))
    own.rl_update(batch(own))
    assert made(code)
    assert not code.used  # no checkpoint yet
    code.change()
    assert code.used
    there = graphs()
    own.rl_update(batch(own))
    assert graphs() == there > 0


def test_a_trainer_that_goes_on_with_code_has_it_before_its_first_update(tmp_path: Path) -> None:
    own = updater(asked := spec(compile=True))
    code = UpdateCode(own, asked, DataFolder(tmp_path), SOLO, used=True)
    code.begin(batch(own))
    there = graphs()
    own.rl_update(batch(own))
    assert code.used
    assert graphs() == there > 0


class OtherIsNotReady(Ranks):
    """Two ranks, the other of which has no code."""

    def agree(self, word: int) -> int:
        return max(word, 1)


def test_nobody_changes_before_all_can(tmp_path: Path) -> None:
    own = updater(asked := spec(compile=True))
    code = UpdateCode(own, asked, DataFolder(tmp_path), OtherIsNotReady(), used=False)
    code.begin(batch(own))
    assert made(code)
    code.change()
    assert not code.used


@pytest.mark.parametrize("resources", [{}, {"compile": False}])
def test_on_a_cpu_it_has_to_be_asked_for(tmp_path: Path, resources: dict[str, Any]) -> None:
    own = updater(asked := spec(**resources))
    code = UpdateCode(own, asked, DataFolder(tmp_path), SOLO, used=False)
    before = graphs()
    code.begin(batch(own))
    code.change()
    own.rl_update(batch(own))
    assert not code.used
    assert graphs() == before


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    on_gpu = Ranks(device=torch.device("cuda"))
    for resources, ranks, told in (({"compile": True}, SOLO, True), ({}, on_gpu, False)):
        own = updater(asked := spec(**resources))
        code = UpdateCode(own, asked, DataFolder(tmp_path), ranks, used=True)
        assert ("g++" in code.missing) is told  # nobody is told what he has not asked for
        code.begin(batch(own))
        code.change()
        own.rl_update(batch(own))
        assert not code.used


def test_updates_are_recorded_if_that_is_asked_for(tmp_path: Path) -> None:
    for resources, expected in (({}, []), ({"graphs": True}, ["recorded"])):
        own = updater(asked := spec(**resources))
        UpdateCode(own, asked, DataFolder(tmp_path), SOLO, used=False)
        with capture_logs() as logs:
            for _ in range(WARM_UPS + 1):
                own.rl_update(batch(own))
        assert [entry["event"] for entry in logs] == expected
    with pytest.raises(ValidationError, match="updates of 2 processes cannot be recorded"):
        spec(graphs=True, processes=2)


def test_the_setting_left_open_is_not_stored() -> None:
    """The version before knows only true and false."""
    assert "compile" not in spec().model_dump(mode="json")["resources"]
    for value in (True, False):
        assert spec(compile=value).model_dump(mode="json")["resources"]["compile"] is value
