"""What Redis has of Newt, read key by key while the services write, in an order that leaves nothing pointing nowhere.

    replay: a space's episodes, then its counters, ids and order at one moment, then the episodes appended by then; of
        several shards, one after the other
    records: a run's record, then its events, metrics and evaluations, which only grow
    last of all: the lists of evaluations and runs, of those that were copied; a space is listed when it is whole

An episode never changes; one that was evicted before the moment of its space is deleted again at the end of the space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import redis
from google.protobuf.message import DecodeError

from newt.backup.commands import CommandFile, encoded
from newt.errors import ExhaustedError, InvalidInputError, UnavailableError
from newt.redis_errors import trouble
from newt.wire.v1 import replay_pb2

# The layouts are described in services/replay/README.md and services/learner/records/keys.py, which own them.
REPLAY = "newt:replay:1"
SPACES = f"{REPLAY}:spaces"
LEARNER = "newt:learner:"
RUNS, UNFINISHED = f"{LEARNER}runs", f"{LEARNER}unfinished"
JOBS = {"evaluations": f"{LEARNER}evaluations", "demos": f"{LEARNER}demos"}
STREAMS = ("events", "metrics")
PATTERN = "newt:*"

_TIMEOUT_S = 30.0
_READ_BYTES = 8 * 2**20
_READ_EPISODES = 512
_PAGE = 1_000
_ATTEMPTS = 3

# KEYS: meta, ids, order -> what they hold at one moment. The list of a buffer has the same ids as its set, which is
# then left out. A script, because a full Redis refuses transactions and must still be backed up.
_MOMENT = """
local order = redis.call('LRANGE', KEYS[3], 0, -1)
local ids = {}
if redis.call('SCARD', KEYS[2]) ~= #order then ids = redis.call('SMEMBERS', KEYS[2]) end
return {redis.call('HGETALL', KEYS[1]), ids, order}
"""


def connect(url: str) -> Any:
    """A client of a Redis; give its errors to `translated`."""
    return redis.Redis.from_url(
        url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=5.0, encoding_errors="surrogateescape"
    )


@contextmanager
def translated(then: str = "") -> Iterator[None]:
    """Makes our errors of the client's; `then` is added to what they say."""
    try:
        yield
    except redis.RedisError as error:
        reason, text = trouble(error, "Redis", "NEWT_LEARNER_")
        raise (ExhaustedError if reason == "full" else UnavailableError)(
            "; ".join(filter(None, (text, then)))
        ) from error


def run_key(run_id: str) -> str:
    """Key of a run's record."""
    return f"{LEARNER}run:{run_id}"


class Life(NamedTuple):
    """Where a run is in its life, as stored."""

    state: bytes | None
    attempt: bytes | None


@dataclass(frozen=True)
class Known:
    """What there is when a backup begins, before folders are copied: nothing younger is in it.

    Attributes:
        runs: Creation time by id.
        lives: State and attempt of each run.
        jobs: Stored text of each job by id, by kind.
    """

    runs: dict[str, float]
    lives: dict[str, Life]
    jobs: dict[str, dict[str, bytes]]

    @staticmethod
    def read(client: Any) -> Known:
        """Looks into Redis."""
        runs = {text_of(run_id): score for run_id, score in client.zrange(RUNS, 0, -1, withscores=True)}
        lives = {run_id: Life(*client.hmget(run_key(run_id), Life._fields)) for run_id in runs}
        jobs = {kind: {text_of(k): v for k, v in client.hgetall(key).items()} for kind, key in JOBS.items()}
        return Known(runs, lives, jobs)


@dataclass
class Copied:
    """What was copied of Redis.

    Attributes:
        lives: State and attempt of each run that was not deleted meanwhile.
        evaluations: Stored text of each evaluation, likewise.
        buffers: Their number.
        demo_sets: Their number.
        episodes: Episodes of both.
    """

    lives: dict[str, Life] = field(default_factory=dict)
    evaluations: dict[str, bytes] = field(default_factory=dict)
    buffers: int = 0
    demo_sets: int = 0
    episodes: int = 0


class Shard(NamedTuple):
    """One of several replay services, or the only one: a client of its Redis, and where that is copied to."""

    client: Any
    out: CommandFile


