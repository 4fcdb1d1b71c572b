"""One simulator instance that is played live: paced, drawn, told of step by step, and driven by commands."""

from __future__ import annotations

import base64
import copy
import io
import math
import queue
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from PIL import Image

from newt.acting.stage import EpisodeStage
from newt.client.sim_session import SimSession
from newt.client.steps import Observation, Step
from newt.errors import InvalidInputError, LostError, PreconditionError
from newt.recordings.npz import write_npz
from newt.wire.episodes import Behaviour
from newt.wire.limits import PADDED_ACTION_DIM
from services.learner.live.agent import Floats, LiveAgent, Seen
from services.learner.playing.sight import Sight

FRAMES_PER_S = 15.0
MAX_CRASHES = 3
"""In one episode; then it is the simulator that is broken."""
LOST_S = 10.0
"""How long a step may be asked for again while simulators are started again."""
BEHAVIOURS = {
    "planner": Behaviour.PLANNER,
    "policy": Behaviour.POLICY,
    "random": Behaviour.RANDOM,
    "expert": Behaviour.EXPERT,
    "keys": Behaviour.EXPERT,  # a person's episode is a demonstration
}

log = structlog.get_logger(__name__)

Tell = Callable[[str, dict[str, Any]], None]
# The simple one: a signal's handler may put the end into it.
Commands = queue.SimpleQueue[dict[str, Any] | None]


