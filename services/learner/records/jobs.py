"""Records of jobs: one hash for each kind, the job's id to its JSON.

The API and the job's process write the same record. As with runs, two rules are enforced inside Redis: a job that has
ended stays as it ended, and a process writes only while the attempt it was started for is the newest.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Generic, TypeVar

from newt.errors import NotFoundError
from newt.runs.jobs import Job
from newt.runs.migrations import FIELD, SCHEMA_VERSION, Kind, migrate
from newt.runs.stored import read, to_json
from services.learner.records import keys
from services.learner.records.broken import BrokenRecordError, BrokenRecords, Listing, decoding

J = TypeVar("J", bound=Job)

# KEYS: jobs, open, changes. ARGV: id, attempt or "", JSON, whether something is left to do, name and number of changes,
# allowed states.
_REPLACE = """
local present = redis.call('HGET', KEYS[1], ARGV[1])
if not present then return 'missing' end
local read, record = pcall(cjson.decode, present)
if not read or type(record) ~= 'table' then return 'broken' end
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= (record.attempt or 1) then return 'superseded' end
local allowed = false
for i = 7, #ARGV do allowed = allowed or record.state == ARGV[i] end
if not allowed then return 'ended' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call(ARGV[4] == '1' and 'SADD' or 'SREM', KEYS[2], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'record', ARGV[5])
return 'ok'
"""


class SupersededError(Exception):
    """The work has been taken from this process, by a newer attempt or by an end: it must stop."""


class JobStore(Generic[J]):
    """Records of one kind of job. Every method raises UnavailableError when Redis does not answer.

    Args:
        client: Client of Redis (records.redis).
        key: Key of the hash.
        kind: What such a record is called when it is broken.
        model: Model of a record.
        broken: Shows records that cannot be read.
    """

    def __init__(self, client: Any, key: str, kind: Kind, model: type[J], broken: BrokenRecords) -> None:
        self._broken = broken
        self._redis, self._key, self._open, self.kind, self._model = client, key, keys.open_jobs(key), kind, model

    def put(self, job: J) -> None:
        """Stores a new job, or one that begins anew."""
        text = self._encode(job)
        self._decode(job.job_id, text)  # what cannot be read back is not stored
        pipe = self._redis.pipeline()
        pipe.hset(self._key, job.job_id, text)
        (pipe.sadd if job.open else pipe.srem)(self._open, job.job_id)
        keys.note_change(pipe, keys.record(self.kind, job.job_id))
        pipe.execute()

    def replace(self, job: J, states: Collection[str] | None = None, *, attempt: int | None = None) -> bool:
        """Replaces a record.

        Args:
            job: The new one.
            states: Those from which it may be replaced; None: UNDER_WAY alone.
            attempt: Must be the newest.

        Returns:
            Whether it was replaced; the present state may not allow it.

        Raises:
            NotFoundError: There is no such job any more.
            SupersededError: There is a newer attempt.
            BrokenRecordError: The present record cannot be read.
        """
        allowed = [job.UNDER_WAY] if states is None else [str(state) for state in states]
        change = (keys.record(self.kind, job.job_id), keys.MAX_CHANGES)
        arguments = ["" if attempt is None else attempt, self._encode(job), int(job.open), *change, *allowed]
        result = self._redis.eval(_REPLACE, 3, self._key, self._open, keys.CHANGES, job.job_id, *arguments)
        if result == "missing":
            raise self._unknown(job.job_id)
        if result == "broken":
            with decoding(self.kind, job.job_id):
                raise ValueError("its JSON is damaged")
        if result == "superseded":
            raise SupersededError(f"attempt {attempt} of {self.kind} {job.job_id} has been superseded")
        return bool(result == "ok")

    def find(self, job_id: str) -> J | None:
        """A job; None if there is no such. Raises BrokenRecordError."""
        text = self._redis.hget(self._key, job_id)
        return None if text is None else self._decode(job_id, text)

    def get(self, job_id: str) -> J:
        """A job. Raises NotFoundError, BrokenRecordError."""
        job = self.find(job_id)
        if job is None:
            raise self._unknown(job_id)
        return job

    def list_all(self) -> Listing[J]:
        """All jobs, oldest first."""
        found = self._listing(self._redis.hgetall(self._key))
        self._broken.show(self.kind, found.broken)
        return found

    def list_open(self) -> Listing[J]:
        """Jobs for which something is left to do, oldest first."""
        ids = sorted(self._redis.smembers(self._open))
        texts = self._redis.hmget(self._key, ids) if ids else []
        return self._listing({job_id: text for job_id, text in zip(ids, texts, strict=True) if text is not None})

    def delete(self, job_id: str) -> bool:
        """Removes a record, whatever is in it; whether there was one."""
        pipe = self._redis.pipeline()
        pipe.hdel(self._key, job_id)
        pipe.srem(self._open, job_id)
        keys.note_change(pipe, keys.record(self.kind, job_id))
        existed = bool(pipe.execute()[0])
        self._broken.forget(self.kind, job_id)
        return existed

    def repair(self) -> None:
        """Finds the jobs for which something is left to do: an older learner kept no list of them."""
        jobs = self.list_all().records
        pipe = self._redis.pipeline()
        for job in jobs:
            (pipe.sadd if job.open else pipe.srem)(self._open, job.job_id)
        pipe.execute()

    def _listing(self, texts: dict[str, str]) -> Listing[J]:
        found = Listing[J]()
        for job_id, text in texts.items():
            try:
                found.records.append(self._decode(job_id, text))
            except BrokenRecordError as error:
                found.broken.append(error.record)
        found.records.sort(key=lambda job: job.created_at.timestamp())
        return found

    def _encode(self, job: J) -> str:
        return json.dumps({FIELD: SCHEMA_VERSION, **to_json(job)})

    def _decode(self, job_id: str, text: str) -> J:
        with decoding(self.kind, job_id):
            job = read(self._model, migrate(self.kind, json.loads(text)))
            if job.job_id != job_id:
                raise ValueError(f"it is the record of {job.job_id!r}")
            job.created_at.timestamp()  # listings are sorted by it
            return job

    def _unknown(self, job_id: str) -> NotFoundError:
        route = {"evaluation": "evaluations", "demonstrations": "demos"}.get(self.kind, self.kind)
        return NotFoundError(f"unknown {self.kind} {job_id!r}; GET /{route} lists all")
