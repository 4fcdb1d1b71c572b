"""Episodes in Redis: the only module that speaks to it. The layout is described in the README."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, cast

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from newt.errors import CorruptDataError, ExhaustedError, LaterVersionError, UnavailableError
from newt.redis_errors import trouble
from services.replay import metrics, scripts

# The number is that of the keys; other keys would live beside these under another number.
ROOT = "newt:replay:1"
# Redis' own cost of one episode beyond its value: key, dictionary entry, id digest in a set and a list.
EPISODE_OVERHEAD_BYTES = 200
_READ_BYTES = 8 * 2**20
_READ_EPISODES = 512
_DELETE_EPISODES = 1_000


class Kind(StrEnum):
    """What a space holds."""

    BUFFER = "buffer"
    DEMOS = "demos"


@dataclass(frozen=True)
class SpaceKey:
    """Names one buffer or one demo set in Redis."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def episodes(self) -> str:
        """Prefix of the episode keys; the sequence number follows."""
        return f"{ROOT}:{self}:e:"

    @property
    def keys(self) -> list[str]:
        """What every script gets: meta, ids, order of ids, registry."""
        return [f"{ROOT}:{self}:meta", f"{ROOT}:{self}:ids", f"{ROOT}:{self}:order", f"{ROOT}:spaces"]


@dataclass
class Meta:
    """State of a space besides its episodes.

    Attributes:
        incarnation: Drawn when the space was made; tells a space from a later one of the same name.
        config: Whatever the space's owner wants to keep with it.
        schema: Number of what its fields and episodes mean; 0 of before there were numbers, which is the same as 1.
        next: Sequence number of the next episode, hence the number of episodes ever appended.
        head: Sequence number of the oldest episode held.
        rows: Rows held.
        bytes: Bytes of the episodes held.
        env_steps: Transitions ever appended.
        updates: Highest online update asked for, plus one.
        capacity: Rows before the oldest episodes are evicted; 0 for never.
        task_steps: Transitions ever appended by task.
        task_episodes: Episodes ever appended by task.
    """

    incarnation: str
    config: bytes = b""
    schema: int = 0
    next: int = 0
    head: int = 0
    rows: int = 0
    bytes: int = 0
    env_steps: int = 0
    updates: int = 0
    capacity: int = 0
    task_steps: dict[str, int] = field(default_factory=dict)
    task_episodes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Appended:
    """Outcome of an append.

    Attributes:
        status: `stored`; `duplicate`: the id is known; `behind`: the sequence number is not the next one;
            `gone`: there is no such space, or it is another one of the same name.
        next: As in Meta, after the append; this and the following are only set when stored or duplicate.
        head: As in Meta.
        env_steps: As in Meta.
        task_steps: Env steps of the episode's task.
        task_episodes: Episodes of the episode's task.
        evicted: Episodes evicted to make room.
    """

    status: Literal["stored", "duplicate", "behind", "gone"]
    next: int = 0
    head: int = 0
    env_steps: int = 0
    task_steps: int = 0
    task_episodes: int = 0
    evicted: int = 0


@dataclass(frozen=True)
class ServerFacts:
    """What the service must know about its Redis."""

    redis_run_id: str
    maxmemory_bytes: int
    maxmemory_policy: str
    aof: bool


