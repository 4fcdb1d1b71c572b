"""How a checkpoint's agent acts outside of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from newt.acting.trained import as_trained
from newt.agent.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from newt.agent.config import ModelConfig, PlanConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.runs.spec import RunSpec

OWN = ("mw-reach", "walker-walk")  # the first one has a scripted expert
UNSEEN = "walker-run"


def checkpoint(folder: Path, **info: Any) -> Checkpoint:
    sizes = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "encoder_layers": 2, "num_critics": 2}
    table = TaskTable.build(OWN, torch.zeros(2, 0), [4, 6], [0.97, 0.99])
    model = WorldModel(ModelConfig(**sizes, language_dim=0), table, torch.Generator().manual_seed(0))
    save_checkpoint(folder / "agent", Updater(model, TrainConfig()), info)
    return load_checkpoint(folder / "agent")


def spec(**changes: Any) -> dict[str, Any]:
    request = {"tasks": list(OWN), "plan": {"constraint_start": 0, "constraint_duration": 1_000}, **changes}
    return RunSpec.model_validate(request).model_dump(mode="json")


def weights(folder: Path, **info: Any) -> list[float]:
    tasks = (*OWN, UNSEEN)
    config, guidance = as_trained(checkpoint(folder, **info), tasks)
    return [round(float(weight), 6) for weight in guidance.weights(config, tasks)]


def test_a_checkpoint_says_which_tasks_are_guided(tmp_path: Path) -> None:
    assert weights(tmp_path, env_steps=400, spec=spec(), guided_tasks=[OWN[0]]) == [0.6, 0, 0.6]
    assert weights(tmp_path, env_steps=400, spec=spec(), guided_tasks=[]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({}, 0.6),
        ({"init_from": "imported/soup"}, 0.6),
        ({"demos": {"scripted_episodes": 0}}, 0),
        ({"tasks": ["gone"]}, 0),
    ],
)
def test_an_older_one_is_constrained_as_its_run_was(tmp_path: Path, changes: dict[str, Any], weight: float) -> None:
    stored = {**spec(), **changes}
    assert weights(tmp_path, env_steps=400, spec=stored) == [weight] * 3


def test_one_that_tells_nothing_is_planned_for_freely_with_the_published_settings(tmp_path: Path) -> None:
    config, guidance = as_trained(checkpoint(tmp_path, env_steps=0, official={}), OWN)
    assert config == PlanConfig()
    assert guidance.weights(config, OWN).tolist() == [0, 0]
