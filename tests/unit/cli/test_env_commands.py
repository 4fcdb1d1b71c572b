"""`newt env`: the folder to begin with, and what the check says of environments that misbehave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from agent_files import write_agent
from typer.testing import CliRunner

from newt.cli.main import app
from newt.errors import AlreadyExistsError, InvalidInputError, NewtError
from newt.own import sources
from services.sim.trail import Trail

ROOT = Path(__file__).parents[3]
OWN_TASKS = ROOT / "tests" / "support" / "own_tasks"
BROKEN = """
import itertools, os, signal, time
import gymnasium, numpy as np
from newt.own import OwnTask, Returns, Success

COUNT = itertools.count()  # steps of the process


def block():  # Like compiled code that does not come back: no signal reaches it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(60)


def fork():  # A child that writes where we write, and goes on as if it were us.
    if (child := os.fork()) == 0:
        print("a child")
        return
    assert os.waitpid(child, 0)[1] == 256, "it did not end by itself"


class Env(gymnasium.Env):
    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,))
        self.action_space = gymnasium.spaces.Box(-1, 1)
        self.kept = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        print("resetting")
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.steps += 1
        return self.np_random.uniform(-1, 1, 2), 0.5, False, False, {}
"""
TASK = "\nTASK = OwnTask(name='broken', make=Env, goal='Do something or other.', episode_length=20, score={})\n"


def newt(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["env", *arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.exit_code, result.output


def checked(source: Path, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, output = newt("check", str(source), "--steps", "100", "--episodes", "1", "--json", *arguments)
    return code, {criterion["name"]: criterion for criterion in json.loads(output)["criteria"]}


def test_a_new_folder_passes_its_check_and_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = newt("init", "my_arm")
    assert code == 0
    assert "newt train ./my_arm --preset laptop" in output
    code, criteria = checked(tmp_path / "my_arm")
    assert code == 0
    assert {criterion["outcome"] for criterion in criteria.values()} == {"passed"}
    assert {criterion["task"] for criterion in criteria.values()} == {"", "my-arm"}
    newt("play", "./my_arm", "--agent", "expert")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert "50 steps" in newt("play", "./my_arm", "--window", "--out", "none.mp4")[1]
    assert not (tmp_path / "none.mp4").exists()
    with av.open(str(tmp_path / "my_arm-expert.mp4")) as video:
        assert video.streams.video[0].frames > 40
    with pytest.raises(AlreadyExistsError, match=r"env\.py exists already"):
        newt("init", "my_arm")


def test_a_new_folder_passes_its_own_test(tmp_path: Path) -> None:
    newt("init", str(tmp_path / "my_arm"))
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(pytest_, cwd=tmp_path / "my_arm", env=variables, capture_output=True, text=True, timeout=120)
    assert "2 passed" in done.stdout, done.stdout


def test_a_trained_agent_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    agent = write_agent(tmp_path / "agent-7")  # it knows `reach`, with 5 observed and 2 action columns
    source = (
        BROKEN.replace("(2,)", "(5,)").replace("(-1, 1, 2)", "(-1, 1, 5)").replace("Box(-1, 1)", "Box(-1, 1, (2,))")
    )
    text = (
        source
        + "    def render(self):\n        return np.zeros((64, 64, 3), np.uint8)\n"
        + TASK.format("Returns(0, 20)")
    )
    (tmp_path / "env.py").write_text(text.replace("name='broken'", "name='reach'"))
    out = tmp_path / "played.mp4"
    code, output = newt("play", str(tmp_path), "--agent", str(agent), "--out", str(out))
    assert code == 0
    assert "reach: 20 steps, return 10.00, score 0.50" in output
    assert out.stat().st_size > 1_000
    (tmp_path / "env.py").write_text(text)
    with pytest.raises(NewtError, match="was not trained on broken; it knows reach"):
        newt("play", str(tmp_path), "--agent", str(agent), "--out", str(out))
    with pytest.raises(InvalidInputError, match=r"--agent: got 'no-such-run', .*newt up"):
        newt("play", str(tmp_path), "--agent", "no-such-run")


def test_a_gymnasium_environment_gets_a_file_of_facts(tmp_path: Path) -> None:
    assert newt("init", str(tmp_path / "my_pendulum"), "--from", "gym:Pendulum-v1")[0] == 0
    (task,) = sources.declared(str(tmp_path / "my_pendulum"))
    assert (task.name, task.obs_dim, task.episode_length) == ("my-pendulum", 3, 200)


def test_an_environment_of_a_package_gets_a_file_of_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "__init__.py").touch()
    (tmp_path / "my_pkg" / "my_mod.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"`newt env init NAME --from my_pkg\.my_mod:Env` writes one"):
        sources.declared("my_pkg.my_mod:Env")
    assert newt("init", str(tmp_path / "mine"), "--from", "my_pkg.my_mod:Env")[0] == 0
    (task,) = sources.declared(str(tmp_path / "mine"))
    assert (task.name, task.obs_dim, task.episode_length) == ("mine", 2, 200)
    with pytest.raises(InvalidInputError, match="expected gym:ID, or MODULE:NAME"):
        newt("init", str(tmp_path / "other"), "--from", "my_pkg")


def test_several_tasks_are_checked_one_after_the_other() -> None:
    code, output = newt("check", str(OWN_TASKS), "--steps", "50", "--episodes", "1")
    assert code == 0
    assert "own-turns: pictures (not required): " in output
    assert "own-point: scores" in output


@pytest.mark.parametrize(
    ("change", "score", "criterion", "outcome", "words"),
    [
        ("self.steps += 1", "None", "scores", "warning", "no score is declared"),
        ("self.steps += 1", "Returns(0, 1)", "scores", "warning", "score 1.00"),
        ("self.steps += 1", "Returns(0, 1)", "rewards", "warning", "from 0.5 to 0.5"),
        ("self.steps += 1", "Success()", "same seed, same episode", "failed", "'success'"),
        ("self.steps += 1; self.np_random = np.random", "None", "same seed, same episode", "failed", "from step 1 on"),
        ("self.steps += 1\n        if self.steps > 15: os._exit(7)", "None", "same seed, same episode", "failed", "7"),
        ("self.steps += 1\n        if next(COUNT) > 90: exit(1)", "None", "100 random steps", "failed", "exit(1)"),
        (
            "self.steps += 1\n        if self.steps == 9: return np.zeros(3), 0.0, False, False, {}",
            "None",
            "same seed, same episode",
            "failed",
            "shape (3,)",
        ),
        ("self.steps += 1; time.sleep(9)", "None", "same seed, same episode", "failed", "not done after 2 s"),
        ("self.steps += 1; block()", "None", "same seed, same episode", "failed", "exited with status 1"),
        ("self.steps += 1; fork()", "None", "scores", "warning", "no score is declared"),
        ("self.kept.append(bytearray(os.urandom(50_000)))", "None", "memory", "warning", "MB"),
        (
            "self.steps += 1\n        if self.steps > 7: return np.zeros(2), 0.0, False, True, {}",
            "None",
            "episode length",
            "warning",
            "shortest after 8",
        ),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: str, score: str, criterion: str, outcome: str, words: str
) -> None:
    (tmp_path / "env.py").write_text(BROKEN.replace("self.steps += 1", change) + TASK.format(score))
    blocks = "sleep" in change or "block()" in change
    code, criteria = checked(tmp_path, *(["--limit", "2"] if blocks else []))
    found = criteria[criterion]
    assert found["outcome"] == outcome, criteria
    assert words in found["detail"]
    assert code == int(any(one["outcome"] == "failed" and one["required"] for one in criteria.values()))


def test_a_crash_is_replayed_until_it_is_mended(tmp_path: Path) -> None:
    source = BROKEN.replace("self.steps += 1", "self.steps += 1\n        if self.steps == 3: raise OSError('no arm')")
    (tmp_path / "env.py").write_text(source + TASK.format("None"))
    trail = Trail("own", "broken")
    trail.begin(7)
    for _ in range(3):
        trail.act(np.zeros(1, np.float32))
    file = trail.write(tmp_path / "crashes", 1, OSError("no arm"))
    code, output = newt("replay", str(file), "--source", str(tmp_path))
    assert code == 1
    assert "broken, seed 7, 3 steps" in output
    assert "now: OSError: no arm" in output
    (tmp_path / "env.py").write_text(BROKEN + TASK.format("None"))
    code, output = newt("replay", str(file), "--source", str(tmp_path))
    assert code == 0
    assert "it does not fail" in output
    with pytest.raises(NewtError, match="expected a crash"):
        newt("replay", str(tmp_path / "env.py"))


def test_a_source_that_is_none_is_one_failure() -> None:
    code, output = newt("check", "no-such-thing")
    assert code == 1
    assert "0 passed, 1 failed" in output
    with pytest.raises(InvalidInputError, match="expected a folder"):
        sources.declared("no-such-thing")
    with pytest.raises(NewtError, match="declares no expert"):
        newt("play", "gym:Pendulum-v1", "--agent", "expert")


def test_words_of_a_command_are_sources_or_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "env.py").touch()
    for word in ("./x", "mine", "gym:Pendulum-v1", "a.b:C", "tasks.py"):
        assert sources.is_source(word), word
    for word in ("walker-walk", "mw-*", "tour", "dmcontrol", "nothing"):
        assert not sources.is_source(word), word
    assert list(sources.names(["/a/my_arm", "b/my_arm", "gym:Pendulum-v1", "m.n:ATARI", "atari"])) == [
        "my-arm",
        "my-arm-2",
        "pendulum-v1",
        "atari-2",
        "atari-3",
    ]
