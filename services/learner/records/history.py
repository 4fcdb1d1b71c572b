"""What has happened in a run: events, metrics, evaluations. Lists and streams beside its record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from newt.runs.migrations import migrate
from newt.runs.record import Evaluation, Event, MetricsRow
from newt.runs.stored import read
from services.learner.records import keys
from services.learner.records.broken import reason

MAX_METRICS_ROWS = 20_000
MAX_EVENTS = 2_000
_PAGE = 1000

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class NewEvent:
    """Something that happens now; its time and its place in the history are Redis's."""

    kind: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> str:
        """As it is stored."""
        return json.dumps({"kind": self.kind, "message": self.message, "data": dict(self.data)})


class History:
    """Reads and adds to the histories of runs. Every method raises UnavailableError when Redis does not answer.

    An entry that cannot be read never hides the others.

    Args:
        client: Client of Redis (records.redis).
    """

    def __init__(self, client: Any) -> None:
        self._redis = client

    def add_event(self, run_id: str, event: NewEvent) -> None:
        """Appends to a run's events."""
        pipe = self._redis.pipeline()
        pipe.xadd(keys.part(run_id, "events"), {"event": event.encode()}, maxlen=MAX_EVENTS)
        keys.note_change(pipe, keys.record("run", run_id))
        pipe.execute()

    def events(self, run_id: str, after: str = "-", limit: int = _PAGE) -> list[Event]:
        """Events behind position `after`, oldest first; in the place of one that cannot be read, a warning."""
        rows = self._redis.xrange(keys.part(run_id, "events"), _behind(after), "+", count=limit)
        return [_event(row_id, fields) for row_id, fields in rows]

    def add_metrics(self, run_id: str, fields: dict[str, Any]) -> None:
        """Appends a row to a run's metrics."""
        self._redis.xadd(keys.part(run_id, "metrics"), fields, maxlen=MAX_METRICS_ROWS, approximate=True)

    def metrics(
        self,
        run_id: str,
        *,
        after: str = "-",
        limit: int = _PAGE,
        source: str | None = None,
        names: set[str] | None = None,
    ) -> list[MetricsRow]:
        """Rows of the metrics history behind position `after`, oldest first; those that cannot be read are left out.

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
            rows = self._redis.xrange(keys.part(run_id, "metrics"), _behind(position), "+", count=_PAGE)
            for row_id, fields in rows:
                position = row_id
                row = _row(run_id, row_id, fields, names)
                if row is not None and row.values and source in (None, row.source) and len(result) < limit:
                    result.append(row)
            if len(rows) < _PAGE:
                break
        return result

    def evaluations(self, run_id: str) -> list[Evaluation]:
        """All evaluations of the run itself that can be read, in order."""
        return _evaluations(run_id, self._redis.lrange(keys.part(run_id, "evaluations"), 0, -1))

    def count_evaluations(self, run_id: str) -> int:
        """How many there are, those that cannot be read included."""
        return int(self._redis.llen(keys.part(run_id, "evaluations")))

    def last_evaluation(self, run_id: str) -> Evaluation | None:
        """The newest evaluation of the run itself; None before the first."""
        found = _evaluations(run_id, self._redis.lrange(keys.part(run_id, "evaluations"), -1, -1))
        return found[0] if found else None


def _evaluations(run_id: str, rows: Iterable[str]) -> list[Evaluation]:
    found = []
    for row in rows:
        try:
            evaluation = read(Evaluation, migrate("result", json.loads(row)))
            evaluation.mean_score()
        except Exception as error:  # garbage is of any kind
            log.warning("evaluation_unreadable", run=run_id, error=reason(error))
        else:
            found.append(evaluation)
    return found


def _event(row_id: str, fields: Mapping[str, str]) -> Event:
    moment = datetime.fromtimestamp(0, UTC)
    try:
        moment = _time(row_id)
        return read(Event, {**json.loads(fields["event"]), "id": row_id, "time": moment})
    except Exception as error:  # garbage is of any kind
        return Event(id=row_id, time=moment, kind="warning", message=f"this event cannot be read ({reason(error)})")


def _row(run_id: str, row_id: str, fields: Mapping[str, str], names: set[str] | None) -> MetricsRow | None:
    try:
        values = json.loads(fields["values"])
        return MetricsRow.model_validate(
            {
                "id": row_id,
                "time": _time(row_id),
                "source": fields["source"],
                "env_steps": int(fields["env_steps"]),
                "updates": int(fields["updates"]),
                "values": {name: value for name, value in values.items() if names is None or name in names},
            }
        )
    except Exception as error:  # garbage is of any kind
        log.warning("metrics_unreadable", run=run_id, row=row_id, error=reason(error))
        return None


def _behind(position: str) -> str:
    return position if position == "-" else f"({position}"


def _time(row_id: str) -> datetime:
    return datetime.fromtimestamp(int(row_id.split("-")[0]) / 1000, UTC)
