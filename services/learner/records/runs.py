"""Records of runs: one hash for each.

The API, the trainer and the collector write at the same time, each its own fields. Two rules make that safe, both
enforced inside Redis: a state changes only from the states that allow it, so that nobody revives a cancelled run;
and a process writes only while the attempt it was started for is the newest.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from newt import trace
from newt.errors import InvalidInputError, LaterVersionError, NotFoundError, PreconditionError
from newt.runs.base import now
from newt.runs.facts import plain_facts, read_facts
from newt.runs.migrations import FIELD, SCHEMA_VERSION, migrate, number_of
from newt.runs.record import ACTIVE, FINISHED, RESUMABLE, Evaluation, Run, RunChanges, RunState
from newt.runs.spec import RunSpec, stored_tasks
from newt.runs.stored import read_json, to_json, unknown_fields
from services.learner import acting
from services.learner.measured import Measured
from services.learner.records import keys
from services.learner.records.broken import BrokenRecordError, BrokenRecords, Listing, decoding, first_problem
from services.learner.records.history import MAX_EVENTS, History, NewEvent
from services.learner.records.jobs import SupersededError
from services.learner.records.progress import CollectorProgress, TrainerProgress, merge

# Fields of a record: which start of the trainers is the present one, for the nodes that take part; why the processes
# cannot be started.
TRAINERS_LIFE = "trainers_life"
BLOCKED = "blocked"
LIVING = frozenset({RunState.QUEUED, *ACTIVE})

# KEYS: run, events, runs, unfinished, changes. ARGV: run id, attempt or "", allowed states as ",a,b,", event JSON or
# "", most events, whether the new state is an end or "", name and number of changes, highest schema, then field, value
# pairs.
_WRITE = """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'missing' end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[2] then return 'superseded' end
if ARGV[3] ~= '' and not string.find(ARGV[3], ',' .. state .. ',', 1, true) then return 'refused' end
if (tonumber(redis.call('HGET', KEYS[1], 'schema_version') or 0) or 0) > tonumber(ARGV[9]) then return 'later' end
redis.call('HSET', KEYS[1], unpack(ARGV, 10))
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], '*', 'record', ARGV[7])
if ARGV[4] ~= '' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'event', ARGV[4]) end
if ARGV[6] == '1' then redis.call('ZREM', KEYS[4], ARGV[1]) end
if ARGV[6] == '0' then redis.call('ZADD', KEYS[4], redis.call('ZSCORE', KEYS[3], ARGV[1]) or 0, ARGV[1]) end
return 'ok'
"""
_BUMP = """
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return -1 end
return redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
"""
# KEYS: run, evaluations, events, changes. ARGV: attempt, evaluation, event, most events, name and number of changes.
# A repeated call changes nothing.
_ADD_EVALUATION = """
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return 'superseded' end
if redis.call('LINDEX', KEYS[2], -1) == ARGV[2] then return 'ok' end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', 'event', ARGV[3])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[6], '*', 'record', ARGV[5])
return 'ok'
"""


def new_id(spec: RunSpec) -> str:
    """An id for a new run."""
    return f"{spec.label()}-{uuid.uuid4().hex[:8]}"


class RunStore:
    """Records of all runs. Every method raises UnavailableError when Redis does not answer.

    Args:
        client: Client of Redis (records.redis).
        history: History that is told of changes of state.
        broken: Shows records that cannot be read.
    """

    def __init__(self, client: Any, history: History, broken: BrokenRecords) -> None:
        self._redis, self._history, self._broken = client, history, broken

    def create(self, run_id: str, spec: RunSpec, directory: Path) -> Run:
        """Stores a new run in state queued, with its owner and the request that is being followed (newt.trace).

        Its tasks are stored by name and with their facts: what a glob stands for may change with the version, what a
        name stands for with the simulators; a run's task table may not.

        Args:
            run_id: An id from `new_id`.
            spec: Spec of the run.
            directory: Its folder, as users are told.

        Raises:
            InvalidInputError: The record would not read back as what it was.
        """
        created = now()
        names = [task.name for task in spec.task_list()]
        spec = spec.model_copy(update={"tasks": names})
        fields = {
            FIELD: str(SCHEMA_VERSION),
            "state": RunState.QUEUED.value,
            "attempt": "0",
            "spec": spec.model_dump_json(),
            "tasks": json.dumps(names),
            "task_facts": json.dumps(plain_facts(spec.task_list())),
            "created_at": created.isoformat(),
            "directory": str(directory),
            "owner": acting.owner() or "",
            "request_id": trace.request_id() or "",
            "traceparent": trace.traceparent() or "",
        }
        run = _read_back(run_id, fields, spec)
        pipe = self._redis.pipeline()
        pipe.hset(keys.run(run_id), mapping=fields)
        for index in (keys.RUNS, keys.UNFINISHED):
            pipe.zadd(index, {run_id: created.timestamp()})
        pipe.execute()
        self._history.add_event(run_id, NewEvent("state", "queued"))
        return run

    def get(self, run_id: str) -> Run:
        """The record of a run. Raises NotFoundError, BrokenRecordError."""
        with decoding("run", run_id):
            fields = self._redis.hgetall(keys.run(run_id))
            if not fields and self._redis.zscore(keys.RUNS, run_id) is None:
                raise _unknown(run_id)
            return _decode(run_id, fields)

    def list_all(self) -> Listing[Run]:
        """All runs, oldest first."""
        found = self._listing(self._ids(keys.RUNS))
        self._broken.show("run", found.broken)
        return found

    def list_unfinished(self) -> Listing[Run]:
        """The runs that have not ended, oldest first."""
        return self._listing(self._ids(keys.UNFINISHED))

    def states(self, *, unfinished: bool = False) -> dict[str, RunState]:
        """State of every run, or of those that have not ended, oldest first; a state that is none is left out."""
        ids = self._ids(keys.UNFINISHED if unfinished else keys.RUNS)
        pipe = self._redis.pipeline(transaction=False)
        for run_id in ids:
            pipe.hget(keys.run(run_id), "state")
        known = {state.value: state for state in RunState}
        # One key of another type must not hide the others: errors come as values.
        found = zip(ids, pipe.execute(raise_on_error=False), strict=True)
        return {run_id: known[value] for run_id, value in found if isinstance(value, str) and value in known}

    def repair(self) -> None:
        """Finds the runs that have not ended: an older learner kept no list of them."""
        pipe = self._redis.pipeline()
        scores = dict(self._redis.zrange(keys.RUNS, 0, -1, withscores=True))
        for run_id, state in self.states().items():
            if state.finished:
                pipe.zrem(keys.UNFINISHED, run_id)
            else:
                pipe.zadd(keys.UNFINISHED, {run_id: scores.get(run_id, 0.0)})
        pipe.execute()

    def transition(
        self,
        run_id: str,
        target: RunState,
        allowed: Collection[RunState],
        *,
        message: str = "",
        attempt: int | None = None,
        fields: Mapping[str, str | int] | None = None,
    ) -> bool:
        """Changes the state, if the present one allows it, together with other fields.

        Returns:
            Whether the state was changed.

        Raises:
            NotFoundError: Unknown run.
            SupersededError: `attempt` is not the newest any more.
        """
        event = NewEvent("state", message or target.value, {"state": target.value})
        values = {"state": target.value, **(fields or {})}
        return self.write(run_id, values, states=frozenset(allowed), event=event, attempt=attempt)

    def begin(self, run_id: str) -> int | None:
        """Marks a queued run as started, or an active one as started again.

        Returns:
            The new attempt, or None if the run has finished in the meantime.
        """
        run = self.get(run_id)
        attempt = run.attempt + 1
        first = RunState.PRETRAINING if run.spec.pretrains() else RunState.TRAINING
        target = first if run.state is RunState.QUEUED else run.state
        if target.finished:
            return None
        fields: dict[str, str | int] = {"attempt": attempt, BLOCKED: ""}
        if run.started_at is None:
            fields["started_at"] = now().isoformat()
        changed = self.transition(run_id, target, [run.state], message=f"started (attempt {attempt})", fields=fields)
        if changed and run.ignored:
            message = f"goes on without settings that only a later version knows: {', '.join(run.ignored)}"
            self._history.add_event(run_id, NewEvent("warning", message))
        return attempt if changed else None

    def cancel(self, run_id: str) -> None:
        """Cancels a run that has not ended. Raises PreconditionError for one that has."""
        if not self.transition(run_id, RunState.CANCELLED, LIVING, fields={"finished_at": now().isoformat()}):
            state = self.get(run_id).state
            raise PreconditionError(f"run {run_id} is {state} already; only a run that has not ended can be cancelled")

    def resume(self, run_id: str) -> None:
        """Queues a cancelled or failed run again. Raises PreconditionError for others."""
        state = self.get(run_id).state  # one that cannot be read would never start
        origin = {"request_id": trace.request_id() or "", "traceparent": trace.traceparent() or ""}
        fields: dict[str, str | int] = {"error": "", "finished_at": "", **origin}
        if not self.transition(run_id, RunState.QUEUED, RESUMABLE, message="queued again", fields=fields):
            raise PreconditionError(f"run {run_id} is {state}; only a cancelled or failed run can be resumed")

    def fail(self, run_id: str, error: str, *, attempt: int | None = None) -> bool:
        """Marks a run that has not ended as failed."""
        return self.transition(
            run_id,
            RunState.FAILED,
            LIVING,
            message=f"failed: {error}",
            attempt=attempt,
            fields={"error": error, "finished_at": now().isoformat()},
        )

    def annotate(self, run_id: str, changes: RunChanges) -> None:
        """Stores what people write about a run, in any state. Raises NotFoundError."""
        values = {} if changes.tags is None else {"tags": json.dumps(changes.tags)}
        if changes.notes is not None:
            values["notes"] = changes.notes
        if values:
            self.write(run_id, values)

    def begin_deletion(self, run_id: str) -> None:
        """Marks a finished run as being removed: it cannot be resumed any more. Raises PreconditionError for others."""
        if not self.transition(run_id, RunState.DELETING, FINISHED):
            state = self.get(run_id).state
            raise PreconditionError(f"run {run_id} is {state}; cancel it first, only a finished run can be deleted")

    def delete(self, run_id: str) -> None:
        """Removes a run's record and history, whatever is in them."""
        pipe = self._redis.pipeline()
        pipe.delete(keys.run(run_id), *(keys.part(run_id, name) for name in keys.PARTS))
        pipe.zrem(keys.RUNS, run_id)
        pipe.zrem(keys.UNFINISHED, run_id)
        keys.note_change(pipe, keys.record("run", run_id))
        pipe.execute()
        self._broken.forget("run", run_id)

    def count_restart(self, run_id: str, message: str) -> None:
        """Notes that a crashed process of the run is being restarted."""
        self._redis.hincrby(keys.run(run_id), "restarts", 1)
        self._history.add_event(run_id, NewEvent("restart", message))

    def measured(self, run_id: str) -> Measured:
        """What the run's collector has measured in this attempt, or in the last."""
        with decoding("run", run_id):
            return CollectorProgress.parse(self.field(run_id, "collector")).measured

    def diverged(self, run_id: str) -> bool:
        """Whether the run's training ended because a loss became NaN or infinite."""
        with decoding("run", run_id):
            return TrainerProgress.parse(self.field(run_id, "trainer")).diverged

    def videos(self, run_id: str) -> dict[str, str]:
        """Task to name of its video."""
        with decoding("run", run_id):
            return dict(json.loads(self.field(run_id, "videos") or "{}"))

    def field(self, run_id: str, name: str) -> str | None:
        """One raw field of the record."""
        value: str | None = self._redis.hget(keys.run(run_id), name)
        return value

    # ---- for the writers of a run's own processes

    def write(
        self,
        run_id: str,
        values: Mapping[str, str | int],
        *,
        states: frozenset[RunState] | None = None,
        event: NewEvent | None = None,
        attempt: int | None = None,
    ) -> bool:
        """Writes fields of the record, under the two rules above.

        Returns:
            Whether the present state is one of `states`, if any are given.

        Raises:
            NotFoundError: Unknown run.
            SupersededError: `attempt` is not the newest any more.
            LaterVersionError: A later version has written the record.
        """
        target = values.get("state")
        ends = "" if target is None else int(RunState(str(target)).finished)
        result = self._redis.eval(
            _WRITE,
            5,
            keys.run(run_id),
            keys.part(run_id, "events"),
            keys.RUNS,
            keys.UNFINISHED,
            keys.CHANGES,
            run_id,
            "" if attempt is None else attempt,
            f",{','.join(states)}," if states is not None else "",
            event.encode() if event else "",
            MAX_EVENTS,
            ends,
            keys.record("run", run_id),
            keys.MAX_CHANGES,
            SCHEMA_VERSION,
            *(item for pair in values.items() for item in pair),
        )
        if result == "missing":
            raise _unknown(run_id)
        if result == "superseded":
            raise SupersededError(f"attempt {attempt} of run {run_id} has been superseded")
        if result == "later":
            raise LaterVersionError(f"run {run_id}", number_of(self.field(run_id, FIELD)), SCHEMA_VERSION)
        return bool(result == "ok")

    def bump(self, run_id: str, attempt: int, field: str) -> int:
        """Adds 1 to a counter of the record and returns it, unless a newer attempt exists."""
        value = int(self._redis.eval(_BUMP, 1, keys.run(run_id), attempt, field))
        if value < 0:
            raise SupersededError(f"attempt {attempt} of run {run_id} has been superseded")
        return value

    def add_evaluation(self, run_id: str, attempt: int, evaluation: Evaluation) -> None:
        """Appends an evaluation and its event, unless a newer attempt exists; harmless to repeat."""
        score = evaluation.mean_score()
        event = NewEvent("evaluation", f"{evaluation.kind}: mean score {score:.3f}", {"score": score})
        places = (keys.run(run_id), keys.part(run_id, "evaluations"), keys.part(run_id, "events"), keys.CHANGES)
        change = (keys.record("run", run_id), keys.MAX_CHANGES)
        text = json.dumps({FIELD: SCHEMA_VERSION, **to_json(evaluation)})
        arguments = (attempt, text, event.encode(), MAX_EVENTS, *change)
        result = self._redis.eval(_ADD_EVALUATION, len(places), *places, *arguments)
        if result == "superseded":
            raise SupersededError(f"attempt {attempt} of run {run_id} has been superseded")

    def _ids(self, index: str) -> list[str]:
        return list(self._redis.zrange(index, 0, -1))

    def _listing(self, ids: Collection[str]) -> Listing[Run]:
        pipe = self._redis.pipeline(transaction=False)
        for run_id in ids:
            pipe.hgetall(keys.run(run_id))
        found = Listing[Run]()
        for run_id, fields in zip(ids, pipe.execute(raise_on_error=False), strict=True):
            try:
                found.records.append(_decode(run_id, fields))
            except BrokenRecordError as error:
                found.broken.append(error.record)
        return found


