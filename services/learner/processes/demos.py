"""Collections of demonstrations on request: each is a process of its own.

The name of the set is the name of the job: asking again for the same is harmless, asking for something else under the
same name is refused. Until a collection has succeeded, its set cannot be used; what a failed or cancelled one has
stored is removed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from newt import trace
from newt.agent.checkpoint_header import CheckpointError
from newt.agent.headers import read_header
from newt.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from newt.runs.base import now
from newt.runs.demos import AgentDemosRequest, DemoCollection, FeatureDemosRequest, ScriptedDemosRequest
from newt.runs.facts import tasks_of
from newt.runs.record import Run
from newt.runs.sections import SCRIPTED_SET_NAME
from newt.tasks.registry import Task, select_tasks
from services.learner import acting
from services.learner.checkpoints.folder import NEWEST, CheckpointFolder
from services.learner.checkpoints.modes import check_mode, trained_mode
from services.learner.processes.demo_sets import DemoSets
from services.learner.processes.dependencies import Dependencies
from services.learner.processes.stored_jobs import StoredJobKeeper
from services.learner.records.broken import BrokenRecordError
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings, start_sim
from services.learner.waiting import is_locked

MAX_JOBS = 2
STOP_GRACE_S = 10.0
CANCEL_TIMEOUT_S = 15.0


class DemoKeeper(StoredJobKeeper[DemoCollection]):
    """Starts collections and sees to their ends.

    One that was under way when the learner stopped is failed by the next: its set is named by the user, who may have
    had enough of it, and half of it cannot be gone on with.

    Args:
        records: The records, collections among them.
        settings: Settings of the learner.
        sets: The sets that there are.
        dependencies: Says who can be reached.
        retire: Takes a model from the hub: one that a dead process can no longer take back.
    """

    module = "services.learner.demonstrating.worker"

    def __init__(
        self,
        records: Records,
        settings: LearnerSettings,
        sets: DemoSets,
        dependencies: Dependencies,
        retire: Callable[[str], None],
    ) -> None:
        super().__init__(settings, records.demos, limit=MAX_JOBS, grace_s=STOP_GRACE_S)
        self._sets, self._dependencies, self._retire = sets, dependencies, retire
        self._asking = threading.Lock()  # two requests for one name at once make one set

    def submit_scripted(self, request: ScriptedDemosRequest) -> DemoCollection:
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

    def submit_agent(self, run: Run, request: AgentDemosRequest) -> DemoCollection:
        """Starts a collection from a run's agent.

        Raises:
            InvalidInputError: A task is not the run's.
            NotFoundError: No such checkpoint, or none yet.
            PreconditionError: It cannot be read, or the run's algorithm is not served by planners.
            AlreadyExistsError, ExhaustedError, UnavailableError: As above.
        """
        if run.spec.model_free():
            raise PreconditionError(
                f"run {run.id} learns by {run.spec.algorithm.name}; demonstrations are collected from agents that "
                "planners serve"
            )
        foreign = [task for task in request.tasks or () if task not in run.tasks]
        if foreign:
            raise InvalidInputError("tasks", f"{_shown(foreign)}: not among the run's tasks {', '.join(run.tasks)}")
        folder = CheckpointFolder(self._settings.folder.run(run.id))
        checkpoint = folder.resolve(request.checkpoint or NEWEST)
        try:
            header = read_header(folder.path(checkpoint))
        except CheckpointError as error:
            raise PreconditionError(f"checkpoint {checkpoint} of run {run.id} cannot be used: {error}") from error
        if "mode" not in request.model_fields_set:
            request = request.model_copy(update={"mode": trained_mode(header)})
        check_mode(header, request.mode)
        tasks = tasks_of(list(dict.fromkeys(request.tasks or run.tasks)), run.spec.task_list())
        return self._start(request, tasks, source="agent", run_id=run.id, checkpoint=checkpoint)

    def submit_features(self, request: FeatureDemosRequest) -> DemoCollection:
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
        collection = self._store.find(name)
        if collection is None:
            raise NotFoundError(f"no set {name!r} is, or was, being collected; GET /demos lists all sets")
        if not self.end(name, "cancelled"):
            raise PreconditionError(f"the collection of {name!r} has {self._store.get(name).state} already")
        if not self.await_end(name, CANCEL_TIMEOUT_S) and self.pids(name):
            raise UnavailableError(f"the collection of {name!r} is being cancelled; look again in a moment")
        return self._store.get(name)

    def log_path(self, job_id: str, role: str) -> Path:
        """Log of the process."""
        return self._settings.folder.demos_log(job_id)

    def settle(self, job_id: str) -> None:
        """Removes what a collection that did not succeed has stored, once no process works on the set any more."""
        try:
            collection = self._store.get(job_id)
        except (NotFoundError, BrokenRecordError):
            return
        if is_locked(self._settings.folder.demos_lock(job_id)):  # by a process of an earlier learner
            raise UnavailableError("its process is still ending")
        if collection.source == "agent":
            self._retire(collection.model_id)
        if collection.unfinished:
            self._sets.remove_remains(job_id)
            ended = collection.model_copy(update={"unfinished": False})
            self._store.replace(ended, [collection.state], attempt=collection.attempt)

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
            task_facts=tasks,
            created_at=now(),
            owner=acting.owner(),
            request_id=trace.request_id(),
            traceparent=trace.traceparent(),
            **origin,
        )
        with self._asking:
            there = self._same_or_refused(asked)
            if there is not None:
                return there
            self._check_services(tasks, with_planner=asked.source == "agent")
            before = self._store.find(name)
            return self.add(asked.model_copy(update={"attempt": before.attempt + 1}) if before else asked)

    def _same_or_refused(self, asked: DemoCollection) -> DemoCollection | None:
        """The collection that was asked for, if it is there already; None if it has to be made."""
        known = self._store.find(asked.name)
        held = self._sets.holds(asked.name)
        if known is not None and (known.state == "collecting" or (known.state == "succeeded" and held)):
            same = (known.source, known.run_id, known.request) == (asked.source, asked.run_id, asked.request)
            if same:
                return known
            raise AlreadyExistsError(
                f"{asked.name!r} is the name of a set that was asked for with other contents; choose another name, or "
                "delete that set"
            )
        if known is not None and known.unfinished:
            raise UnavailableError(f"the last collection of {asked.name!r} is still being removed; retry in a moment")
        if held:
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


def _select(specs: list[str]) -> list[Task]:
    try:
        return select_tasks(specs)
    except ValueError as error:
        raise InvalidInputError("tasks", str(error)) from error


def _shown(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
