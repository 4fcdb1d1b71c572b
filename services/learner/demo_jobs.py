"""Collections of demonstrations on request: each is a process of its own, watched by a thread.

The name of the set is the name of the job: asking again for the same is harmless, asking for something else under the
same name is refused. Until a collection has succeeded, its set cannot be used; what a failed or cancelled one has
stored is removed.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from newt import trace
from newt.errors import (
    AlreadyExistsError,
    ExhaustedError,
    InvalidInputError,
    NewtError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from newt.runs.base import now
from newt.runs.demos import AgentDemosRequest, DemoCollection, FeatureDemosRequest, ScriptedDemosRequest
from newt.runs.record import Run
from newt.runs.spec import SCRIPTED_SET_NAME
from newt.tasks.registry import Task, UnknownTaskError, get_task, select_tasks
from services.learner.checkpoints import CheckpointFolder
from services.learner.child import StopFlag, Stopped, lock_file, patiently
from services.learner.demo_sets import DemoSets
from services.learner.dependencies import Dependencies
from services.learner.services import start_sim
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore
from services.learner.supervisor import Child

MAX_JOBS = 2
STOP_GRACE_S = 10.0
CANCEL_TIMEOUT_S = 20.0

log = structlog.get_logger(__name__)


class DemoJobs:
    """Starts collections and records how they end.

    Args:
        store: Records.
        settings: Of the learner.
        sets: The sets that there are.
        dependencies: Who can be reached.
        retire: Takes a model from the hub: one that a dead process can no longer take back.
    """

    def __init__(
        self,
        store: RunStore,
        settings: LearnerSettings,
        sets: DemoSets,
        dependencies: Dependencies,
        retire: Callable[[str], None],
    ) -> None:
        self._store, self._settings, self._sets, self._dependencies = store, settings, sets, dependencies
        self._retire = retire
        self._lock = threading.Lock()
        self._children: dict[str, Child] = {}
        self._watchers: dict[str, threading.Thread] = {}
        self._cancelled: set[str] = set()
        self._stop = StopFlag()

    def recover(self) -> None:
        """Ends the collections that an earlier learner left, once their processes are gone; removes their remains.

        Repeat it until it succeeds; what this learner has begun meanwhile is left alone.

        Raises:
            UnavailableError: Redis does not answer.
        """
        for collection in self._store.demo_collections():
            if collection.state == "collecting" or collection.unfinished:
                with self._lock:
                    if collection.name not in self._watchers:
                        self._bury_in_thread(collection.name)

    def start_scripted(self, request: ScriptedDemosRequest) -> DemoCollection:
        """Starts a collection from scripted experts.

        Raises:
            InvalidInputError: A task is unknown, has no expert, or no simulator.
            AlreadyExistsError: The name is in use for something else.
            ExhaustedError: Too many collections are under way.
            UnavailableError: Something that is needed cannot be reached.
        """
        tasks = _select(request.tasks)
        without = [task.name for task in tasks if not task.has_expert]
        if without:
            raise InvalidInputError(
                "tasks",
                f"no scripted expert for {_shown(without)}; leave them out, or collect demonstrations of a trained "
                "agent (POST /runs/{id}/demos)",
            )
        return self._start(request, tasks, source="scripted")

    def start_agent(self, run: Run, request: AgentDemosRequest) -> DemoCollection:
        """Starts a collection from a run's agent.

        Raises:
            InvalidInputError: A task is not the run's.
            NotFoundError: No such checkpoint, or none yet.
            AlreadyExistsError, ExhaustedError, UnavailableError: As above.
        """
        foreign = [task for task in request.tasks or () if task not in run.tasks]
        if foreign:
            raise InvalidInputError("tasks", f"{_shown(foreign)}: not among the run's tasks {', '.join(run.tasks)}")
        folder = CheckpointFolder(self._settings.data_dir / "runs" / run.id)
        checkpoint = request.checkpoint
        if checkpoint is None:
            names = [found.name for found in folder.list()]
            if not names:
                raise NotFoundError(f"run {run.id} has no checkpoint yet; collect demonstrations later")
            checkpoint = names[-1]
        folder.path(checkpoint)
        tasks = [get_task(name) for name in dict.fromkeys(request.tasks or run.tasks)]
        return self._start(request, tasks, source="agent", run_id=run.id, checkpoint=checkpoint)

    def start_features(self, request: FeatureDemosRequest) -> DemoCollection:
        """Starts making a set with image features of one without.

        Raises:
            InvalidInputError: No such set to start from, it is not whole, or it lacks a task.
            AlreadyExistsError, ExhaustedError, UnavailableError: As above.
        """
        self._sets.require_usable([request.source], "source")
        held = [task.task for task in self._sets.get(request.source).tasks]
        foreign = [task for task in request.tasks or () if task not in held]
        if foreign:
            raise InvalidInputError("tasks", f"{_shown(foreign)}: not in set {request.source!r}: {_shown(held)}")
        return self._start(request, _select(request.tasks or held), source="features")

    def cancel(self, name: str) -> DemoCollection:
        """Ends a collection and removes what it has stored.

        Raises:
            NotFoundError: Nobody asked for such a set.
            PreconditionError: It has ended already.
            UnavailableError: It is still ending.
        """
        with self._lock:
            collection = self._get(name)
            if collection.state != "collecting":
                raise PreconditionError(f"the collection of {name!r} has {collection.state} already")
            self._cancelled.add(name)
            if name not in self._watchers:  # an earlier learner's, or the reply to its first record was lost
                self._bury_in_thread(name)
            child, watcher = self._children.get(name), self._watchers[name]
        if child is not None:
            child.terminate()
            if not child.wait(STOP_GRACE_S):
                child.kill()
        watcher.join(CANCEL_TIMEOUT_S)
        collection = self._get(name)
        if collection.state == "collecting":
            raise UnavailableError(f"the collection of {name!r} is being cancelled; look again in a moment")
        return collection

    def stop(self) -> None:
        """Ends all collections."""
        with self._lock:
            self._stop.set()
            children, watchers = list(self._children.values()), list(self._watchers.values())
        for child in children:
            child.terminate()
        for child in children:
            if not child.wait(STOP_GRACE_S):
                child.kill()
        for watcher in watchers:
            watcher.join(STOP_GRACE_S)

    def _get(self, name: str) -> DemoCollection:
        collection = self._store.demo_collection(name)
        if collection is None:
            raise NotFoundError(f"no set {name!r} is, or was, being collected; GET /demos lists all sets")
        return collection

    # ---- starting

    def _start(
        self,
        request: ScriptedDemosRequest | AgentDemosRequest | FeatureDemosRequest,
        tasks: list[Task],
        **origin: Any,
    ) -> DemoCollection:
        name = request.name
        if re.fullmatch(SCRIPTED_SET_NAME, name):
            raise InvalidInputError("name", f"{name!r} is one of the sets that runs fill by themselves; choose another")
        asked = DemoCollection(
            name=name,
            state="collecting",
            request=request,
            tasks=[task.name for task in tasks],
            created_at=now(),
            request_id=trace.request_id(),
            **origin,
        )
        with self._lock:
            there = self._same_or_refused(asked)
            if there is not None:
                return there
            self._check_services(tasks, with_planner=asked.source == "agent")
            if len(self._children) >= MAX_JOBS:
                raise ExhaustedError(f"{MAX_JOBS} collections are under way, which is the limit; ask again later")
            self._store.put_demo_collection(asked)
            child = Child(
                "services.learner.demo_worker",
                ["--set", name],
                self._settings,
                self._settings.data_dir / "demos" / f"{name}.log",
            )
            self._children[name] = child
            self._watch_in_thread(name, partial(self._watch, name, child))
        return asked

    def _same_or_refused(self, asked: DemoCollection) -> DemoCollection | None:
        """The collection that was asked for, if it is there already; None if it has to be made."""
        known = self._store.demo_collection(asked.name)
        held = self._sets.holds(asked.name)
        if known is not None and (known.state == "collecting" or (known.state == "succeeded" and held)):
            same = (known.source, known.run_id, known.request) == (asked.source, asked.run_id, asked.request)
            if same:
                return known
            raise AlreadyExistsError(
                f"{asked.name!r} is the name of a set that was asked for with other contents; choose another name, or "
                "delete that set"
            )
        if asked.name in self._watchers:
            raise UnavailableError(f"the last collection of {asked.name!r} is still being removed; retry in a moment")
        if held and not (known is not None and known.unfinished):
            raise AlreadyExistsError(
                f"{asked.name!r} is the name of an existing set; choose another name, or delete that set"
            )
        return None

    def _check_services(self, tasks: list[Task], *, with_planner: bool) -> None:
        domains = sorted({task.domain for task in tasks})
        self._settings.require_sims(domains)
        needed = [f"sim-{domain}" for domain in domains] + (["planner"] if with_planner else [])
        missing = self._dependencies.missing()
        away = [f"{name} ({missing[name]})" for name in needed if name in missing]
        if away:
            remedies = [start_sim(domain) for domain in domains if f"sim-{domain}" in missing] or ["start it"]
            raise UnavailableError(f"cannot be reached: {', '.join(away)}; {'; '.join(remedies)}, and ask again")

    # ---- watching

    def _watch_in_thread(self, name: str, work: Callable[[], None]) -> None:
        """Call with the lock held."""

        def watch() -> None:
            try:
                work()
            except (NewtError, Stopped) as error:
                log.warning("collection_not_recorded", demo_set=name, error=str(error) or "the learner was stopped")
            finally:
                with self._lock:
                    self._watchers.pop(name, None)
                    self._cancelled.discard(name)

        self._watchers[name] = threading.Thread(target=watch, name=f"demos-{name}", daemon=True)
        self._watchers[name].start()

    def _watch(self, name: str, child: Child) -> None:
        while not child.wait(3600.0):
            pass
        with self._lock:
            self._children.pop(name, None)
            cause = "the learner was stopped" if self._stop.is_set() else f"the process {child.epitaph()}"
        self._settle_at_last(name, cause)

    def _bury_in_thread(self, name: str) -> None:
        """Call with the lock held."""
        self._watch_in_thread(name, partial(self._bury, name))

    def _bury(self, name: str) -> None:
        """Waits until no process works on the set any more: it notices the death of its learner by itself."""
        lock_file(lock_path(self._settings, name), self._stop).close()
        self._settle_at_last(name, "the learner was restarted; ask for the collection again")

    def _settle_at_last(self, name: str, cause: str) -> None:
        """Settles as soon as Redis and replay answer."""
        patiently(lambda: self._settle(name, cause), self._stop)

    def _settle(self, name: str, cause: str) -> None:
        """Says how a collection without a process has ended, and removes its remains."""
        collection = self._store.demo_collection(name)
        if collection is None:
            return
        if collection.source == "agent":
            self._retire(model_id_of(collection))
        # The process itself records success, and failures that it understands.
        if collection.state == "collecting":
            with self._lock:
                cancelled = name in self._cancelled
            ended = {"state": "cancelled"} if cancelled else {"state": "failed", "error": cause}
            collection = collection.model_copy(update={**ended, "waiting_on": None})
            self._store.put_demo_collection(collection)
        if collection.unfinished:
            self._sets.remove_remains(name)
            self._store.put_demo_collection(collection.model_copy(update={"unfinished": False}))


def lock_path(settings: LearnerSettings, name: str) -> Path:
    """The file that the process which collects a set has locked."""
    return settings.data_dir / "demos" / f"{name}.lock"


def model_id_of(collection: DemoCollection) -> str:
    """What the planners call the agent that plays."""
    return f"{collection.run_id}@demos-{zlib.crc32(collection.name.encode()):08x}"


def _select(specs: list[str]) -> list[Task]:
    try:
        return select_tasks(specs)
    except UnknownTaskError as error:
        raise InvalidInputError("tasks", str(error)) from error


def _shown(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