def _unknown(run_id: str) -> NotFoundError:
    return NotFoundError(f"unknown run {run_id!r}; GET /runs lists all runs")


def _read_back(run_id: str, fields: Mapping[str, str], spec: RunSpec) -> Run:
    """The run that these fields will be read as. Raises InvalidInputError unless it is the one that was asked for."""
    try:
        run = _decode(run_id, fields)
    except BrokenRecordError as error:
        cause = error.__cause__
        field, message = first_problem(cause) if isinstance(cause, ValidationError) else ("", str(cause))
        raise InvalidInputError(
            field or "spec", f"cannot be stored as it is ({message}); give another value"
        ) from error
    for name in RunSpec.model_fields:
        if getattr(run.spec, name) != getattr(spec, name):
            raise InvalidInputError(
                name, f"got {getattr(spec, name)}, but {getattr(run.spec, name)} would be stored; give another value"
            )
    return run


def _decode(run_id: str, fields: Any) -> Run:
    """A run of the fields of its hash, or of the error in their place."""
    with decoding("run", run_id):
        if isinstance(fields, Exception):
            raise fields
        if not fields:
            raise ValueError("it is gone, but for its place in the list of runs")
        spec = _spec(fields["spec"], fields["tasks"], fields.get("task_facts"), fields.get(FIELD, "0"))
        state = RunState(fields["state"])
        return Run(
            id=run_id,
            state=state,
            attempt=int(fields["attempt"]),
            spec=spec,
            ignored=unknown_fields(spec),
            tasks=list(spec.tasks),
            task_facts=spec.task_list() if fields.get("task_facts") else [],
            created_at=datetime.fromisoformat(fields["created_at"]),
            started_at=_date(fields.get("started_at")),
            finished_at=_date(fields.get("finished_at")),
            error=fields.get("error") or None,
            owner=fields.get("owner") or None,
            tags=json.loads(fields.get("tags") or "[]"),
            notes=fields.get("notes") or "",
            request_id=fields.get("request_id") or None,
            traceparent=fields.get("traceparent") or None,
            directory=fields["directory"],
            progress=merge(
                spec,
                state,
                trainer=TrainerProgress.parse(fields.get("trainer")),
                collector=CollectorProgress.parse(fields.get("collector")),
                weights_version=int(fields.get("weights_version", 0)),
                restarts=int(fields.get("restarts", 0)),
                blocked=fields.get(BLOCKED) or None,
            ),
        )


@lru_cache(maxsize=1_000)
def _spec(text: str, tasks_text: str, facts_text: str | None, number: str) -> RunSpec:
    """The settings in a record, which never change."""
    stored = {FIELD: number, "spec": json.loads(text), "tasks": json.loads(tasks_text)}
    record, facts = migrate("run", stored), read_facts(json.loads(facts_text or "[]"))
    if facts and [task.name for task in facts] != record["tasks"]:
        raise ValueError("its tasks and their facts are not of the same tasks")
    with stored_tasks(facts):
        return read_json(RunSpec, json.dumps(record["spec"]))


def _date(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
