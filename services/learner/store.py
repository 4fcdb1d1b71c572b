"""Run records in Redis: the one module that reads and writes them.

A run is a hash; its lists of runs, evaluations, metrics and events lie beside it under the same prefix. The API, the
trainer and the collector write at the same time, each its own fields. Two rules make that safe, both
enforced inside Redis: a state changes only from the states that allow it, so that nobody revives a cancelled run;
and a process writes only while the attempt it was started for is the newest.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from newt import trace
from newt.errors import NotFoundError, PreconditionError
from newt.runs.base import now
from newt.runs.demos import DemoCollection
from newt.runs.evaluations import EvaluationJob
from newt.runs.record import ACTIVE, FINISHED, Evaluation, Event, MetricsRow, Run, RunState
from newt.runs.spec import RunSpec
from services.learner import redis_client
from services.learner.progress import CollectorProgress, TrainerProgress, merge

PREFIX = "newt:learner:"
_JOBS = f"{PREFIX}evaluations"
# Field of a record: which start of the trainers is the present one, for the nodes that take part.
TRAINERS_LIFE = "trainers_life"
MAX_METRICS_ROWS = 20_000
MAX_EVENTS = 2_000

# KEYS: run, events. ARGV: attempt or "", allowed states as ",a,b,", event JSON or "", then field, value pairs.
_WRITE = """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'missing' end
if ARGV[1] ~= '' and redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return 'superseded' end
if ARGV[2] ~= '' and not string.find(ARGV[2], ',' .. state .. ',', 1, true) then return state end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if ARGV[3] ~= '' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', 2000, '*', 'event', ARGV[3]) end
return 'ok'
"""
_BUMP = """
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return -1 end
return redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
"""
# KEYS: run, evaluations, events. ARGV: attempt, evaluation, event. A repeated call changes nothing.
_ADD_EVALUATION = """
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return 'superseded' end
if redis.call('LINDEX', KEYS[2], -1) == ARGV[2] then return 'ok' end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 2000, '*', 'event', ARGV[3])
return 'ok'
"""


class SupersededError(Exception):
    """A newer attempt of the run has been started: this process must stop."""


class RunStore:
    """Records of all runs.

        store = RunStore.connect("redis://127.0.0.1:6379/0")
        run = store.create(spec, lambda run_id: data_dir / run_id)
        writer = RunWriter(store, run.id, attempt)   # in the run's processes

    Every method raises UnavailableError when Redis does not answer.
    """

    def __init__(self, client: Any) -> None:
        self._redis = client

    @classmethod
    def connect(cls, url: str) -> RunStore:
        """Connects lazily to an address with its password; nothing is sent before the first call."""
        return cls(redis_client.connect(url))

    def ping(self) -> None:
        """Raises UnavailableError unless Redis answers."""
        self._redis.ping()

    # ---- runs

    def create(self, spec: RunSpec, directory_of: Callable[[str], Path]) -> Run:
        """Stores a new run in state queued, with the request that is being followed (newt.trace).

        Args:
            spec: Of the run.
            directory_of: Maps its id to its folder.
        """
        label = "-".join(spec.name.lower().replace(".", " ").replace("_", " ").split()) or "run"
        run_id = f"{label}-{uuid.uuid4().hex[:8]}"
        created = now()
        fields = {
            "state": RunState.QUEUED.value,
            "attempt": 0,
            "spec": spec.model_dump_json(),
            "tasks": json.dumps([task.name for task in spec.task_list()]),
            "created_at": created.isoformat(),
            "directory": str(directory_of(run_id)),
            "request_id": trace.request_id() or "",
        }
        pipe = self._redis.pipeline()
        pipe.hset(_run(run_id), mapping=fields)
        pipe.zadd(f"{PREFIX}runs", {run_id: created.timestamp()})
        pipe.execute()
        self.add_event(run_id, "state", "queued")
        return self.get(run_id)

    def get(self, run_id: str) -> Run:
        """The record of a run. Raises NotFoundError."""
        fields = self._redis.hgetall(_run(run_id))
        if not fields:
            raise NotFoundError(f"unknown run {run_id!r}; GET /runs lists all runs")
        return _decode(run_id, fields)

    def list_ids(self) -> list[str]:
        """Ids of all runs, oldest first."""
        return list(self._redis.zrange(f"{PREFIX}runs", 0, -1))

    def list_runs(self) -> list[Run]:
        """All runs, oldest first."""
        return [self.get(run_id) for run_id in self.list_ids()]

    def states(self) -> dict[str, RunState]:
        """State of every run, oldest first."""
        ids = self.list_ids()
        pipe = self._redis.pipeline(transaction=False)
        for run_id in ids:
            pipe.hget(_run(run_id), "state")
        values = pipe.execute()
        return {run_id: RunState(value) for run_id, value in zip(ids, values, strict=True) if value}

    def transition(
        self,
        run_id: str,
        target: RunState,
        allowed: Iterable[RunState],
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
        states = "," + ",".join(state.value for state in allowed) + ","
        event = _event("state", message or target.value, {"state": target.value})
        values = {"state": target.value, **(fields or {})}
        return self.write(run_id, values, states=states, event=event, attempt=attempt) == "ok"

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
        fields: dict[str, str | int] = {"attempt": attempt}
        if run.started_at is None:
            fields["started_at"] = now().isoformat()
        changed = self.transition(run_id, target, [run.state], message=f"started (attempt {attempt})", fields=fields)
        return attempt if changed else None

    def cancel(self, run_id: str) -> None:
        """Cancels a run that has not ended. Raises PreconditionError for one that has."""
        allowed = [RunState.QUEUED, *ACTIVE]
        if not self.transition(run_id, RunState.CANCELLED, allowed, fields={"finished_at": now().isoformat()}):
            state = self.get(run_id).state
            raise PreconditionError(f"run {run_id} is {state} already; only a run that has not ended can be cancelled")

    def resume(self, run_id: str) -> None:
        """Queues a cancelled or failed run again. Raises PreconditionError for others."""
        allowed = [RunState.CANCELLED, RunState.FAILED]
        fields: dict[str, str | int] = {"error": "", "finished_at": "", "request_id": trace.request_id() or ""}
        if not self.transition(run_id, RunState.QUEUED, allowed, message="queued again", fields=fields):
            state = self.get(run_id).state
            raise PreconditionError(f"run {run_id} is {state}; only a cancelled or failed run can be resumed")

    def fail(self, run_id: str, error: str, *, attempt: int | None = None) -> bool:
        """Marks a run that has not ended as failed."""
        allowed = [RunState.QUEUED, *ACTIVE]
        return self.transition(
            run_id,
            RunState.FAILED,
            allowed,
            message=f"failed: {error}",
            attempt=attempt,
            fields={"error": error, "finished_at": now().isoformat()},
        )

    def begin_deletion(self, run_id: str) -> None:
        """Marks a finished run as being removed: it cannot be resumed any more. Raises PreconditionError for others."""
        if not self.transition(run_id, RunState.DELETING, FINISHED):
            state = self.get(run_id).state
            raise PreconditionError(f"run {run_id} is {state}; cancel it first, only a finished run can be deleted")

    def delete(self, run_id: str) -> None:
        """Removes a run's record and history."""
        pipe = self._redis.pipeline()
        pipe.delete(_run(run_id), *(_key(run_id, name) for name in ("events", "metrics", "evaluations")))
        pipe.zrem(f"{PREFIX}runs", run_id)
        pipe.execute()

    def count_restart(self, run_id: str, message: str) -> None:
        """Notes that a crashed process of the run is being restarted."""
        self._redis.hincrby(_run(run_id), "restarts", 1)
        self.add_event(run_id, "restart", message)

    # ---- history

    def add_event(self, run_id: str, kind: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        """Appends to the run's events."""
        self._redis.xadd(_key(run_id, "events"), {"event": _event(kind, message, data or {})}, maxlen=MAX_EVENTS)

    def events(self, run_id: str, after: str = "-", limit: int = 1000) -> list[Event]:
        """Events behind position `after`, oldest first."""
        rows = self._redis.xrange(_key(run_id, "events"), _behind(after), "+", count=limit)
        return [Event(id=row_id, time=_time(row_id), **json.loads(fields["event"])) for row_id, fields in rows]

    def metrics(
        self,
        run_id: str,
        *,
        after: str = "-",
        limit: int = 1000,
        source: str | None = None,
        names: set[str] | None = None,
    ) -> list[MetricsRow]:
        """Rows of the metrics history behind position `after`, oldest first.

        Args:
            run_id: The run.
            after: Position of the last row that was seen.
            limit: Most rows to return.
            source: Only rows of this writer.
            names: Only these values; rows without any of them are left out.
        """
        result: list[MetricsRow] = []
        position = after
        while len(result) < limit:
            rows = self._redis.xrange(_key(run_id, "metrics"), _behind(position), "+", count=1000)
            for row_id, fields in rows:
                position = row_id
                values = json.loads(fields["values"])
                chosen = {name: value for name, value in values.items() if names is None or name in names}
                if chosen and source in (None, fields["source"]) and len(result) < limit:
                    result.append(
                        MetricsRow(
                            id=row_id,
                            time=_time(row_id),
                            source=fields["source"],
                            env_steps=int(fields["env_steps"]),
                            updates=int(fields["updates"]),
                            values=chosen,
                        )
                    )
            if len(rows) < 1000:
                break
        return result

    def evaluations(self, run_id: str) -> list[Evaluation]:
        """All evaluations of the run itself, in order."""
        rows = self._redis.lrange(_key(run_id, "evaluations"), 0, -1)
        return [Evaluation.model_validate_json(row) for row in rows]

    def last_evaluation(self, run_id: str) -> Evaluation | None:
        """The newest evaluation of the run itself; None before the first."""
        row = self._redis.lindex(_key(run_id, "evaluations"), -1)
        return Evaluation.model_validate_json(row) if row else None

    def diverged(self, run_id: str) -> bool:
        """Whether the run's training ended because a loss became NaN or infinite."""
        return TrainerProgress.parse(self._redis.hget(_run(run_id), "trainer")).diverged

    def videos(self, run_id: str) -> dict[str, str]:
        """Task to name of its video."""
        return dict(json.loads(self._redis.hget(_run(run_id), "videos") or "{}"))

    # ---- evaluations on request

    def put_job(self, job: EvaluationJob) -> None:
        """Stores or replaces a requested evaluation."""
        self._redis.hset(_JOBS, job.id, job.model_dump_json())

    def job(self, job_id: str) -> EvaluationJob:
        """A requested evaluation. Raises NotFoundError."""
        value = self._redis.hget(_JOBS, job_id)
        if value is None:
            raise NotFoundError(f"unknown evaluation {job_id!r}; GET /evaluations lists all")
        return EvaluationJob.model_validate_json(value)

    def jobs(self, run_id: str | None = None) -> list[EvaluationJob]:
        """All requested evaluations, or those of a run's checkpoints, oldest first."""
        found = [EvaluationJob.model_validate_json(value) for value in self._redis.hvals(_JOBS)]
        return sorted((job for job in found if run_id in (None, job.run_id)), key=lambda job: job.created_at)

    def delete_job(self, job_id: str) -> None:
        """Removes a requested evaluation's record."""
        self._redis.hdel(_JOBS, job_id)

    # ---- demonstration sets that are, or were, collected on request

    def put_demo_collection(self, collection: DemoCollection) -> None:
        """Stores or replaces the record of a collection."""
        self._redis.hset(f"{PREFIX}demos", collection.name, collection.model_dump_json())

    def demo_collection(self, name: str) -> DemoCollection | None:
        """How a set was collected; None if nobody asked for it."""
        value = self._redis.hget(f"{PREFIX}demos", name)
        return DemoCollection.model_validate_json(value) if value else None

    def demo_collections(self) -> list[DemoCollection]:
        """All collections."""
        return [DemoCollection.model_validate_json(value) for value in self._redis.hvals(f"{PREFIX}demos")]

    def delete_demo_collection(self, name: str) -> None:
        """Forgets a collection; unknown ones are no error."""
        self._redis.hdel(f"{PREFIX}demos", name)

    # ---- for the writers of a run's own processes

    def field(self, run_id: str, name: str) -> str | None:
        """One raw field of the record."""
        value: str | None = self._redis.hget(_run(run_id), name)
        return value

    def write(
        self,
        run_id: str,
        values: Mapping[str, str | int],
        *,
        states: str = "",
        event: str = "",
        attempt: int | None = None,
    ) -> str:
        """Writes fields of the record, under the two rules above.

        Returns:
            "ok", or the present state if `states` does not list it.
        """
        pairs = [item for pair in values.items() for item in pair]
        result = str(
            self._redis.eval(
                _WRITE,
                2,
                _run(run_id),
                _key(run_id, "events"),
                "" if attempt is None else attempt,
                states,
                event,
                *pairs,
            )
        )
        if result == "missing":
            raise NotFoundError(f"unknown run {run_id!r}; GET /runs lists all runs")
        if result == "superseded":
            raise SupersededError(f"attempt {attempt} of run {run_id} has been superseded")
        return result

    def bump(self, run_id: str, attempt: int, field: str) -> int:
        """Adds 1 to a counter of the record and returns it, unless a newer attempt exists."""
        value = int(self._redis.eval(_BUMP, 1, _run(run_id), attempt, field))
        if value < 0:
            raise SupersededError(f"attempt {attempt} of run {run_id} has been superseded")
        return value

    def add_evaluation(self, run_id: str, attempt: int, evaluation: Evaluation) -> None:
        """Appends an evaluation and its event, unless a newer attempt exists; harmless to repeat."""
        score = evaluation.mean_score()
        event = _event("evaluation", f"{evaluation.kind}: mean score {score:.3f}", {"score": score})
        keys = (_run(run_id), _key(run_id, "evaluations"), _key(run_id, "events"))
        result = self._redis.eval(_ADD_EVALUATION, len(keys), *keys, attempt, evaluation.model_dump_json(), event)
        if result == "superseded":
            raise SupersededError(f"attempt {attempt} of run {run_id} has been superseded")

    def add_metrics(self, run_id: str, fields: dict[str, Any]) -> None:
        """Appends a row to the metrics history."""
        self._redis.xadd(_key(run_id, "metrics"), fields, maxlen=MAX_METRICS_ROWS, approximate=True)


def _run(run_id: str) -> str:
    return f"{PREFIX}run:{run_id}"


def _key(run_id: str, name: str) -> str:
    return f"{PREFIX}run:{run_id}:{name}"


def _event(kind: str, message: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"kind": kind, "message": message, "data": dict(data)})


def _behind(position: str) -> str:
    return position if position == "-" else f"({position}"


def _time(row_id: str) -> datetime:
    return datetime.fromtimestamp(int(row_id.split("-")[0]) / 1000, UTC)


def _decode(run_id: str, fields: Mapping[str, str]) -> Run:
    spec = RunSpec.model_validate_json(fields["spec"])
    state = RunState(fields["state"])
    return Run(
        id=run_id,
        state=state,
        attempt=int(fields["attempt"]),
        spec=spec,
        tasks=json.loads(fields["tasks"]),
        created_at=datetime.fromisoformat(fields["created_at"]),
        started_at=_date(fields.get("started_at")),
        finished_at=_date(fields.get("finished_at")),
        error=fields.get("error") or None,
        request_id=fields.get("request_id") or None,
        directory=fields["directory"],
        progress=merge(
            spec,
            state,
            trainer=TrainerProgress.parse(fields.get("trainer")),
            collector=CollectorProgress.parse(fields.get("collector")),
            weights_version=int(fields.get("weights_version", 0)),
            restarts=int(fields.get("restarts", 0)),
        ),
    )


def _date(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
