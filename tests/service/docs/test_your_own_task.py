"""The guide for a task of one's own: every command and program of it, from top to bottom, with the installed wheel.

What is not as it stands there: runs are short (`--set`), ports are free ones (`--any-port`), of our domains one is
started (`--domain`), a program plays for the person (`--policy`), and the other machine is this one with another home.
What the guide says of Docker in passing, tests/e2e/test_own_image.py does on an engine.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from guides import Reader, blocks, commands
from installed_wheel import install

from newt.local.ports import free_port

GUIDE = "your-own-task"
SHORT = (
    "model.latent_dim=32",
    "model.encoder_dim=32",
    "model.mlp_dim=32",
    "schedule.total_env_steps=300",
    "schedule.seed_env_steps=150",
    "schedule.pretrain_updates=2",
    "schedule.updates_per_env_step=0.02",
    "demos.scripted_episodes=1",
    "evaluation.episodes_per_task=0",
    "replay.batch_size=16",
)
POLICY = """
import numpy as np

def reach(obs):  # the tip straight to the point, as the expert of the example moves it
    elbow, tip, way = obs[[0, 2]], obs[4:6], obs[6:8]
    jacobian = np.array([[-tip[1], elbow[1] - tip[1]], [tip[0], tip[0] - elbow[0]]])
    return 2.5 * jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + 0.01 * np.eye(2)) @ way
"""


def options(words: list[str]) -> list[str]:
    """What is said besides, of the options that the guide names."""
    match words[1:3]:
        case ["train", _]:
            return [word for setting in SHORT for word in ("--set", setting)]
        case ["up", _]:
            return ["--any-port", "--domain", "metaworld"]
        case ["demos", "record"]:
            return ["--policy", "my_policies:reach", "--episodes", "2", "--all-episodes"]
    return []


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_every_command_of_the_guide_runs(tmp_path: Path) -> None:
    programs = install(tmp_path)
    folder, address = tmp_path / "mine", f"127.0.0.1:{free_port()}"
    folder.mkdir()
    reader = Reader(programs, folder, tmp_path / "home")
    (folder / "my_policies.py").write_text(POLICY)
    serving: subprocess.Popen[str] | None = None
    printed: dict[str, str] = {}
    run = "RUN"
    try:
        for language, text in blocks(GUIDE):
            if language == "python":
                names = "import sys; sys.path.insert(0, 'my_reacher')\nfrom env import ReacherEnv, expert\n"
                printed[text] = reader.call("python", "-c", f"{names}{text}\nprint(TASK)")
                continue
            for words in commands(text):
                said = " ".join(words)
                words = [word.replace("0.0.0.0:50051", address).replace("lab7:50051", address) for word in words]
                words = [run if word == "RUN" else word for word in [*words, *options(words)]]
                if words[:3] == ["newt", "env", "serve"]:
                    there = Reader(programs, folder, tmp_path / "there")
                    serving = there.start(*words)
                    assert serving.stdout is not None
                    assert "newt up --sim my-reacher=THIS-HOST" in serving.stdout.readline()
                    continue
                printed[said] = reader.call(*words)
                if words[1] == "train" and run == "RUN" and "mw-push" in words:
                    run = printed[said].split()[1].rstrip(":")
    finally:
        reader.call("newt", "down")
        if serving is not None:
            serving.send_signal(signal.SIGINT)
            serving.communicate(timeout=60)
    assert len(printed) == 17  # `newt down` and one `newt up` stand there more than once
    assert "0 failed" in printed["newt env check ./my_reacher"]
    assert "score" in printed["newt env play ./my_reacher --agent expert"]
    assert (folder / f"my_reacher-{run}.mp4").stat().st_size > 1_000
    for said in printed:
        if said.startswith("newt train"):
            assert "succeeded" in printed[said], said
    assert "my-reacher" in printed["newt eval RUN my-reacher"]
    assert "0 failed" in printed["newt env check --address lab7:50051"]
    assert (folder / "my-reacher-image" / "Dockerfile").exists()