def require_all(clients: Sequence[Any]) -> None:
    """Looks whether these are the Redis of all replay services, in their order.

    Raises:
        InvalidInputError: A buffer is spread over others.
    """
    for shard, client in enumerate(clients):
        for name in sorted(text_of(space) for space in client.smembers(SPACES)):
            if not name.startswith("buffer:"):
                continue
            place = _placement(client.hget(f"{REPLAY}:{name}:meta", "config") or b"")
            if place.shard != shard or place.shards > len(clients):
                part = f"part {place.shard + 1} of {max(1, place.shards)}"
                raise InvalidInputError(
                    "--redis or NEWT_BACKUP_SHARDS",
                    f"{name} is {part} in Redis {shard + 1} of {len(clients)}; give the Redis of every replay service, "
                    "in the order of NEWT_LEARNER_REPLAY",
                )


def _placement(config: bytes) -> replay_pb2.Placement:
    """How a buffer is spread; as one that is whole if that is damaged, as replay itself will say."""
    try:
        return replay_pb2.CreateBufferRequest.FromString(config).placement
    except DecodeError:
        return replay_pb2.Placement()


def copy(shards: Sequence[Shard], known: Known) -> Copied:
    """Writes all of Newt that the Redis of each replay service has into a file of commands.

    The first one has the records.
    Records come after the buffers, so that no run has ended in its record whose episodes had not when they were read;
    jobs that collect demonstrations before their sets, so that none has ended whose set had not.
    """
    copied = Copied()
    client, out = shards[0]
    demos = client.hgetall(JOBS["demos"])
    _copy_buffers(shards, known, copied)
    _copy_demo_sets(shards, copied)
    evaluations = {
        job_id: text
        for job_id, text in client.hgetall(JOBS["evaluations"]).items()
        if text_of(job_id) in known.jobs["evaluations"]
    }
    copied.evaluations = {text_of(job_id): text for job_id, text in evaluations.items()}
    for run_id in known.runs:
        life = _copy_run(client, run_id, out)
        if life is not None:
            copied.lives[run_id] = life
    for key, jobs in ((JOBS["demos"], demos), (JOBS["evaluations"], evaluations)):
        opened = sorted(job_id for job_id in client.smembers(f"{key}:open") if job_id in jobs)
        out.add_many("HSET", key, list(chain(*jobs.items())), group=2)
        out.add_many("SADD", f"{key}:open", opened)
    # The learner finds out at its start which of them have not ended.
    for key, found in ((UNFINISHED, _members(client, UNFINISHED)), (RUNS, known.runs)):
        scored = [(score, run_id) for run_id, score in found.items() if run_id in copied.lives]
        out.add_many("ZADD", key, [encoded(str(word)) for pair in scored for word in pair], group=2)
    return copied


def _members(client: Any, key: str) -> dict[str, float]:
    return {text_of(member): score for member, score in client.zrange(key, 0, -1, withscores=True)}


def _copy_run(client: Any, run_id: str, out: CommandFile) -> Life | None:
    """None if it was deleted."""
    key = run_key(run_id)
    record = client.hgetall(key)
    if not record:
        return None
    out.add_many("HSET", key, list(chain(*record.items())), group=2)
    for stream in STREAMS:
        after = "-"
        while rows := client.xrange(f"{key}:{stream}", after, "+", count=_PAGE):
            for row_id, values in rows:
                out.add("XADD", f"{key}:{stream}", row_id, *chain(*values.items()))
            after = f"({text_of(rows[-1][0])}"
    out.add_many("RPUSH", f"{key}:evaluations", client.lrange(f"{key}:evaluations", 0, -1))
    return Life(record.get(b"state"), record.get(b"attempt"))


def _copy_buffers(shards: Sequence[Shard], known: Known, copied: Copied) -> None:
    """Before demo sets: those that a buffer uses cannot be deleted before it is.

    A buffer is there once the first shard has its part, which is made and deleted last. So the first one's list counts,
    and its part is copied last; a buffer that was deleted meanwhile is left out on every shard.
    """
    held = [set(shard.client.smembers(SPACES)) for shard in shards]
    young = {text_of(run_id) for run_id in shards[0].client.zrange(RUNS, 0, -1)} - known.runs.keys()
    for space in sorted(held[0]):
        name = text_of(space)
        if not name.startswith("buffer:") or name.removeprefix("buffer:") in young:
            continue
        parts = [_Space(shard, name) for shard, spaces in zip(shards, held, strict=True) if space in spaces]
        episodes = [part.copy() for part in reversed(parts)]
        if None in episodes:
            for part in parts:
                part.forget()
            continue
        for part in parts:
            part.list_in(SPACES)
        copied.buffers += 1
        copied.episodes += sum(filter(None, episodes))


