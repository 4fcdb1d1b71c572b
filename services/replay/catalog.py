"""All buffers and demo sets of one Redis, and the calls that concern them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import structlog
from google.protobuf.message import DecodeError

from newt.errors import (
    CorruptDataError,
    ExhaustedError,
    InvalidInputError,
    LaterVersionError,
    NewtError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from newt.wire.episodes import Episode
from newt.wire.v1 import replay_pb2
from services.replay import metrics
from services.replay.buffer import Buffer
from services.replay.checks import check_config, check_episode, check_name, encoders_differ
from services.replay.scripts import SCHEMA_VERSION, SCHEMA_WHOLE
from services.replay.space import Space
from services.replay.store import Appended, Kind, Meta, SpaceKey, Store

log = structlog.get_logger(__name__)


class Catalog:
    """What replay serves. Thread-safe.

        catalog = Catalog(store)
        catalog.refresh()                   # loads everything; afterwards: repairs whatever differs from Redis
        catalog.create_buffer(request)
        catalog.append(append_request, timeout_s=5)

    Locks, in the order in which they may be taken: `_structure` (making and removing spaces, held during round trips
    to Redis), a space's own (its appends, the same), `lock` (mirrors and counters, held for short times only).

    Args:
        store: Redis.
    """

    def __init__(self, store: Store) -> None:
        self.lock = threading.RLock()
        self._store = store
        self._structure = threading.RLock()
        self._buffers: dict[str, Buffer] = {}
        self._demos: dict[str, Space] = {}
        self._loaded = False
        self._saved_updates: dict[str, int] = {}
        self._broken: dict[SpaceKey, NewtError] = {}

    def close(self) -> None:
        """Ends all waiting calls."""
        for buffer in list(self._buffers.values()):
            buffer.close(UnavailableError("the replay service is shutting down; retry"))

    def wake_all(self) -> None:
        """Lets all waiting calls look at their callers again."""
        with self.lock:
            for buffer in self._buffers.values():
                buffer.room.wake()

    def refresh(self) -> None:
        """Loads what Redis has and we lack, repairs what differs, and stores the counts of updates.

        A space that cannot be read is left out, with its reason, and looked at again the next time; the others go on.

        Raises:
            UnavailableError: Redis cannot be reached; what is mirrored stays as it is.
        """
        with self._structure:
            start = time.perf_counter()
            # Demo sets first: buffers refer to them.
            keys = sorted(self._store.spaces(), key=lambda key: key.kind is Kind.BUFFER)
            for gone in self._broken.keys() - set(keys):
                del self._broken[gone]
            for key in keys:
                if key.name not in (self._demos if key.kind is Kind.DEMOS else self._buffers):
                    self._isolated(key, partial(self._load, key))
            if not self._loaded:
                self._loaded = True
                metrics.REBUILD_SECONDS.set(time.perf_counter() - start)
                self._log_loaded(time.perf_counter() - start)
            spaces = self._spaces()
            for space, tail in zip(spaces, self._store.tails([space.key for space in spaces]), strict=True):
                if tail != (space.meta.incarnation, space.mirror.next):
                    self._isolated(space.key, partial(self._repair, space))
        for buffer in list(self._buffers.values()):
            self._save_updates(buffer)

    def observe(self) -> None:
        """Sets the gauges."""
        with self.lock:
            for kind in Kind:
                mirrors = [space.mirror for space in self._spaces() if space.key.kind is kind]
                metrics.EPISODES.labels(kind).set(sum(mirror.episodes for mirror in mirrors))
                metrics.ROWS.labels(kind).set(sum(mirror.rows for mirror in mirrors))
                metrics.BYTES.labels(kind).set(sum(mirror.size_bytes for mirror in mirrors))
                metrics.BROKEN.labels(kind).set(sum(key.kind is kind for key in list(self._broken)))
            metrics.BROKEN.labels("episode").set(sum(len(space.broken) for space in self._spaces()))

    def buffer(self, buffer_id: str) -> Buffer:
        """A buffer by its id.

        Raises:
            NotFoundError: There is none.
            CorruptDataError: There is one, which cannot be read.
            LaterVersionError: There is one, which a later version has written.
            UnavailableError: The mirror is still being rebuilt.
        """
        check_name("buffer_id", buffer_id)
        self._require_loaded()
        buffer = self._buffers.get(buffer_id)
        if buffer is None:
            self._require_whole(SpaceKey(Kind.BUFFER, buffer_id), "DeleteBuffer")
            raise NotFoundError(f"buffer {buffer_id!r} does not exist; make it with CreateBuffer")
        return buffer

    def create_buffer(self, request: replay_pb2.CreateBufferRequest) -> bool:
        """Makes a buffer, or changes its limiter and capacity.

        Returns:
            Whether it existed.

        Raises:
            PreconditionError: It exists with other contents, or a demo set has other dims.
        """
        check_config(request)
        self._require_loaded()
        with self._structure:
            existing = self._buffers.get(request.buffer_id)
            if existing is not None:
                self._reconfigure(existing, request)
                return True
            self._require_whole(SpaceKey(Kind.BUFFER, request.buffer_id), "DeleteBuffer")
            demos = [self._demo_set(name, create=request.HasField("placement")) for name in request.demo_sets]
            for space in demos:
                self._check_demo_dims(request, space)
            key = SpaceKey(Kind.BUFFER, request.buffer_id)
            schema = SCHEMA_VERSION if request.HasField("placement") else SCHEMA_WHOLE
            self._store.create(key, request.SerializeToString(deterministic=True), request.capacity_rows, schema)
            self._load(key)
            return False

    def delete_buffer(self, buffer_id: str) -> int:
        """Removes a buffer; returns the number of its episodes, 0 if there is none."""
        check_name("buffer_id", buffer_id)
        self._require_loaded()
        with self._structure:
            buffer = self._buffers.get(buffer_id)
            if buffer is None:
                self._delete_broken(SpaceKey(Kind.BUFFER, buffer_id))
                return 0
            episodes = buffer.space.delete()
            self._forget(buffer.space)
            return episodes

    def append(self, request: replay_pb2.AppendRequest, timeout_s: float) -> Appended:
        """Stores an episode; see the proto."""
        target = request.WhichOneof("target")
        if target == "buffer_id":
            space, episode = self._online_episode(request)
        elif target == "demo_set":
            space, episode = self._demo_episode(request)
        else:
            raise InvalidInputError("target", "got none, expected buffer_id or demo_set")
        appended = space.append(episode, timeout_s)
        kind = space.key.kind
        if appended.status == "stored":
            metrics.APPENDED.labels(kind).inc(episode.transitions)
            metrics.APPENDED_EPISODES.labels(kind).inc()
        else:
            metrics.DUPLICATES.labels(kind).inc()
        return appended

    def list_demo_sets(self, name: str) -> list[replay_pb2.DemoSet]:
        """Demo sets, or the one of that name."""
        self._require_loaded()
        if name:
            check_name("demo_set", name)
        spaces = [self._demo_set(name)] if name else [self._demos[n] for n in sorted(self._demos)]
        with self.lock:
            whole = [_demo_set(space) for space in spaces]
        broken = [] if name else [(key, why) for key, why in self._broken.items() if key.kind is Kind.DEMOS]
        return whole + [replay_pb2.DemoSet(name=key.name, error=str(why)) for key, why in sorted(broken, key=str)]

    def delete_demo_set(self, name: str) -> int:
        """Removes a demo set that no buffer uses; returns the number of its episodes."""
        check_name("demo_set", name)
        self._require_loaded()
        with self._structure:
            if self._delete_broken(SpaceKey(Kind.DEMOS, name)):
                return 0
            space = self._demo_set(name)
            users = sorted(b.config.buffer_id for b in self._buffers.values() if name in b.config.demo_sets)
            if users:
                raise PreconditionError(
                    f"demo set {name!r} is used by buffer {', '.join(users)}; delete the buffer first"
                )
            episodes = space.delete()
            self._forget(space)
            return episodes

    def read_episodes(self, request: replay_pb2.ReadEpisodesRequest) -> Iterator[Episode]:
        """Whole episodes out of Redis, oldest first."""
        self._require_loaded()
        source = request.WhichOneof("source")
        if source is None:
            raise InvalidInputError("source", "got none, expected buffer_id or demo_set")
        space = self.buffer(request.buffer_id).space if source == "buffer_id" else self._demo_set(request.demo_set)
        meta = self._store.meta(space.key)
        if meta is None:
            raise NotFoundError(f"{space.key} was deleted")
        for number, payload in self._store.read(space.key, meta):
            episode = space.unpack(number, payload) if payload is not None else None
            if episode is not None and request.task in ("", episode.task):
                yield episode

    def _online_episode(self, request: replay_pb2.AppendRequest) -> tuple[Space, Episode]:
        buffer = self.buffer(request.buffer_id)
        dims = buffer.dims.get(request.episode.task)
        if dims is None:
            check_name("episode.task", request.episode.task)
            raise InvalidInputError(
                "episode.task",
                f"got {request.episode.task!r}, expected one of the buffer's {len(buffer.dims)} tasks: "
                f"{', '.join(list(buffer.dims)[:8])}{', ...' if len(buffer.dims) > 8 else ''}",
            )
        placement = buffer.config.placement
        if not buffer.has_place_for(dims[0]):
            raise PreconditionError(
                f"task {request.episode.task!r} of buffer {request.buffer_id!r} is kept on shard "
                f"{placement.task_shards[dims[0]]}, this is shard {placement.shard}; name all replay services"
            )
        episode = check_episode(request.episode, dims[1], dims[2], buffer.config.image_dim)
        if encoders_differ(episode.image_encoder, buffer.config.image_encoder):
            raise InvalidInputError(
                "episode.image_encoder",
                f"got {episode.image_encoder!r}, expected the buffer's, {buffer.config.image_encoder!r}",
            )
        if episode.transitions + 1 > buffer.config.capacity_rows:
            raise InvalidInputError(
                "episode.reward",
                f"got {episode.transitions} transitions, expected at most {buffer.config.capacity_rows - 1}: "
                "the buffer's capacity_rows holds no longer episode",
            )
        return buffer.space, episode

    def _demo_episode(self, request: replay_pb2.AppendRequest) -> tuple[Space, Episode]:
        check_name("demo_set", request.demo_set)
        self._require_loaded()
        self._require_whole(SpaceKey(Kind.DEMOS, request.demo_set), "DeleteDemoSet")
        space = self._demos.get(request.demo_set)
        task = request.episode.task
        held = space.mirror.tasks.get(task) if space else None
        if held is not None:
            dims: tuple[int | None, ...] = (held.obs_dim, held.action_dim, held.image_dim)
        else:
            dims = (None, None, None)
        episode = check_episode(request.episode, *dims)
        if space is None:
            space = self._create_demo_set(request.demo_set)
        elif held is None:
            for buffer in list(self._buffers.values()):
                run = buffer.dims.get(task)
                got = (episode.obs.shape[1], episode.action.shape[1])
                if run is None or request.demo_set not in buffer.config.demo_sets:
                    continue
                if run[1:] != got:
                    raise PreconditionError(_dims_differ(request.demo_set, task, got, buffer.config.buffer_id, run[1:]))
                if not buffer.has_place_for(run[0]):
                    # Or a sampler that is uniform over tasks would count it twice.
                    raise PreconditionError(
                        f"demo set {request.demo_set!r} is used by buffer {buffer.config.buffer_id!r}, which keeps "
                        f"{task!r} on another shard; use a new set"
                    )
        return space, episode

    def _create_demo_set(self, name: str) -> Space:
        with self._structure:
            if name not in self._demos:
                key = SpaceKey(Kind.DEMOS, name)
                self._store.create(key, b"", capacity_rows=0)
                self._load(key)
            return self._demos[name]

    def _reconfigure(self, buffer: Buffer, request: replay_pb2.CreateBufferRequest) -> None:
        fixed = []
        for config in (buffer.config, request):
            copy = replay_pb2.CreateBufferRequest()
            copy.CopyFrom(config)
            copy.ClearField("limiter")
            copy.ClearField("capacity_rows")
            copy.DiscardUnknownFields()  # a later version has written them, or asks for them
            fixed.append(copy)
        if fixed[0] != fixed[1]:
            names = [
                field.name
                for field in fixed[0].DESCRIPTOR.fields
                if getattr(fixed[0], field.name) != getattr(fixed[1], field.name)
            ]
            raise PreconditionError(
                f"buffer {request.buffer_id!r} exists with other {', '.join(names)}; only limiter and "
                "capacity_rows may change: delete the buffer, or choose another id"
            )
        if buffer.config == request:
            return
        config = replay_pb2.CreateBufferRequest()
        config.CopyFrom(buffer.config)  # with fields that only a later version knows
        config.limiter.CopyFrom(request.limiter)
        config.capacity_rows = request.capacity_rows
        buffer.space.configure(config.SerializeToString(deterministic=True), config.capacity_rows)
        with self.lock:
            buffer.config = config
            buffer.room.wake()

    def _load(self, key: SpaceKey) -> None:
        meta = self._store.meta(key)
        if meta is None:
            return
        if not meta.incarnation:
            log.info("deletion_finished", space=str(key))
            self._store.delete(key)
            return
        space = Space(self._store, key, meta, self.lock, lambda: self._wake(key))
        space.load()
        if key.kind is Kind.DEMOS:
            with self.lock:
                self._demos[key.name] = space
            return
        config = _stored_config(key, meta)
        demos = [self._demos[name] for name in config.demo_sets if name in self._demos]
        if len(demos) < len(config.demo_sets):
            log.error("demo_set_missing", space=str(key), demo_sets=list(config.demo_sets))
        with self.lock:
            self._buffers[key.name] = Buffer(config, space, demos, self.lock)

    def _isolated(self, key: SpaceKey, work: Callable[[], None]) -> None:
        """Does something with one space; what it cannot read keeps this space alone from being served."""
        try:
            work()
        except (UnavailableError, ExhaustedError):
            raise  # Redis itself: no space can be read now
        except Exception as error:  # whatever is stored, the other spaces must be served
            why: NewtError = CorruptDataError(f"{key} cannot be read: {error}")
            if isinstance(error, LaterVersionError):
                why = error
            if str(self._broken.get(key)) != str(why):
                log.error("space_broken", space=str(key), error=str(error), exc_info=not isinstance(error, NewtError))
            self._broken[key] = why
            space = self._demos.get(key.name) if key.kind is Kind.DEMOS else None
            buffer = self._buffers.get(key.name) if key.kind is Kind.BUFFER else None
            if found := space or (buffer and buffer.space):
                self._forget(found, why)
        else:
            if self._broken.pop(key, None) is not None:
                log.info("space_whole_again", space=str(key))

    def _require_whole(self, key: SpaceKey, remedy: str) -> None:
        if (why := self._broken.get(key)) is None:
            return
        if isinstance(why, LaterVersionError):
            raise why.with_traceback(None)  # else it would grow by each caller's frames
        raise CorruptDataError(f"{why}; mend it in Redis, or remove it with {remedy}")

    def _delete_broken(self, key: SpaceKey) -> bool:
        """Removes a space that cannot be read; False if there is no such."""
        if key not in self._broken:
            return False
        self._store.delete(key)
        self._broken.pop(key, None)
        log.info("broken_space_deleted", space=str(key))
        return True

    def _repair(self, space: Space) -> None:
        try:
            space.sync()
        except NotFoundError as error:
            log.error("space_dropped", space=str(space.key), why=str(error))
            self._forget(space)

    def _forget(self, space: Space, why: NewtError | None = None) -> None:
        with self.lock:
            if space.key.kind is Kind.DEMOS:
                self._demos.pop(space.key.name, None)
                return
            buffer = self._buffers.pop(space.key.name, None)
            self._saved_updates.pop(space.key.name, None)
            if buffer:
                buffer.close(why or NotFoundError(f"buffer {space.key.name!r} was deleted"))

    def _save_updates(self, buffer: Buffer) -> None:
        name, updates = buffer.config.buffer_id, buffer.space.meta.updates
        if self._saved_updates.get(name) == updates:
            return
        try:
            self._store.raise_updates(buffer.space.key, buffer.space.meta.incarnation, updates)
            self._saved_updates[name] = updates
        except NewtError as error:
            # A full Redis refuses this too. The number only spares the limiter a guess after a restart.
            log.warning("updates_not_saved", buffer_id=name, error=str(error))

    def _wake(self, key: SpaceKey) -> None:
        for buffer in self._buffers.values():
            if key == buffer.space.key or (key.kind is Kind.DEMOS and key.name in buffer.config.demo_sets):
                buffer.room.wake()

    def _spaces(self) -> list[Space]:
        return [*self._demos.values(), *(buffer.space for buffer in self._buffers.values())]

    def _demo_set(self, name: str, create: bool = False) -> Space:
        space = self._demos.get(name)
        if space is None:
            self._require_whole(SpaceKey(Kind.DEMOS, name), "DeleteDemoSet")
            if create:
                return self._create_demo_set(name)
            known = ", ".join(sorted(self._demos)) or "none"
            raise NotFoundError(f"demo set {name!r} does not exist (there are: {known}); append its first episode")
        return space

    def _check_demo_dims(self, request: replay_pb2.CreateBufferRequest, space: Space) -> None:
        for dims in request.tasks:
            held = space.mirror.tasks.get(dims.task)
            if held is None:
                continue
            got, want = (held.obs_dim, held.action_dim), (dims.obs_dim, dims.action_dim)
            if got != want:
                raise PreconditionError(_dims_differ(space.key.name, dims.task, got, request.buffer_id, want))
            if request.image_dim and held.image_dim and held.image_dim != request.image_dim:
                raise PreconditionError(
                    f"demo set {space.key.name!r} has {held.image_dim} image columns for {dims.task!r}, buffer "
                    f"{request.buffer_id!r} {request.image_dim}; compute the demos' features with the run's encoder"
                )
            if request.image_dim and encoders_differ(request.image_encoder, held.image_encoder):
                raise PreconditionError(
                    f"demo set {space.key.name!r} has features of {held.image_encoder!r} for {dims.task!r}, buffer "
                    f"{request.buffer_id!r} of {request.image_encoder!r}; compute the demos' features with the run's "
                    "encoder"
                )

    def _require_loaded(self) -> None:
        if not self._loaded:
            raise UnavailableError("the mirror is being rebuilt from Redis, or Redis was not there yet; retry")

    def _log_loaded(self, seconds: float) -> None:
        log.info(
            "mirror_rebuilt",
            buffers=len(self._buffers),
            demo_sets=len(self._demos),
            rows=sum(space.mirror.rows for space in self._spaces()),
            seconds=round(seconds, 2),
        )


def _stored_config(key: SpaceKey, meta: Meta) -> replay_pb2.CreateBufferRequest:
    """Raises CorruptDataError, or InvalidInputError for one that can never work."""
    try:
        config = replay_pb2.CreateBufferRequest.FromString(meta.config)
    except DecodeError as error:
        raise CorruptDataError(f"its configuration is no CreateBufferRequest: {error}") from error
    check_config(config)
    if config.buffer_id != key.name:
        raise CorruptDataError(f"its configuration is that of buffer {config.buffer_id!r}")
    return config


def _dims_differ(demo_set: str, task: str, got: tuple[int, ...], buffer_id: str, want: tuple[int, ...]) -> str:
    return (
        f"demo set {demo_set!r} has obs and action dims {got} for {task!r}, buffer {buffer_id!r} has {want}; "
        "they must come from the same version of the task"
    )


def _demo_set(space: Space) -> replay_pb2.DemoSet:
    tasks = [
        replay_pb2.DemoTask(
            task=task,
            episodes=totals.episodes,
            rows=totals.rows,
            mean_return=totals.returns / totals.episodes,
            mean_score=totals.scores / totals.episodes,
            mean_success=totals.successes / totals.with_success if totals.with_success else math.nan,
            image_dim=space.mirror.tasks[task].image_dim,
            image_encoder=space.mirror.tasks[task].image_encoder,
        )
        for task, totals in sorted(space.mirror.totals.items())
    ]
    return replay_pb2.DemoSet(name=space.key.name, tasks=tasks, size_bytes=space.mirror.size_bytes)