class LiveSession:
    """Plays one instance.

    Args:
        session: Session with one row, without auto-reset. It is given back when an episode has ended and the simulator
            drains.
        lease: Gets another one then, for the next episode.
        sight: What its agent sees of its frames.
        agent: The agent; None for a play without a model.
        actors: Who can act, the first one first.
        seed: Seed of the first episode.
        steps_per_s: Most env steps per second.
        tell: Tells an event and its facts.
        paused: Wait before the first step.
    """

    def __init__(
        self,
        session: SimSession,
        lease: Callable[[], SimSession],
        sight: Sight,
        agent: LiveAgent | None,
        actors: Sequence[str],
        seed: int,
        steps_per_s: float,
        tell: Tell,
        *,
        paused: bool = False,
    ) -> None:
        self._session, self._sight, self._agent, self._tell = session, sight, agent, tell
        self._lease, self._draining, self._left = lease, False, False
        self._picture: str | None = None
        self._task = session.tasks[0]
        self._actors, self._actor = list(actors), actors[0]
        self._paused, self._watched = paused, False
        self._steps_per_s, self._due, self._drawn = steps_per_s, 0.0, 0.0
        self._keyed: Floats = np.zeros(self._task.action_dim, np.float32)
        self._stage = EpisodeStage([self._task], sight.encoder_name)
        self._random = np.random.default_rng()
        self._crashes = 0
        self._begin(seed)

    def run(self, commands: Commands) -> None:
        """Plays, and obeys, until a command is None.

        Raises:
            NewtError: The simulator is lost.
        """
        while True:
            waits = self._paused or self._over or not self._watched
            try:
                command = commands.get(timeout=None if waits else max(0.0, self._due - time.monotonic()))
            except queue.Empty:
                self._step()
                continue
            if command is None:
                return
            self._obey(command)

    def _obey(self, command: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"number": command["number"]}
        try:
            answer |= getattr(self, f"_do_{command['do']}")(command.get("with") or {}) or {}
        except (InvalidInputError, PreconditionError) as error:
            words = str(error)
            field = error.field if isinstance(error, InvalidInputError) else None
            if field is not None:
                words = words.removeprefix(f"{field}: ")
            answer["refused"] = {"field": field, "message": words}
        self._tell("answer", answer)

    def _do_watch(self, how: dict[str, Any]) -> None:
        self._watched = bool(how["watched"])
        if self._watched:
            self._show()

    def _do_change(self, how: dict[str, Any]) -> None:
        action, actor = how.get("action"), how.get("actor")
        if action is not None and (
            len(action) != self._task.action_dim or not all(math.isfinite(x) and abs(x) <= 1 for x in action)
        ):
            raise InvalidInputError("action", f"got {action}, expected {self._task.action_dim} numbers in [-1, 1]")
        if actor is not None and actor not in self._actors:
            raise InvalidInputError("actor", f"got {actor}, expected one of {', '.join(self._actors)}")
        if "instruction" in how:
            self._require_agent("instruction").tell(how["instruction"] or None)
        if action is not None:
            self._keyed = np.array(action, np.float32)
        if actor is not None and actor != self._actor:
            self._actor = actor
            self._follow.clear()
            self._fresh_plan()
        self._steps_per_s = how.get("steps_per_s") or self._steps_per_s
        self._paused = self._paused if how.get("paused") is None else how["paused"]
        if how.keys() - {"action"}:
            self._show(draw=False)

    def _do_step(self, how: dict[str, Any]) -> None:
        if self._over:
            raise PreconditionError("the episode is over: reset it first")
        self._paused = True
        self._step()

    def _do_reset(self, how: dict[str, Any]) -> None:
        seed = how.get("seed")
        self._crashes = 0
        self._begin(self._seed if seed is None else seed)
        self._show()

    def _do_imagine(self, how: dict[str, Any]) -> None:
        agent, actor = self._require_agent("actor"), how.get("actor") or self._actor
        if self._over:
            raise PreconditionError("the episode is over: reset it first")
        if actor not in ("planner", "policy"):
            actor = "planner" if agent.plans else "policy"
        steps = min(how["steps"], self._task.episode_length - self._steps)
        expected = agent.imagine(self._seen(), steps, self._draw_seed(), planned=actor == "planner")
        self._follow.clear()
        self._follow.extend(expected.action)
        self._followed_as = actor
        facts = {"reward": _finite(expected.reward), "value": _finite(expected.value)}
        self._tell("imagined", {"episode": self._episode, "step": self._steps, "actor": actor, **facts})
        self._paused = False

    def _do_record(self, how: dict[str, Any]) -> dict[str, Any]:
        if not self._steps:
            raise PreconditionError("nothing was played yet in this episode")
        # Of a copy: the episode goes on.
        episode = copy.deepcopy(self._stage).finish(
            0,
            f"play-{secrets.token_hex(6)}",
            terminated=self._terminated,
            success=float("nan") if self._success is None else self._success,
            score=self._score,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "play.npz"
            write_npz(path, [episode])
            return {"file": base64.b64encode(path.read_bytes()).decode()}

    def _require_agent(self, field: str) -> LiveAgent:
        if self._agent is None:
            raise InvalidInputError(field, "this play has no model; start one with a checkpoint")
        return self._agent

    def _begin(self, seed: int) -> None:
        """Starts an episode."""
        self._seed, self._steps, self._return, self._score = seed, 0, 0.0, 0.0
        self._reward: float | None = None
        self._success: float | None = None
        self._spread: float | None = None
        self._over = self._terminated = False
        self._episode = secrets.token_hex(4)
        self._follow: deque[Floats] = deque()
        self._followed_as = self._actor
        if self._draining:
            self._leave()
            self._tell("problem", {"message": "The simulator is being stopped; the next episode is another one's."})
            self._session = self._lease()
            self._draining = self._left = False
        shown: Observation = self._session.reset([0], [seed])
        self._shown, self._image = shown, self._sight.begin([0], shown)
        self._stage.begin(0, shown.obs[0], seed, self._image[0])
        self._fresh_plan()

    def _fresh_plan(self) -> None:
        self._spread = None
        if self._agent is not None:
            self._agent.begin()

    def _step(self) -> None:
        """One step of whoever acts; tells it."""
        imagined = bool(self._follow)
        actor, action = self._choose()
        padded = np.zeros((1, PADDED_ACTION_DIM), np.float32)
        padded[0, : self._task.action_dim] = action[: self._task.action_dim]
        self._session.send(padded)
        step = self._session.receive(LOST_S)
        self._draining = step.draining
        if step.crashed[0]:
            self._crashes += 1
            if self._crashes > MAX_CRASHES:
                raise LostError(f"the simulator of {self._task.name} broke {self._crashes} times in one episode")
            self._tell("problem", {"message": "The simulator broke; the episode has begun again."})
            self._begin(self._seed)
        else:
            self._note(step, actor, padded[0])
            if imagined and not self._follow:  # it has all come: time to look at it
                self._paused = True
                self._fresh_plan()
        self._due = max(time.monotonic(), self._due + 1 / self._steps_per_s)
        self._show()
        if self._over and self._draining:
            self._leave()

    def _leave(self) -> None:
        """Gives the session back, so that the simulator need not wait for whoever looks at the end of an episode."""
        if not self._left:
            log.info("simulator_left", task=self._task.name)
            self._session.close()
        self._left = True

    def _choose(self) -> tuple[str, Floats]:
        if self._follow:
            return self._followed_as, self._follow.popleft()
        if self._actor == "random":
            return "random", self._random.uniform(-1, 1, self._task.action_dim).astype(np.float32)
        if self._actor == "expert":
            expert = self._shown.expert_action
            assert expert is not None, "actors names the expert only where there is one"
            return "expert", expert[0]
        if self._actor == "keys":
            return "keys", self._keyed
        agent = self._require_agent("actor")
        if self._actor == "policy":
            return "policy", agent.policy(self._seen())
        planned = agent.plan(self._seen(), self._draw_seed())
        self._spread = planned.spread
        return "planner", planned.action

    def _note(self, step: Step, actor: str, action: Floats) -> None:
        self._shown, self._image = step.observation, self._sight.look(step.observation)
        reward, success = float(step.reward[0]), float(step.success[0])
        self._steps += 1
        self._reward, self._return = reward, self._return + reward
        self._score = float(step.corrected_score[0])
        self._success = None if math.isnan(success) else success
        self._terminated = bool(step.terminated[0])
        self._over = self._terminated or bool(step.truncated[0])
        image = self._image[0]
        self._stage.step(0, action, reward, step.observation.obs[0], BEHAVIOURS[actor], next_image=image)

    def _show(self, *, draw: bool = True) -> None:
        """Tells how things are; with a picture, unless the last one is too fresh and another step follows."""
        stays = self._paused or self._over
        draw = draw and (stays or time.monotonic() - self._drawn >= 0.9 / FRAMES_PER_S)
        self._drawn = time.monotonic() if draw else self._drawn
        if draw and not self._left:
            self._picture = _jpeg(self._session.render()[0])
        facts: dict[str, Any] = {
            "episode": self._episode,
            "seed": str(self._seed),  # JavaScript's numbers end at 2**53
            "step": self._steps,
            "reward": self._reward,
            "return": self._return,
            "score": self._score,
            "success": self._success,
            "value": None if self._agent is None else self._agent.value(self._seen()),
            "spread": self._spread,
            "actor": self._actor,
            "paused": self._paused,
            "over": self._over,
            "imagining": bool(self._follow),
            "picture": self._picture if draw else None,
        }
        self._tell("step", {name: _finite_or_none(value) for name, value in facts.items()})

    def _seen(self) -> Seen:
        return Seen(self._shown.obs, self._image)

    def _draw_seed(self) -> int:
        return int(self._random.integers(2**63))


def _jpeg(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(stream, "JPEG", quality=88)
    return base64.b64encode(stream.getvalue()).decode()


def _finite(values: Floats) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