def _copy_demo_sets(shards: Sequence[Shard], copied: Copied) -> None:
    """Each shard has its tasks' demonstrations, which do not depend on those of others."""
    names = set()
    for shard in shards:
        for name in sorted(map(text_of, shard.client.smembers(SPACES))):
            part = _Space(shard, name)
            if not name.startswith("demos:") or (episodes := part.copy()) is None:
                continue
            part.list_in(SPACES)
            names.add(name)
            copied.episodes += episodes
    copied.demo_sets = len(names)


class _Space:
    """Copies what one shard has of a buffer or demo set."""

    def __init__(self, shard: Shard, name: str) -> None:
        self._client, self._out = shard
        self._name, self._key = name, f"{REPLAY}:{name}"
        self._numbers = range(0)  # of the episodes that are in the file
        self._moment = self._client.register_script(_MOMENT)

    def copy(self) -> int | None:
        """Episodes that it held; None if it was deleted meanwhile, or is being deleted."""
        start = self._client.hgetall(f"{self._key}:meta")
        first, next_ = _number(start, b"head"), _number(start, b"next")
        missing = self._copy_episodes(range(first, next_), start)
        for _ in range(_ATTEMPTS):
            meta, ids, order = self._read_moment()
            if not meta.get(b"incarnation") or meta[b"incarnation"] != start.get(b"incarnation"):
                self._forget(range(first, next_))
                return None
            head, tail = _number(meta, b"head"), _number(meta, b"next")
            missing += self._copy_episodes(range(max(next_, head), tail), meta)
            next_ = max(next_, tail)
            if all(number < head for number in missing):
                break  # Others were evicted right after this moment, by a smaller capacity; or the original lacks them.
        self._forget(range(first, head))
        self._out.add_many("SADD", f"{self._key}:ids", ids or order)
        self._out.add_many("RPUSH", f"{self._key}:order", order)
        self._out.add_many("HSET", f"{self._key}:meta", list(chain(*meta.items())), group=2)
        self._numbers = range(head, next_)
        return max(0, tail - head)

    def list_in(self, key: str) -> None:
        """Adds it to the list of spaces, when all of it is there."""
        self._out.add("SADD", key, self._name)

    def forget(self) -> None:
        """Takes back what was copied."""
        if self._numbers:
            self._forget(self._numbers)
        for part in ("meta", "ids", "order"):
            self._out.add("DEL", f"{self._key}:{part}")

    def _read_moment(self) -> tuple[dict[bytes, bytes], list[bytes], list[bytes]]:
        flat, ids, order = self._moment([f"{self._key}:{part}" for part in ("meta", "ids", "order")])
        return dict(zip(flat[::2], flat[1::2], strict=True)), ids, order

    def _copy_episodes(self, numbers: range, meta: dict[bytes, bytes]) -> list[int]:
        """Those that are not there any more."""
        missing = []
        held = _number(meta, b"next") - _number(meta, b"head")
        mean_bytes = _number(meta, b"bytes") // max(1, held)
        at_once = max(1, min(_READ_EPISODES, _READ_BYTES // max(1, mean_bytes)))
        for start in range(numbers.start, numbers.stop, at_once):
            part = range(start, min(start + at_once, numbers.stop))
            keys = [f"{self._key}:e:{number}" for number in part]
            for number, key, value in zip(part, keys, self._client.mget(keys), strict=True):
                if value is None:
                    missing.append(number)
                else:
                    self._out.add("SET", key, value)
        return missing

    def _forget(self, numbers: range) -> None:
        for number in numbers:
            self._out.add("DEL", f"{self._key}:e:{number}")


def _number(meta: dict[bytes, bytes], name: bytes) -> int:
    """A counter; 0 for one that is damaged, as replay itself will say."""
    value = meta.get(name, b"0")
    return int(value) if re.fullmatch(rb"[0-9]{1,16}", value) else 0


def text_of(value: bytes) -> str:
    """A name out of Redis; `connect`'s clients send it as what it was."""
    return value.decode("utf-8", "surrogateescape")
