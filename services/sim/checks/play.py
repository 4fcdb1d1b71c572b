"""Whether a task does what the registry says: two whole episodes of random actions, one of them drawn."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from newt.tasks.registry import Task
from newt.tasks.reports import TaskReport
from services.sim import domains
from services.sim.domains.base import FRAME_SIZE, MissingAssetError, SimEnv, StepResult

_REPEATED = 3  # Steps of a seed's second episode in one environment.
_UNSEEDED = frozenset({"atari"})  # Domains that draw nothing: every seed has the same episode.


def check_task(task: Task, seed: int = 0) -> TaskReport:
    """Plays the episode of a seed twice, in this process: undrawn, then drawn at its start, middle and end.

    Checked are the dimensions, the length, that all numbers are finite, success and scores in their range, the frames,
    the expert, that both episodes are the same, bit for bit, and that an environment which has been used repeats a seed
    and plays another one otherwise. Errors become problems of the report.
    """
    report = TaskReport(task.name, task.domain, action_dim=task.action_dim)
    try:
        undrawn = _play_undrawn(task, seed, report)
        _play_drawn(task, seed, report, undrawn)
    except MissingAssetError as error:
        report.missing_asset = str(error)
    except Exception as error:
        report.problems.append(f"{type(error).__name__}: {error}")
    report.problems = list(dict.fromkeys(report.problems))
    return report


def random_actions(task: Task, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Uniform actions without end, float32[A] in [-1, 1]."""
    draws = np.random.default_rng(seed)
    while True:
        yield draws.uniform(-1, 1, task.action_dim).astype(np.float32)


_Outcome = tuple[bytes, str, str, str]  # Text: unlike NaN, it equals itself.


def _play_undrawn(task: Task, seed: int, report: TaskReport) -> list[_Outcome]:
    env = domains.make(task.domain, task.name, rendering=False)
    try:
        obs = env.reset(seed)
        report.obs_dim = len(obs)
        _check_obs(task, obs, report)
        outcomes = [(obs.tobytes(), "", "", "")]
        spent = 0.0
        for action in random_actions(task, seed):
            start = time.perf_counter()
            result = env.step(action)
            spent += time.perf_counter() - start
            report.length += 1
            report.episode_return += result.reward
            report.score = result.score
            _check_step(task, env, result, report)
            outcomes.append(_outcome(result))
            if result.terminated or result.truncated or report.length > task.episode_length:
                break
        report.step_ms = 1000 * spent / report.length
        if report.length != task.episode_length or not result.truncated:
            how = "truncated" if result.truncated else "terminated" if result.terminated else "still running"
            report.problems.append(f"{how} after {report.length} steps, expected truncated after {task.episode_length}")
        _check_seeds(task, env, seed, outcomes, report)
        _check_expert(task, env, report)
        return outcomes
    finally:
        env.close()


def _episode(task: Task, env: SimEnv, reset_seed: int, action_seed: int) -> Iterator[_Outcome]:
    yield env.reset(reset_seed).tobytes(), "", "", ""
    for action in random_actions(task, action_seed):
        yield _outcome(env.step(action))


def _check_seeds(task: Task, env: SimEnv, seed: int, outcomes: list[_Outcome], report: TaskReport) -> None:
    if any(a != b for a, b in zip(outcomes[: _REPEATED + 1], _episode(task, env, seed, seed), strict=False)):
        report.problems.append(f"the episode of seed {seed} is another one when the environment plays it again")
    other = _episode(task, env, 2**64 - 1 - seed, seed)
    differs = any(a != b for a, b in zip(outcomes, other, strict=False))  # at some step: games may begin alike
    if differs == (task.domain in _UNSEEDED):
        report.problems.append("seeds make a difference" if differs else "all seeds have the same episode")


def _check_expert(task: Task, env: SimEnv, report: TaskReport) -> None:
    try:
        action = env.expert_action()
    except NotImplementedError:
        if task.has_expert:
            report.problems.append("no expert, though the registry lists one")
        return
    if not task.has_expert:
        report.problems.append("an expert that the registry does not list")
    if action.shape != (task.action_dim,) or action.dtype != np.float32 or not (np.abs(action) <= 1).all():
        report.problems.append(f"the expert's {action.dtype}{list(action.shape)} is no action of the task")


def _play_drawn(task: Task, seed: int, report: TaskReport, undrawn: list[_Outcome]) -> None:
    env = domains.make(task.domain, task.name, rendering=True)
    report.frames_ok = True
    middle = max(1, task.episode_length // 2)  # few drawings: without a GPU one may take as long as the episode
    try:
        obs = env.reset(seed)
        outcomes = [(obs.tobytes(), "", "", "")]
        _check_frame(env.render(), report)
        for step, action in zip(range(1, len(undrawn)), random_actions(task, seed), strict=False):
            outcomes.append(_outcome(env.step(action)))
            if step == middle:
                _check_frame(env.render(), report)
        last = env.render()
        _check_frame(last, report)
        if not np.array_equal(last, env.render()):
            _blame_frames(report, "drawing the same state twice gave two pictures")
    finally:
        env.close()
    differing = [step for step, pair in enumerate(zip(undrawn, outcomes, strict=True)) if pair[0] != pair[1]]
    if differing:
        report.problems.append(f"the drawn episode differs from the undrawn one from step {differing[0]} on")


def _outcome(result: StepResult) -> _Outcome:
    return result.obs.tobytes(), repr(result.reward), repr(result.success), repr(result.score)


def _check_obs(task: Task, obs: npt.NDArray[np.float32], report: TaskReport) -> None:
    if obs.shape != (task.obs_dim,) or obs.dtype != np.float32:
        report.problems.append(f"observation {obs.dtype}{list(obs.shape)}, expected float32[{task.obs_dim}]")
    if not np.isfinite(obs).all():
        report.problems.append("an observation is not finite")


def _check_step(task: Task, env: SimEnv, result: StepResult, report: TaskReport) -> None:
    _check_obs(task, result.obs, report)
    if not math.isfinite(result.reward):
        report.problems.append("a reward is not finite")
    if not 0 <= result.score <= 1:
        report.problems.append(f"score {result.score}, expected one in [0, 1]")
    if task.has_success and result.success not in (0, 1):
        report.problems.append(f"success {result.success}, expected 0 or 1")
    if not task.has_success and not math.isnan(result.success):
        report.problems.append(f"success {result.success}, expected NaN: the registry says that the task has none")
    corrected = env.corrected_score
    if corrected is None and task.corrected_score is not None:
        report.problems.append("no corrected score, though the registry lists one")
    elif corrected not in (None, result.score) and task.corrected_score is None:
        report.problems.append("a corrected score that the registry does not list")
    report.corrected_score = result.score if corrected is None else corrected
    if not 0 <= report.corrected_score <= 1:
        report.problems.append(f"corrected score {report.corrected_score}, expected one in [0, 1]")


def _check_frame(frame: npt.NDArray[np.uint8], report: TaskReport) -> None:
    expected = (FRAME_SIZE, FRAME_SIZE, 3)
    if frame.shape != expected or frame.dtype != np.uint8:
        _blame_frames(report, f"frame {frame.dtype}{list(frame.shape)}, expected uint8{list(expected)}")
    elif frame.min() == frame.max():
        _blame_frames(report, f"a frame has nothing but the value {frame.min()}")


def _blame_frames(report: TaskReport, problem: str) -> None:
    report.frames_ok = False
    report.problems.append(problem)
