"""The guide for a robot of one's own: every command and program of it, from top to bottom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from newt.agent.checkpoints import save_checkpoint
from newt.agent.config import ModelConfig, PlanConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.local.models import planner_address
from newt.local.state import read
from newt.tasks.registry import get_task

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs" / "your-own-robot.md"


def blocks() -> list[tuple[str, str]]:
    """Language and text of each block, in order."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


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
    home, found = tmp_path / "home", blocks()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "NEWT_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def call(*command: str) -> str:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    write_checkpoint(tmp_path / "checkpoint-40_050")
    printed: dict[str, str] = {}
    try:
        for language, text in found:
            if language == "bash":
                for line in text.splitlines():
                    words = line.partition("#")[0].split()
                    extra = ["--any-port"] if words[1] == "up" else []  # the documented ones may be in use here
                    printed[" ".join(words)] = call(*words, *extra)
            else:
                state = read(home)
                address = planner_address(state) if state is not None else ""
                printed[text] = call(sys.executable, "-c", text.replace("127.0.0.1:50071", address))
    finally:
        call("newt", "down")
    commands = [command for command in printed if command.startswith("newt")]
    assert len(commands) == 7
    assert "walker-walk" in printed["newt checkpoints inspect checkpoint-40_050"]
    assert "walker" in printed["newt status"]
    assert "walker" in printed["newt serve"]
    program = next(text for text in printed if "Agent.load" in text)
    assert printed[program].count("[") == 10
