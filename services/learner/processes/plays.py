"""Plays: each is a process that acts in a simulator while somebody watches. Nothing of one is stored.

A play lives by its viewer. Without one it stands still, and ends after LEASE_S; without a command it ends after IDLE_S.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import difflib
import itertools
import json
import secrets
import shutil
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import structlog

from newt.errors import (
    ExhaustedError,
    InvalidInputError,
    LostError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from newt.runs.plays import Play, PlayChanges, PlayImagine, PlayRequest, PlayReset, actors_of, pace_of
from newt.tasks.keys import keys_of
from newt.tasks.registry import Task, all_tasks, knowing
from services.learner import acting, metrics
from services.learner.checkpoints.files import AnyHeader, facts_of, plans
from services.learner.checkpoints.library import CheckpointLibrary, Resolved, hold
from services.learner.checkpoints.modes import trained_mode
from services.learner.checkpoints.usable import check_usable
from services.learner.processes.child import Child, end
from services.learner.processes.dependencies import Dependencies
from services.learner.settings import LearnerSettings, start_sim

MODULE = "services.learner.live.worker"
LEASE_S = 20.0
IDLE_S = 900.0
ANSWER_S = 90.0
"""To load a model, or the encoder of a new instruction, takes a while on a busy machine."""
STOP_GRACE_S = 15.0
MAX_WAITING = 64
"""Events that a viewer has not read yet; of more, the oldest are dropped."""
MAX_REMEMBERED = 50
LAST_EVENTS = ("ended", "taken")

log = structlog.get_logger(__name__)


class Viewer:
    """What a client of a play's events has still to be told. To be made in its event loop."""

    def __init__(self) -> None:
        self._loop, self._there = asyncio.get_running_loop(), asyncio.Event()
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MAX_WAITING)

    def tell(self, event: dict[str, Any]) -> None:
        """Adds an event, from any thread."""
        self._waiting.append(event)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the client with it
            self._loop.call_soon_threadsafe(self._there.set)

    async def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event; None if there was none in time."""
        if not self._waiting:
            self._there.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._there.wait()
        return self._waiting.popleft() if self._waiting else None


class _Alarm:
    """Calls once, when nobody has put it off for so long."""

    def __init__(self, seconds: float, ring: Any) -> None:
        self._seconds, self._ring = seconds, ring
        self._timer: threading.Timer | None = None

    def set(self) -> None:
        """Counts from now on."""
        self.clear()
        self._timer = threading.Timer(self._seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def clear(self) -> None:
        """Does not ring."""
        if self._timer is not None:
            self._timer.cancel()


class _Running:
    """A play that is under way: its process, its viewer, and who waits for answers."""

    def __init__(self, facts: Play) -> None:
        self.facts = facts
        self.child: Child
        self.lease: _Alarm
        self.idle: _Alarm
        self.lock = threading.RLock()
        self.ended = False
        self.viewer: Viewer | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[dict[str, Any]]] = {}

    def send(self, do: str, how: dict[str, Any]) -> Future[dict[str, Any]]:
        """Sends a command; the answer comes later."""
        answer: Future[dict[str, Any]] = Future()
        with self.lock:
            number = next(self._numbers)
            self._answers[number] = answer
            self.child.send(json.dumps({"number": number, "do": do, "with": how}))
        return answer

    def hear(self, event: dict[str, Any]) -> None:
        """Gives an event of the process to whom it belongs."""
        with self.lock:
            if event["event"] == "answer":
                answer = self._answers.pop(event["number"], None)
                if answer is not None:
                    answer.set_result(event)
            elif self.viewer is not None:
                self.viewer.tell(event)

    def give_up(self, reason: str) -> None:
        """Tells everybody who waits that it has ended."""
        with self.lock:
            for answer in self._answers.values():
                answer.set_exception(LostError(reason))
            self._answers.clear()
            if self.viewer is not None:
                self.viewer.tell({"event": "ended", "reason": reason})


class PlayKeeper:
    """Starts plays, speaks with their processes, and ends them.

    Args:
        settings: Settings of the learner.
        library: Library of checkpoints.
        dependencies: Knows which simulators are there.
    """

    def __init__(self, settings: LearnerSettings, library: CheckpointLibrary, dependencies: Dependencies) -> None:
        self._settings, self._library, self._dependencies = settings, library, dependencies
        self._folder = settings.folder.plays
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._reasons: dict[str, str] = {}

    def start(self) -> None:
        """Removes what a learner that was killed has left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """Ends all."""
        with self._lock:
            running = list(self._running.values())
        threads = [threading.Thread(target=self._end, args=(play, "stopped", "the learner stops")) for play in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def submit(self, request: PlayRequest) -> Play:
        """Starts a play.

        Raises:
            InvalidInputError: The task, actor or instruction make no sense, or the task has no simulator here.
            NotFoundError: No such checkpoint.
            PreconditionError: The checkpoint's agent cannot act here.
            ExhaustedError: There are as many plays as may be.
            UnavailableError: The simulator does not answer.
            OSError: The data folder cannot be written.
        """
        resolved = None if request.checkpoint is None else self._library.resolve(request.checkpoint)
        with knowing([] if resolved is None else facts_of(resolved.header)):
            task = _find(request.task)
        header = None if resolved is None else resolved.header
        _check_instruction(request.instruction, header, task)
        actors = actors_of(task, None if header is None else plans(header))
        actor = request.actor or (actors[0] if header is None else trained_mode(header))
        if actor not in actors:
            raise InvalidInputError("actor", f"got {actor}, expected one of {', '.join(actors)}")
        if task.domain not in self._settings.sims:
            raise InvalidInputError(
                "task", f"no simulator of {task.domain} is configured; name it in NEWT_LEARNER_SIMS"
            )
        if not self._dependencies.has_sim(task.domain):
            raise UnavailableError(f"the simulator of {task.name} does not answer; {start_sim(task.domain)}")
        keys = keys_of(task)
        facts = Play(
            id=secrets.token_hex(16),
            owner=acting.owner(),
            task=task.name,
            checkpoint=None if resolved is None else resolved.reference,
            actors=actors,
            instruction=task.instruction,
            action_dim=task.action_dim,
            episode_length=task.episode_length,
            steps_per_s=pace_of(task),
            keys=None if keys is None else dict(keys.keys),
            idle=[0.0] * task.action_dim if keys is None else keys.idle,
            lease_s=LEASE_S,
            idle_s=IDLE_S,
        )
        wanted = {
            "task": task.name,
            "domain": task.domain,
            "sim": self._settings.sims[task.domain],
            "expert": task.has_expert,
            "actors": [actor, *(other for other in actors if other != actor)],
            "seed": request.seed,
            "paused": request.paused,
            "steps_per_s": facts.steps_per_s,
            "instruction": request.instruction,
        }
        self._begin(_Running(facts), wanted, resolved)
        acting.about(_short(facts.id))
        log.info("play_started", play=_short(facts.id), task=task.name, checkpoint=facts.checkpoint)
        return facts

    def get(self, play_id: str) -> Play:
        """A play that is under way. Raises NotFoundError."""
        return self._find(play_id).facts

    def change(self, play_id: str, changes: PlayChanges) -> Play:
        """Changes how it goes on. Raises as `_ask`."""
        self._ask(play_id, "change", changes.model_dump(exclude_unset=True))
        return self.get(play_id)

    def step(self, play_id: str) -> Play:
        """Makes one step and pauses. Raises as `_ask`."""
        self._ask(play_id, "step", {})
        return self.get(play_id)

    def reset(self, play_id: str, how: PlayReset) -> Play:
        """Starts an episode. Raises as `_ask`."""
        self._ask(play_id, "reset", how.model_dump())
        return self.get(play_id)

    def imagine(self, play_id: str, how: PlayImagine) -> Play:
        """Unrolls the world model and then takes the same steps. Raises as `_ask`."""
        self._ask(play_id, "imagine", how.model_dump())
        return self.get(play_id)

    def recording(self, play_id: str) -> bytes:
        """What was played of the episode so far, as newt.recordings.npz has it. Raises as `_ask`."""
        return base64.b64decode(self._ask(play_id, "record", {})["file"])

    def end(self, play_id: str) -> None:
        """Ends a play; its simulator is free when this returns. Raises NotFoundError."""
        self._end(self._find(play_id), "told", "it was ended")

    @contextlib.contextmanager
    def watched(self, play_id: str) -> Iterator[Viewer]:
        """Lets a client follow the events, which takes them from another one; in an event loop.

        Raises:
            NotFoundError: No such play.
        """
        play, viewer = self._find(play_id), Viewer()
        with play.lock:
            if play.viewer is not None:
                play.viewer.tell({"event": "taken"})
            play.viewer = viewer
            play.lease.clear()
        play.send("watch", {"watched": True})
        try:
            yield viewer
        finally:
            with play.lock:
                if play.viewer is viewer and not play.ended:
                    play.viewer = None
                    play.lease.set()
                    play.send("watch", {"watched": False})

    def _begin(self, play: _Running, wanted: dict[str, Any], resolved: Resolved | None) -> None:
        limit = self._settings.max_plays
        folder = self._folder / play.facts.id
        play.lease = _Alarm(LEASE_S, lambda: self._end(play, "unwatched", f"nobody watched for {LEASE_S:g} s"))
        play.idle = _Alarm(IDLE_S, lambda: self._end(play, "idle", f"there was no command for {IDLE_S / 60:g} minutes"))
        path = folder / "checkpoint.safetensors"
        begin = json.dumps({**wanted, "checkpoint": None if resolved is None else str(path)})
        try:
            if resolved is not None:
                hold(resolved.path, path)
            with self._lock:
                if len(self._running) >= limit:
                    what = ", ".join(sorted(other.facts.task for other in self._running.values())) or "none"
                    raise ExhaustedError(
                        f"{limit} plays may be under way (NEWT_LEARNER_MAX_PLAYS; now: {what}); wait for one to end"
                    )
                log_path = folder / "play.log"
                play.child = Child(MODULE, [], self._settings, log_path, lambda: self._gone(play), talks=True)
                play.child.send(begin)
                self._running[play.facts.id] = play
                metrics.PLAYS.set(len(self._running))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        play.lease.set()
        play.idle.set()
        threading.Thread(target=self._listen, args=(play,), name=f"play-{play.child.pid}", daemon=True).start()

    def _listen(self, play: _Running) -> None:
        for line in play.child.lines():
            event = json.loads(line)
            if event["event"] == "ended":
                self._end(play, "failed", event["reason"])
            else:
                play.hear(event)

    def _ask(self, play_id: str, do: str, how: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command.

        Raises:
            NotFoundError: No such play.
            InvalidInputError, PreconditionError: What is asked for makes no sense, or none now.
            LostError: It has ended meanwhile.
            UnavailableError: It does not answer in time.
        """
        play = self._find(play_id)
        play.idle.set()
        try:
            answer = play.send(do, how).result(ANSWER_S)
        except TimeoutError as error:
            raise UnavailableError("the play is still busy, with its model or its simulator; ask again") from error
        refused = answer.get("refused")
        if refused is None:
            return answer
        if refused["field"] is not None:
            raise InvalidInputError(refused["field"], refused["message"])
        raise PreconditionError(refused["message"])

    def _find(self, play_id: str) -> _Running:
        with self._lock:
            play = self._running.get(play_id)
            if play is None or play.ended:
                reason = self._reasons.get(play_id)
                raise NotFoundError("no such play" + (f" any more: {reason}" if reason else "; POST /plays starts one"))
            return play

    def _gone(self, play: _Running) -> None:
        """The process has ended, whoever wanted it."""
        if not play.ended:
            self._end(play, "failed", f"its process {play.child.how_it_ended()}")

    def _end(self, play: _Running, kind: str, reason: str) -> None:
        """Ends a play; `kind` is what the metric calls the reason."""
        with self._lock:
            if play.ended:
                return
            play.ended = True
            self._reasons[play.facts.id] = reason
            for old in list(self._reasons)[:-MAX_REMEMBERED]:
                del self._reasons[old]
        metrics.PLAYS_ENDED.labels(kind).inc()
        log.info("play_ended", play=_short(play.facts.id), task=play.facts.task, reason=reason)
        play.lease.clear()
        play.idle.clear()
        play.give_up(reason)
        end([play.child], STOP_GRACE_S)
        shutil.rmtree(self._folder / play.facts.id, ignore_errors=True)
        with self._lock:
            self._running.pop(play.facts.id, None)
            metrics.PLAYS.set(len(self._running))


def _find(name: str) -> Task:
    known = {task.name: task for task in all_tasks()}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "GET /tasks lists all"
        raise InvalidInputError("task", f"got {name!r}, which is no task here; {hint}")
    return known[name]


def _check_instruction(instruction: str | None, header: AnyHeader | None, task: Task) -> None:
    if header is None:
        if instruction is not None:
            raise InvalidInputError("instruction", "there is no model to be told; name a checkpoint")
        return
    try:
        check_usable(header, [task], {} if instruction is None else {task.name: instruction})
    except InvalidInputError as error:
        raise InvalidInputError("instruction", str(error).removeprefix(f"{error.field}: ")) from error


def _short(play_id: str) -> str:
    """Enough of an id for a log: who knows all of it may play."""
    return play_id[:8]
