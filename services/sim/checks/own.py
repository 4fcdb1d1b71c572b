"""Looks at tasks of somebody else's before anybody trains on them: `python -m services.sim.checks.own SOURCE`.

Prints a line of JSON for each criterion as soon as it is known (newt.tasks.reports.Criterion), and before it one that
says what is `begun`, so that whoever reads knows where a process that dies was. The last line says `done`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.errors import NewtError
from newt.memory import resident_bytes
from newt.own import OwnTask
from newt.tasks.encoders import CLIP, SENTENCE
from newt.tasks.registry import Task
from newt.tasks.reports import Criterion
from newt.tasks.text_lengths import READ, least_tokens
from services.sim.domains.base import FRAME_SIZE, StepResult
from services.sim.domains.own.adapter import MAX_REWARD, OwnEnv
from services.sim.domains.own.facts import facts
from services.sim.domains.own.sources import digest, load

CALL_TIMEOUT_S = 60.0
"""For one reset or step: what the simulator service allows by default."""
_GRACE_S = 30.0
"""So much later ends, with the whole process, what no exception can reach: a call that blocks in compiled code."""
_REPEATED_STEPS = 20
_MAX_CRASHES = 5
_LEAK_BYTES = 20e6
"""Growth per 10,000 steps that is worth a warning: 2 GB in a million."""
_GOOD = 0.99

Columns = npt.NDArray[np.float32]
Say = Callable[..., None]


@dataclass
class _Walk:
    """What was seen on a long random walk."""

    steps: int = 0
    seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    terminated: int = 0
    cut_early: int = 0
    rewards: list[float] = field(default_factory=lambda: [math.inf, -math.inf])
    crashes: list[str] = field(default_factory=list)
    growth_bytes: float = 0.0


class Check:
    """All criteria of one task.

    Args:
        own: Its declaration.
        source: Where it comes from.
        emit: Called with each line.
        seed: Seed of the first episode.
        steps: Random steps.
        episodes: Episodes of each policy whose score is measured.
    """

    def __init__(
        self, own: OwnTask, source: str, emit: Callable[[dict[str, Any]], None], seed: int, steps: int, episodes: int
    ) -> None:
        self._own, self._source, self._emit = own, source, emit
        self._seed, self._steps, self._episodes = seed, steps, episodes

    def run(self) -> None:
        """Looks at everything; stops where nothing that follows could work."""
        env = self._criterion("spaces", self._build)
        if env is None:
            return
        try:
            self._criterion("texts", self._texts)
            if self._criterion("same seed, same episode", lambda say: self._repeats(env, say)) is None:
                return
            self._criterion("other seed, other episode", lambda say: self._differs(env, say))
            walk = self._criterion(f"{self._steps:,} random steps", lambda say: self._walk(env, say))
            if walk is not None and walk.steps:
                self._criterion("episode length", lambda say: self._length(walk, say))
                self._criterion("rewards", lambda say: self._rewards(walk, say))
                self._criterion("speed", lambda say: say(f"{walk.steps / walk.seconds:,.0f} steps/s in one process"))
                self._criterion("memory", lambda say: self._memory(walk, say))
            self._criterion("pictures", lambda say: self._pictures(env, say), required=False)
            self._criterion("scores", lambda say: self._scores(env, say))
        finally:
            env.close()

    def _criterion(self, name: str, look: Callable[[Say], Any], *, required: bool = True) -> Any:
        """Looks, and tells; an exception is a failure, and returns None."""
        self._emit({"begun": name, "task": self._own.name})
        told = False

        def say(detail: str, remedy: str = "", *, outcome: str = "passed", required: bool = required) -> None:
            nonlocal told
            told = True
            self._emit({"criterion": asdict(Criterion(self._own.name, name, outcome, detail, remedy, required))})  # type: ignore[arg-type]

        try:
            result = look(say)
        except Exception as error:
            what = str(error) if isinstance(error, NewtError) else f"{type(error).__name__}: {error}"
            remedy = "" if isinstance(error, NewtError) else "mend it in the environment"
            say(what, remedy, outcome="failed")
            return None
        assert told, name
        return result if result is not None else True

    def _build(self, say: Say) -> OwnEnv:
        with _within():
            env = OwnEnv(self._own)
        task: Task = facts(self._own, digest(self._source, env.env), env)
        self._emit({"facts": asdict(task)})
        say(
            f"observation {_short(env.env.observation_space)}: {task.obs_dim} columns; action "
            f"{_short(env.env.action_space)}: {task.action_dim} columns of [-1, 1]"
        )
        return env

    def _texts(self, say: Say) -> None:
        text = f"{self._own.embodiment} {self._own.goal}".strip()
        if len(text.split()) < 4:
            remedy = "write goal and embodiment as sentences: agents of several tasks tell them apart by the text"
            say(f"the agent reads {text!r}", remedy, outcome="warning", required=False)
        elif least_tokens(text) > READ[CLIP]:
            say(
                f"{least_tokens(text)} tokens or more, of which the text encoder {CLIP} reads {READ[CLIP]}",
                f"shorten goal or embodiment, or train with algorithm.text_encoder={SENTENCE}, which is the default",
                outcome="warning",
                required=False,
            )
        else:
            say(f"{len(text.split())} words")

    def _repeats(self, env: OwnEnv, say: Say) -> None:
        first, again = (list(self._episode(env, self._seed)) for _ in range(2))
        other = OwnEnv(self._own)
        try:
            fresh = list(self._episode(other, self._seed))
        finally:
            other.close()
        for what, played in (("again in the same environment", again), ("in another environment", fresh)):
            for step, (before, after) in enumerate(zip(first, played, strict=False)):
                if before != after:
                    say(
                        f"seed {self._seed} played {what} differs from step {step} on",
                        "draw all chance from self.np_random after super().reset(seed=seed), and reset the whole state",
                        outcome="failed",
                    )
                    return
        say(f"{len(first) - 1} steps, three times")

    def _differs(self, env: OwnEnv, say: Say) -> None:
        first, other = (list(self._episode(env, self._seed + number)) for number in range(2))
        if first == other:
            remedy = "start episodes differently, or the agent learns one of them by heart"
            say("all seeds have the same episode", remedy, outcome="warning", required=False)
        else:
            say("they differ")

    def _episode(self, env: OwnEnv, seed: int) -> Iterator[tuple[bytes, str, bool]]:
        draws = np.random.default_rng(seed if seed != self._seed + 1 else self._seed)
        with _within():
            yield env.reset(seed).tobytes(), "", False
        for _ in range(min(_REPEATED_STEPS, self._own.episode_length)):
            result = self._step(env, draws.uniform(-1, 1, env.action.dim).astype(np.float32))
            ended = result.terminated or result.truncated
            yield result.obs.tobytes(), repr(result.reward), ended
            if ended:
                return

    def _walk(self, env: OwnEnv, say: Say) -> _Walk:
        walk, draws = _Walk(), np.random.default_rng(self._seed)
        warm, before = self._steps // 5, 0
        seed = self._seed
        while walk.steps < self._steps and len(walk.crashes) < _MAX_CRASHES:
            seed += 1
            length = 0
            try:
                with _within():
                    env.reset(seed)
                while walk.steps < self._steps:
                    start = time.perf_counter()
                    result = self._step(env, draws.uniform(-1, 1, env.action.dim).astype(np.float32))
                    walk.seconds += time.perf_counter() - start
                    walk.steps, length = walk.steps + 1, length + 1
                    if walk.steps == warm:
                        before = resident_bytes()
                    low, high = walk.rewards
                    walk.rewards = [min(low, result.reward), max(high, result.reward)]
                    if result.terminated or result.truncated:
                        walk.lengths.append(length)
                        walk.terminated += result.terminated
                        walk.cut_early += not result.terminated and length < self._own.episode_length
                        break
            except Exception as error:
                walk.crashes.append(f"seed {seed}, step {length + 1}: {type(error).__name__}: {error}")
        walk.growth_bytes = (resident_bytes() - before) * 10_000 / max(1, walk.steps - warm)
        if walk.crashes:
            say(
                f"{len(walk.crashes)} episodes crashed in {walk.steps:,} steps; the first: {walk.crashes[0]}",
                "such an episode is thrown away in training; mend it in the environment",
                outcome="failed",
            )
        else:
            say(f"{len(walk.lengths)} episodes, {walk.terminated} of them ended by the task itself")
        return walk

    def _length(self, walk: _Walk, say: Say) -> None:
        declared = self._own.episode_length
        if walk.cut_early:
            say(
                f"{walk.cut_early} of {len(walk.lengths)} episodes were truncated by the environment before the "
                f"declared {declared} steps, the shortest after {min(walk.lengths)}",
                f"declare episode_length={min(walk.lengths)}, or lift the environment's own time limit",
                outcome="warning",
                required=False,
            )
        else:
            shortest = f", the shortest {min(walk.lengths)}" if walk.lengths and min(walk.lengths) < declared else ""
            say(f"{declared} steps as declared{shortest}")

    def _rewards(self, walk: _Walk, say: Say) -> None:
        low, high = walk.rewards
        detail = f"from {low:g} to {high:g} under random actions"
        if low == high:
            remedy = "fine for a sparse task with demonstrations; without, the agent has nothing to go by"
            say(detail, remedy, outcome="warning", required=False)
        elif max(abs(low), abs(high)) > MAX_REWARD / 20:
            say(
                detail,
                f"scale them: values up to {MAX_REWARD:.0f} can be told apart, and returns add up",
                outcome="warning",
            )
        else:
            say(detail)

    def _memory(self, walk: _Walk, say: Say) -> None:
        detail = f"{walk.growth_bytes / 1e6:+.1f} MB per 10,000 steps"
        if walk.growth_bytes > _LEAK_BYTES:
            say(
                detail,
                "something is kept from step to step: lists of states, figures, loggers",
                outcome="warning",
                required=False,
            )
        else:
            say(detail)

    def _pictures(self, env: OwnEnv, say: Say) -> None:
        with _within():
            env.reset(self._seed)
            frame = env.render()
        if frame.shape != (FRAME_SIZE, FRAME_SIZE, 3):
            raise ValueError(f"a frame has the shape {frame.shape}")
        if frame.min() == frame.max():
            say("a picture shows nothing", "draw something in render()", outcome="warning")
        else:
            say(f"render() works; brought to {FRAME_SIZE} x {FRAME_SIZE}")

    def _scores(self, env: OwnEnv, say: Say) -> None:
        agents = ["zero", "random", *(["expert"] if self._own.expert is not None else [])]
        played = {agent: [self.play(env, agent, self._seed + row) for row in range(self._episodes)] for agent in agents}
        returns, scores = ({a: float(np.mean([p[i] for p in e])) for a, e in played.items()} for i in range(2))
        detail = "; ".join(f"{agent}: return {returns[agent]:.2f}, score {scores[agent]:.2f}" for agent in agents)
        if self._own.score is None:
            remedy = "declare score=Returns(worst, best) or Success(); training works without, tables show 0"
            say(f"{detail}; no score is declared", remedy, outcome="warning", required=False)
        elif scores["random"] >= _GOOD:
            say(
                detail,
                "random actions have the best score already: choose another best",
                outcome="warning",
                required=False,
            )
        elif "expert" in agents and returns["expert"] <= returns["random"]:
            say(
                detail,
                "the expert is no better than chance; its demonstrations would mislead",
                outcome="warning",
                required=False,
            )
        else:
            say(detail)

    def play(self, env: OwnEnv, agent: str, seed: int) -> tuple[float, float]:
        """Return and score of one episode."""
        total, score = 0.0, 0.0
        with _within():
            env.reset(seed)
        for action in actions(env, agent, seed):
            result = self._step(env, action)
            total, score = total + result.reward, result.score
            if result.terminated or result.truncated:
                break
        return total, score

    @staticmethod
    def _step(env: OwnEnv, action: Columns) -> StepResult:
        with _within():
            return env.step(action)


def actions(env: OwnEnv, agent: str, seed: int) -> Iterator[Columns]:
    """Actions without end, float32[A] in [-1, 1], of `zero`, `random` or `expert`."""
    draws = np.random.default_rng(seed)
    while True:
        if agent == "expert":
            yield env.expert_action()
        elif agent == "random":
            yield draws.uniform(-1, 1, env.action.dim).astype(np.float32)
        else:
            yield np.zeros(env.action.dim, np.float32)


class _Limit:
    """What one call of the environment may take."""

    def __init__(self) -> None:
        self.seconds = CALL_TIMEOUT_S
        self._armed_at = -math.inf

    def watch(self) -> None:
        """Prolongs the life of the process, now and then: doing so starts a thread."""
        now = time.perf_counter()
        if now - self._armed_at > self.seconds / 10:
            self._armed_at = now
            faulthandler.dump_traceback_later(self.seconds * 1.1 + min(_GRACE_S, self.seconds), exit=True)


_LIMIT = _Limit()


@contextmanager
def _within() -> Iterator[None]:
    """Raises TimeoutError in what takes longer than the limit, as soon as Python gets to run; ends what never does."""
    _LIMIT.watch()
    signal.setitimer(signal.ITIMER_REAL, _LIMIT.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {_LIMIT.seconds:g} s, when the simulator service would give it up")


def _short(space: object) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def main() -> int:
    """Looks at all tasks of the source that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m services.sim.checks.own")
    parser.add_argument("source")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--limit", type=float, default=CALL_TIMEOUT_S)
    options = parser.parse_args()
    _LIMIT.seconds = options.limit
    signal.signal(signal.SIGALRM, _too_long)
    # What environments print must not get between our lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=out, flush=True)

    emit({"begun": "source", "task": ""})
    try:
        with _within():
            tasks = load(options.source)
    except (NewtError, TimeoutError) as error:
        emit({"criterion": asdict(Criterion("", "source", "failed", str(error)))})
    else:
        names = ", ".join(task.name for task in tasks)
        emit({"criterion": asdict(Criterion("", "source", "passed", f"declares {names}"))})
        for own in tasks:
            Check(own, options.source, emit, options.seed, options.steps, options.episodes).run()
    emit({"done": True})
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # not through what other people's code may have registered