class Store:
    """Redis as replay uses it; safe to share between threads.

    Every method raises UnavailableError when Redis cannot be reached, ExhaustedError when it is full, and
    CorruptDataError when a key of the space holds what no version of ours has written. A command is repeated once after
    a lost connection: all of them are harmless to repeat.

    Args:
        url: redis:// address.
        timeout_s: Time for connecting and for each command.
        remembered_ids: Evicted episodes per buffer whose ids stay known.
    """

    def __init__(self, url: str, timeout_s: float, remembered_ids: int) -> None:
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            socket_keepalive=True,
            # The client's default retries ten times at growing distances, on top of its pool's own retries, which
            # would hold an Append for many seconds before it can say that Redis is down.
            retry=Retry(ConstantBackoff(0.05), 1),
            retry_on_error=[redis.exceptions.ConnectionError, redis.exceptions.TimeoutError],
        )
        shown = self._redis.connection_pool.connection_kwargs
        self._where = f"{shown.get('host', shown.get('path'))}:{shown.get('port', '')}".rstrip(":")
        self._remembered_ids = remembered_ids
        self._maxmemory_bytes = 0
        self._create = self._redis.register_script(scripts.CREATE)
        self._meta = self._redis.register_script(scripts.META)
        self._append = self._redis.register_script(scripts.APPEND)
        self._configure = self._redis.register_script(scripts.CONFIGURE)
        self._delete = self._redis.register_script(scripts.DELETE)
        self._raise_updates = self._redis.register_script(scripts.RAISE_UPDATES)

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()

    def facts(self) -> ServerFacts:
        """Identity and settings of the server; also the check that it answers."""
        with self._translated():
            info: dict[str, Any] = cast(Any, self._redis.info("everything"))
        self._maxmemory_bytes = int(info.get("maxmemory", 0))
        metrics.REDIS_USED.set(int(info.get("used_memory", 0)))
        metrics.REDIS_LIMIT.set(self._maxmemory_bytes)
        written = (info.get(f"aof_last_{what}_status", "ok") for what in ("write", "bgrewrite"))
        metrics.REDIS_AOF_OK.set(all(status == "ok" for status in written))
        return ServerFacts(
            redis_run_id=str(info.get("run_id", "")),
            maxmemory_bytes=self._maxmemory_bytes,
            maxmemory_policy=str(info.get("maxmemory_policy", "noeviction")),
            aof=bool(info.get("aof_enabled", 0)),
        )

    def set_appendfsync(self, value: str) -> None:
        """Sets when Redis writes its append-only file to disk."""
        with self._translated():
            self._redis.config_set("appendfsync", value)

    def spaces(self) -> list[SpaceKey]:
        """All buffers and demo sets, sorted by name; members that name none of either are left out."""
        with self._translated():
            members = cast(set[bytes], self._redis.smembers(f"{ROOT}:spaces"))
        pairs = (member.decode(errors="replace").partition(":")[::2] for member in sorted(members))
        return [SpaceKey(Kind(kind), name) for kind, name in pairs if kind in set(Kind) and name]

    def create(self, key: SpaceKey, config: bytes, capacity_rows: int, schema: int = scripts.SCHEMA_WHOLE) -> bool:
        """Makes a space unless it exists.

        Args:
            key: Its name.
            config: Kept with it.
            capacity_rows: Rows before the oldest episodes are evicted; 0 for never.
            schema: What it means (scripts.SCHEMA_VERSION).

        Returns:
            Whether it was made.
        """
        return self._make(key, secrets.token_hex(8), config, capacity_rows, schema)

    def restore(self, key: SpaceKey, meta: Meta) -> bool:
        """Makes a space again that Redis has forgotten; see create."""
        return self._make(key, meta.incarnation, meta.config, meta.capacity, meta.schema or scripts.SCHEMA_WHOLE)

    def _make(self, key: SpaceKey, incarnation: str, config: bytes, capacity_rows: int, schema: int) -> bool:
        with self._translated():
            return bool(self._create(key.keys, [key.episodes, incarnation, capacity_rows, str(key), config, schema]))

    def meta(self, key: SpaceKey) -> Meta | None:
        """State of a space; None if there is none, with an empty incarnation if it is being deleted.

        Raises:
            LaterVersionError: A later version has written it.
        """
        with self._translated():
            flat, known_ids = cast(tuple[list[bytes], int], self._meta(key.keys, []))
        if not flat:
            return None
        raw = dict(zip(flat[::2], flat[1::2], strict=True))
        try:
            meta = _parse_meta(raw)
        except ValueError as error:
            raise CorruptDataError(f"{key}: {error}") from error
        if meta.schema > scripts.SCHEMA_VERSION:
            raise LaterVersionError(str(key), meta.schema, scripts.SCHEMA_VERSION)
        if meta.incarnation and not 0 <= meta.next - meta.head <= known_ids:
            raise CorruptDataError(
                f"{key}: episodes {meta.head} to {meta.next} are said to be held, but {known_ids} ids are known"
            )
        return meta

    def tails(self, keys: Sequence[SpaceKey]) -> list[tuple[str, int]]:
        """Incarnation and next sequence number of spaces, in one round trip; ("", 0) where there is none."""
        with self._translated():
            pipeline = self._redis.pipeline(transaction=False)
            for key in keys:
                pipeline.hmget(key.keys[0], ["incarnation", "next"])
            rows = pipeline.execute(raise_on_error=False)
        return [_tail(row) for row in rows]

    def append(
        self, key: SpaceKey, incarnation: str, number: int, episode_id: str, payload: bytes, transitions: int, task: str
    ) -> Appended:
        """Stores one episode, counts it and evicts by capacity, all or nothing.

        Args:
            key: The space.
            incarnation: The space's, as known to the caller.
            number: Sequence number that the episode is to have; must be the next one.
            episode_id: Decides whether it is a duplicate.
            payload: Episode.pack().
            transitions: Transitions of the episode.
            task: Task of the episode.
        """
        digest = hashlib.blake2b(episode_id.encode(), digest_size=16).digest()
        arguments: list[str | bytes | int] = [
            key.episodes,
            incarnation,
            number,
            digest,
            payload,
            transitions,
            task,
            self._remembered_ids,
        ]
        with self._translated():
            status, *numbers = cast(list[bytes], self._append(key.keys, arguments))
        return Appended(cast(Any, status.decode()), *(int(n) for n in numbers))

    def read(self, key: SpaceKey, meta: Meta, first: int = 0) -> Iterator[tuple[int, bytes | None]]:
        """Episodes with their sequence numbers, oldest first, a few megabytes per round trip.

        Args:
            key: The space.
            meta: Its state; what was appended since is left out.
            first: Older ones are left out.

        Yields:
            None in place of an episode that was evicted since.
        """
        mean_bytes = meta.bytes // max(1, meta.next - meta.head)
        at_once = max(1, min(_READ_EPISODES, _READ_BYTES // max(1, mean_bytes)))
        for start in range(max(first, meta.head), meta.next, at_once):
            numbers = range(start, min(start + at_once, meta.next))
            with self._translated():
                values = cast(list[bytes | None], self._redis.mget([f"{key.episodes}{n}" for n in numbers]))
            yield from zip(numbers, values, strict=True)

    def configure(self, key: SpaceKey, incarnation: str, config: bytes, capacity_rows: int) -> int:
        """Replaces config and capacity and evicts what no longer fits.

        Returns:
            Episodes evicted; -1 if the space is gone.
        """
        with self._translated():
            return int(cast(int, self._configure(key.keys, [key.episodes, incarnation, capacity_rows, config])))

    def delete(self, key: SpaceKey) -> None:
        """Removes a space and its episodes, in pieces that do not hold Redis up; one that is broken as well."""
        try:
            self.meta(key)
        except (CorruptDataError, LaterVersionError):
            self._delete_unread(key)
            return
        left = 1
        while left:
            with self._translated():
                left = int(cast(int, self._delete(key.keys, [key.episodes, str(key), _DELETE_EPISODES])))

    def _delete_unread(self, key: SpaceKey) -> None:
        """Removes every key of a space, whatever is in them."""
        with self._translated():
            self._redis.unlink(key.keys[0])
            for episode in self._redis.scan_iter(match=f"{_literal(key.episodes)}*", count=1_000):
                self._redis.unlink(episode)
            self._redis.unlink(*key.keys[1:3])
            self._redis.srem(key.keys[3], str(key))

    def raise_updates(self, key: SpaceKey, incarnation: str, updates: int) -> None:
        """Keeps the number of updates; it never goes back."""
        with self._translated():
            self._raise_updates(key.keys, [key.episodes, incarnation, updates])

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.RedisError as error:
            reason, text = trouble(error, f"Redis at {self._where}", "NEWT_REPLAY_")
            metrics.REDIS_ERRORS.labels(reason).inc()
            if reason == "corrupt":
                raise CorruptDataError(text) from error
            if reason == "full":
                raise ExhaustedError(
                    f"{text.removesuffix(')')} {self._maxmemory_bytes} bytes): nothing was stored, nothing is lost; "
                    "raise maxmemory, delete buffers that are not needed, or lower capacity_rows with CreateBuffer"
                ) from error
            raise UnavailableError(text) from error


def _parse_meta(raw: dict[bytes, bytes]) -> Meta:
    """Raises ValueError naming the field."""
    meta = Meta(raw.get(b"incarnation", b"").decode(), raw.get(b"config", b""))
    for name in ("next", "head", "rows", "bytes", "env_steps", "updates", "capacity", "schema"):
        setattr(meta, name, _number(name, raw.get(name.encode(), b"0")))
    for name_, value in raw.items():
        group, _, task = name_.decode().partition(":")
        if group == "steps":
            meta.task_steps[task] = _number(name_, value)
        elif group == "episodes":
            meta.task_episodes[task] = _number(name_, value)
    return meta


def _number(name: object, value: bytes) -> int:
    # Above 2**53 Redis' own scripts count wrongly; a plain int() would also take "1_0", and digits without end.
    # What a script counts down may fall below 0 where an episode's own count was damaged.
    pattern = rb"-?[0-9]{1,16}" if name in ("rows", "bytes") else rb"[0-9]{1,16}"
    if not re.fullmatch(pattern, value) or int(value) > 2**53:
        raise ValueError(f"field {name!r} of its meta is {value[:40]!r}, expected a whole number up to 2**53")
    return int(value)


def _tail(row: object) -> tuple[str, int]:
    """What cannot be read equals nothing that we hold: the space is then looked at closely."""
    if not isinstance(row, list):
        return "", 0
    incarnation, next_ = row
    next_ = next_ or b"0"
    return (incarnation or b"").decode(errors="replace"), int(next_) if next_.isdigit() and len(next_) < 17 else -1


def _literal(text: str) -> str:
    """A pattern that matches this text alone."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)
