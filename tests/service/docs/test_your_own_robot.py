"""The guide for a robot of one's own: every command and program of it, from top to bottom, with the installed wheel.

Ports are free ones (`--any-port`), also where the guide's programs name them. The loop that records is an outline
around a robot, and no block: tests/service/learner/test_robot_runs.py runs it with a simulator in the robot's place.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from guides import Reader, blocks, commands
from installed_wheel import install

from newt.agent.checkpoints import save_checkpoint
from newt.agent.config import ModelConfig, PlanConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.local.models import planner_address
from newt.local.state import read
from newt.tasks.registry import get_task

GUIDE = "your-own-robot"


def write_checkpoint(path: Path) -> None:
    task = get_task("walker-walk")
    table = TaskTable.build([task.name], torch.zeros(1, 0), [task.action_dim], [task.discount])
    sizes = {"latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32, "num_critics": 2, "encoder_layers": 2}
    model = WorldModel(ModelConfig(**sizes, language_dim=0), table, torch.Generator().manual_seed(0))
    plan = PlanConfig(num_samples=48, num_policy_trajectories=4, num_elites=8, iterations=2)
    info = {"env_steps": 40_050, "updates": 7, "guided_tasks": [], "spec": {"plan": plan.to_dict()}}
    save_checkpoint(path, Updater(model, TrainConfig()), info)


@pytest.mark.slow
def test_every_command_of_the_guide_runs(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    reader = Reader(install(tmp_path), folder, tmp_path / "home")
    write_checkpoint(folder / "checkpoint-40_050")
    printed: dict[str, str] = {}
    try:
        for language, text in blocks(GUIDE):
            if language == "bash":
                for words in commands(text):
                    extra = ["--any-port"] if words[1] == "up" else []
                    printed[" ".join(words)] = reader.call(*words, *extra)
            else:
                state = read(reader.home)
                address = planner_address(state) if state is not None else ""
                printed[text] = reader.call("python", "-c", text.replace("127.0.0.1:50071", address))
    finally:
        reader.call("newt", "down")
    assert sum(command.startswith("newt") for command in printed) == 7
    assert "walker-walk" in printed["newt checkpoints inspect checkpoint-40_050"]
    assert "walker" in printed["newt status"]
    assert "walker" in printed["newt serve"]
    program = next(text for text in printed if "Agent.load" in text)
    assert printed[program].count("[") == 10
