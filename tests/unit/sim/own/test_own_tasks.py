"""Declarations, where they come from, and what becomes of environments that misbehave."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from newt.errors import InvalidInputError, PreconditionError
from newt.own import OwnTask, Returns, Success
from newt.tasks.registry import Task
from services.sim.domains import Catalogue
from services.sim.domains.base import RenderingError
from services.sim.domains.own.adapter import OwnEnv
from services.sim.domains.own.sources import digest, load

FOLDER = Path(__file__).parents[3] / "support" / "own_tasks"
ROOT = Path(__file__).parents[4]
NAMED = "from newt.own import OwnTask\nT = OwnTask(name='{}', make=dict, goal='x', episode_length=1)"


@pytest.fixture(scope="module")
def tasks() -> dict[str, OwnTask]:
    return {task.name: task for task in load(str(FOLDER))}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a b"),
        ("name", ""),
        ("make", None),
        ("goal", " "),
        ("goal", "x" * 1001),
        ("embodiment", 3),
        ("episode_length", 0),
        ("episode_length", 10.0),
        ("score", "best"),
        ("discount", 0.0),
        ("expert", 1),
        ("requirements", "numpy"),
    ],
)
def test_a_fact_that_makes_no_sense_is_named(field: str, value: Any) -> None:
    good: dict[str, Any] = {"name": "a", "make": dict, "goal": "Go.", "episode_length": 10}
    OwnTask(**good)
    with pytest.raises(InvalidInputError, match=f"^{field}: "):
        OwnTask(**{**good, field: value})


def test_a_best_return_is_better_than_the_worst() -> None:
    for worst, best in ((1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(InvalidInputError, match="worst < best"):
            Returns(worst, best)


def test_score_of_success_is_that_of_the_last_step(tasks: dict[str, OwnTask]) -> None:
    env = OwnEnv(tasks["own-point"])
    env.reset(3)
    results = [env.step(env.expert_action()) for _ in range(10)]
    assert [result.score for result in results] == [result.success for result in results]
    assert results[-1].score == 1
    assert not any(result.terminated for result in results)
    assert [result.truncated for result in results] == [False] * 9 + [True]
    assert env.render().shape == (224, 224, 3)


def test_score_of_returns_lies_between_worst_and_best(tasks: dict[str, OwnTask]) -> None:
    env = OwnEnv(tasks["own-turns"])
    env.reset(3)
    scores = [env.step(env.expert_action()).score for _ in range(12)]
    assert scores[5] == 0.5
    assert scores[-1] == 1
    assert math.isnan(env.step(env.expert_action()).success)
    with pytest.raises(RenderingError, match="render_mode"):
        env.render()


def test_the_task_itself_may_end(tasks: dict[str, OwnTask]) -> None:
    env = OwnEnv(replace(tasks["own-point"], episode_length=100))
    env.reset(0)
    for _ in range(100):
        result = env.step(np.ones(1, np.float32))
        if result.terminated:
            break
    assert result.terminated
    assert not result.truncated


class Odd(gymnasium.Env[Any, Any]):
    """Does what it was made to do after a step."""

    def __init__(self, result: Any = 0.0, reward: float = 0.0, code: int | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        self.action_space = gymnasium.spaces.Box(-1, 1)
        self._after, self._code = (result, reward), code

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._code is not None:
            sys.exit(self._code)
        return *self._after, False, False, {}


@pytest.mark.parametrize(
    ("odd", "error", "words"),
    [
        ({"result": np.array([0, math.nan])}, FloatingPointError, "observation column 1 is nan after 1 steps"),
        ({"result": np.array([1e300, 0])}, FloatingPointError, "observation column 0 is inf"),
        ({"result": np.zeros(3)}, ValueError, r"shape \(3,\)"),
        ({"result": np.zeros(2), "reward": math.nan}, FloatingPointError, "reward nan at step 1"),
        ({"result": np.zeros(2), "reward": 22_100.0}, FloatingPointError, "scale it"),
        ({"code": 3}, RuntimeError, r"called exit\(3\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_episode_that_went_wrong_says_why(odd: dict[str, Any], error: type[Exception], words: str) -> None:
    env = OwnEnv(OwnTask(name="odd", make=lambda: Odd(**odd), goal="Be odd.", episode_length=5))
    env.reset(0)
    with pytest.raises(error, match=words):
        env.step(np.zeros(1, np.float32))


def test_what_older_interfaces_return_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    env = OwnEnv(OwnTask(name="odd", make=lambda: Odd(np.zeros(2)), goal="Be odd.", episode_length=5))
    env.reset(0)
    monkeypatch.setattr(Odd, "step", lambda self, action: (np.zeros(2), 0.0, False, {}))
    with pytest.raises(TypeError, match=r"step\(\) returned 4 values, expected \(observation, reward, terminated, "):
        env.step(np.zeros(1, np.float32))
    monkeypatch.setattr(Odd, "reset", lambda self, seed: np.zeros(2))  # two numbers are no (observation, info)
    with pytest.raises(TypeError, match=r"reset\(\) returned a ndarray, expected \(observation, info\)"):
        env.reset(0)


def test_a_success_that_nobody_tells_is_named() -> None:
    make = lambda: Odd(np.zeros(2))  # noqa: E731
    env = OwnEnv(OwnTask(name="odd", make=make, goal="Be odd.", episode_length=5, score=Success("solved")))
    env.reset(0)
    with pytest.raises(KeyError, match="solved"):
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "import nobody_has_this",
            r"env.py:1: it needs the package 'nobody_has_this': name it in OwnTask\(requirements=",
        ),
        ("x = 1 / 0", r"env.py:1: ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "declares no task"),
        ("exit(2)", r"called exit"),
        (
            "from newt.own import OwnTask\nOwnTask(name='a', make=dict, goal='', episode_length=1)",
            r"env.py:2: goal: got a blank",
        ),
        (
            NAMED.format("mw-push"),
            "of a task",
        ),
        (
            NAMED.format("tour"),
            "of a task set",
        ),
        (
            "from newt.own import OwnTask\n"
            "T = OwnTask(name='a', make=dict, goal='x', episode_length=1, requirements=['no-such-package>=2'])",
            "no-such-package>=2",
        ),
    ],
)
def test_a_file_that_declares_nothing_usable_says_why(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "env.py").write_text(text)
    with pytest.raises(InvalidInputError, match=words):
        load(str(tmp_path))


def test_a_folder_without_an_environment_says_how_to_begin_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"there is no env.py in it; `newt env init NAME`"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no-such-thing", "expected a folder with env.py"),
        ("gym:NoSuch-v0", "NoSuch"),
        ("gymnasium:Env", "without a declaration"),
        ("newt.own:Nothing", "no 'Nothing'"),
        ("no_such_module:X", "needs the package"),
        ("/nowhere/at/all", "no such folder or file"),
    ],
)
def test_a_source_that_is_none_says_why(source: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        load(source)


def test_a_gymnasium_id_declares_itself() -> None:
    (task,) = load("gym:Pendulum-v1")
    assert (task.name, task.episode_length, task.score) == ("pendulum-v1", 200, None)
    env = OwnEnv(task)
    first = env.reset(2**64 - 1)  # any seed of Newt's
    np.testing.assert_array_equal(first, env.reset(2**64 - 1))
    assert env.step(np.ones(1, np.float32)).score == 0


def test_the_digest_is_that_of_the_code(tmp_path: Path, tasks: dict[str, OwnTask]) -> None:
    text = (FOLDER / "env.py").read_text()
    (tmp_path / "env.py").write_text(text)
    env = OwnEnv(tasks["own-turns"]).env
    before = digest(str(tmp_path), env)
    assert digest(str(tmp_path), env) == before
    (tmp_path / "env.py").write_text(text + "\n")
    assert digest(str(tmp_path), env) != before


def test_a_server_hosts_what_sources_declare() -> None:
    catalogue = Catalogue(["own"], [str(FOLDER)])
    task: Task = catalogue.get("own-turns")
    assert (task.obs_dim, task.action_dim, task.score_rule) == (3, 3, "sum of rewards, from 0 to 12")
    assert (task.has_expert, task.has_success, task.discount) == (True, False, 0.95)
    assert (task.steps_per_s, catalogue.get("own-point").steps_per_s) == (None, 20)  # as render_fps has it
    with pytest.raises(PreconditionError, match="NEWT_SIM_SOURCES"):
        Catalogue(["own"])
    with pytest.raises(PreconditionError, match="declare 'own-point'"):
        Catalogue(["own"], [str(FOLDER), str(FOLDER / "env.py")])


def test_the_server_imports_no_code_of_others() -> None:
    code = (
        "import sys\nfrom services.sim.domains import Catalogue\n"
        f"Catalogue(['own'], [{str(FOLDER)!r}])\n"
        "print([name for name in sys.modules if name.startswith('newt_own_') or name == 'env'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
