"""Sources that need packages of their own, and packages that announce sources; pip is the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_wheels import write
from typer.testing import CliRunner

from newt.cli.main import app
from newt.errors import InvalidInputError, PreconditionError
from newt.local import ports
from newt.own import environments, sources
from newt.own.requirements import requirements

ROOT = Path(__file__).parents[3]
ARM = """
import gymnasium, numpy as np

LENGTH = 7


class Arm(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.steps += 1
        return np.array([self.steps / 10, action[0]]), float(action[0]), False, False, {}
"""
DECLARED = """
from newt.own import OwnTask
{more}
TASK = OwnTask(name="{name}", make=Arm, goal="Move the arm to the right.", episode_length=LENGTH{rest})
"""


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only one that pip knows; Newt's home is beside it."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("NEWT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "wheels"


def test_requirements_are_read_without_running_the_file(tmp_path: Path) -> None:
    file = tmp_path / "env.py"
    file.write_text(
        'exit(1)\nT = OwnTask(name="a", requirements=["b>=1", "a"])\nU = own.OwnTask(requirements=("c",))\n'
    )
    (tmp_path / "requirements.txt").write_text("# ours\nb>=1\nd==2  # the arm\n\n")
    assert requirements(str(tmp_path)) == requirements(str(file)) == ["a", "b>=1", "c", "d==2"]
    assert requirements("gym:Pendulum-v1") == requirements("nowhere") == []
    file.write_text("T = OwnTask(requirements=read_them())")
    with pytest.raises(InvalidInputError, match=r"requirements: .*env.py:1: .*requirements.txt"):
        requirements(str(tmp_path))
    file.write_text("def broken(:")
    (tmp_path / "requirements.txt").unlink()
    assert environments.python_of(str(tmp_path)) == sys.executable


def test_a_source_with_requirements_runs_in_an_environment_of_its_own(tmp_path: Path, offline: Path) -> None:
    write(offline, "small_arm", ARM)
    source = tmp_path / "my_arm"
    source.mkdir()
    more, rest = "from small_arm import LENGTH, Arm", ', requirements=["small-arm==1.0", "numpy"]'
    (source / "env.py").write_text(DECLARED.format(name="my-arm", more=more, rest=rest))
    with pytest.raises(InvalidInputError, match="small_arm"):
        sources.declared(str(source))  # it is not installed here
    python = environments.python_of(str(source))
    assert Path(python).is_relative_to(tmp_path / "home" / "environments")
    (task,) = sources.declared(str(source), python)
    assert (task.name, task.episode_length) == ("my-arm", 7)
    (offline / "small_arm-1.0-py3-none-any.whl").unlink()
    assert environments.python_of(str(source)) == python  # made once, without asking pip again
    served_and_checked(source)
    (source / "env.py").write_text(DECLARED.format(name="my-arm", more=more, rest=', requirements=["no-such-arm"]'))
    with pytest.raises(PreconditionError, match=r"(?s)no-such-arm cannot be installed.*PIP_FIND_LINKS.*No matching"):
        environments.python_of(str(source))
    assert len(list((tmp_path / "home" / "environments").glob("*/"))) == 1  # nothing half made is left


def served_and_checked(source: Path) -> None:
    address = f"127.0.0.1:{ports.free_port()}"
    command = [sys.executable, "-m", "newt.cli.main", "env", "serve", str(source), "--address", address]
    served = subprocess.Popen([*command, "--workers", "1"], env=os.environ, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        found = CliRunner().invoke(app, ["env", "check", "--address", address], catch_exceptions=False)
        assert "newt up --sim my-arm=THIS-HOST" in (served.stdout.readline() if served.stdout else "")
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=30)
    assert served.returncode == 0
    assert "my-arm: frames (not required)" in found.output
    assert ", 0 failed," in found.output
    assert found.exit_code == 0


def test_an_installed_package_announces_its_tasks(
    tmp_path: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ARM + DECLARED.format(name="announced-arm", more="", rest="")
    wheel = write(offline, "announced_arm", text, "[newt.tasks]\nannounced-arm = announced_arm:TASK\n")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, timeout=120)
    monkeypatch.syspath_prepend(str(target))
    assert sources.is_source("announced-arm")
    (task,) = sources.declared("announced-arm")
    assert (task.name, task.obs_dim, task.episode_length) == ("announced-arm", 2, 7)
    with pytest.raises(InvalidInputError, match="did you mean announced-arm"):
        sources.declared("anounced-arm")
