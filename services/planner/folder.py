"""Models from a folder of files, beside those of the hub: agents that no run trains."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from newt.acting.files import find_file
from newt.errors import CorruptDataError, InvalidInputError, NewtError, NotFoundError
from newt.wire.limits import MODEL_ID
from services.planner import metrics
from services.planner.model import LoadedModel
from services.planner.store import ModelStore, Refusal

SUFFIXES = (".safetensors", ".pt")
# Volumes and links tell nobody that a file has changed, so somebody has to look.
LOOK_EVERY_S = 0.5
# What this process could not load, for want of memory, say.
RETRY_AFTER_S = 30.0

Load = Callable[[str, int, Path], LoadedModel]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Seen:
    """What tells a version of a file from others."""

    path: Path
    changed_ns: int
    size_bytes: int
    inode: int


@dataclass
class _Entry:
    """One name in the folder.

    Attributes:
        seen: The file at the last look.
        taken: The one that was loaded or refused.
        version: Of the newest model that was made of it.
        retry_at: When to try `taken` again, monotonic; None: never.
    """

    seen: _Seen
    taken: _Seen | None = None
    version: int = 0
    retry_at: float | None = None


class ModelFolder:
    """A thread that keeps the models of this process equal to the files of a folder.

    `NAME.safetensors`, `NAME.pt`, and a folder `NAME`, which stands for its newest checkpoint, are model NAME. Links
    are followed. A file is loaded when it did not change between two looks: whoever writes it is waited for. It
    replaces the model between two batches; what cannot be used is refused, and an older version goes on being served.

    Args:
        folder: The folder; none yet is an empty one.
        store: Store that models go to.
        load: Builds and checks a model of an id, a version and a file.
        on_change: Called after the set of models has changed.
    """

    def __init__(self, folder: Path, store: ModelStore, load: Load, on_change: Callable[[], None]) -> None:
        self._folder, self._store, self._load, self._on_change = folder, store, load, on_change
        self._entries: dict[str, _Entry] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="models", daemon=True)

    def start(self) -> None:
        """Starts looking."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the thread; a load under way is waited for."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception as error:  # Giving up would leave this planner with old models for ever.
                log.error("model_folder_failed", folder=str(self._folder), exc_info=error)
            self._stopping.wait(LOOK_EVERY_S)

    def look(self) -> None:
        """Takes what is new since the last look, and forgets what is gone."""
        found = self._found()
        self._store.keep_names(found)
        for name in [name for name in self._entries if name not in found]:
            del self._entries[name]
            self._store.drop(name)
            log.info("model_file_gone", model_id=name)
            self._on_change()
        for name, seen in found.items():
            entry = self._entries.setdefault(name, _Entry(seen))
            settled, entry.seen = entry.seen == seen, seen
            due = entry.retry_at is not None and time.monotonic() >= entry.retry_at
            if settled and (entry.taken != seen or due or self._store.asked_again(name)):
                self._take(name, entry)

    def _found(self) -> dict[str, _Seen]:
        found: dict[str, _Seen] = {}
        try:
            paths = sorted(self._folder.iterdir())
        except FileNotFoundError:
            return found
        for path in paths:
            name = path.name if path.is_dir() else path.stem
            usable = path.is_dir() or path.suffix in SUFFIXES
            if path.name.startswith(".") or not usable or name in found or not MODEL_ID.fullmatch(name):
                continue
            try:
                file = find_file(path).resolve()
                stat = file.stat()
            except (NotFoundError, OSError):
                continue  # a folder without checkpoints yet, a link to nothing
            found[name] = _Seen(file, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found

    def _take(self, name: str, entry: _Entry) -> None:
        started = time.monotonic()
        entry.taken, entry.retry_at = entry.seen, None
        # Grows with every change, also over restarts of the planner as long as files get newer.
        entry.version = max(entry.version + 1, entry.seen.changed_ns // 1_000_000_000)
        try:
            model = self._load(name, entry.version, entry.seen.path)
        except Exception as error:
            final = isinstance(error, CorruptDataError | InvalidInputError)
            if not final:
                entry.retry_at = time.monotonic() + RETRY_AFTER_S
            reason = str(error) if isinstance(error, NewtError) else f"{type(error).__name__}: {error}"
            self._store.refuse(Refusal(name, entry.version, b"", reason[:500], final))
            metrics.WEIGHTS_REFUSED.inc()
            log.error("model_file_refused", model_id=name, path=str(entry.seen.path), reason=reason)
            return
        self._store.put(model)
        metrics.SWAPS.inc()
        metrics.SWAP_SECONDS.observe(time.monotonic() - started)
        log.info("model_file_loaded", model_id=name, path=str(entry.seen.path), weights_version=entry.version)
        self._on_change()
