"""Weights from a trainer to the hub, versioned, without holding up the updates."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from newt.client.weights import publish
from newt.errors import NewtError
from newt.wire.channels import Channels
from services.learner.records.writer import RunWriter

UPLOAD_TIMEOUT_S = 60.0

log = structlog.get_logger(__name__)


Payload = Callable[[], bytes]


@dataclass(frozen=True)
class Age:
    """How old weights are: updates made since, and seconds."""

    updates: int
    seconds: float


@dataclass(frozen=True)
class _Made:
    updates: int
    time: float


class Publisher:
    """Uploads versions of a run's model.

    Version numbers are counted in the run's record, so they grow over restarts of the trainer.

    Args:
        hub: Address of the weights hub.
        writer: Writer of the run's record, which counts the versions.
        plan_config_json: Planning settings to serve the model with.
        every_s: Time between two regular versions.
    """

    def __init__(self, hub: str, writer: RunWriter, plan_config_json: str, every_s: float) -> None:
        self._hub, self._writer, self._channels = hub, writer, Channels()
        self._plan_config_json = plan_config_json
        self._every_s = every_s
        self._last = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._upload: Future[int] | None = None
        self._made: dict[int, _Made] = {}

    def maybe_publish(self, updates: int, snapshot: Callable[[], Payload]) -> None:
        """Packs and uploads in the background, if it is time and the last upload has ended.

        Args:
            updates: Updates that the weights have seen.
            snapshot: Copies the weights, and returns what packs the copy.
        """
        if time.monotonic() - self._last < self._every_s or (self._upload and not self._upload.done()):
            return
        self._report_failure()
        self._upload = self._submit(updates, snapshot())

    def publish(self, updates: int, payload: Payload) -> int:
        """Uploads now and returns the version. Raises UnavailableError if the hub cannot be reached."""
        if self._upload is not None:
            self._upload.exception()
            self._report_failure()
        return self._submit(updates, payload).result()

    def age(self, version: int, updates: int) -> Age | None:
        """How old the weights of a version are after so many updates; None for one that this object has not sent."""
        made = self._made.get(version)
        if made is None:
            return None
        for older in [known for known in list(self._made) if known < version]:  # a planner never goes back
            del self._made[older]
        return Age(updates - made.updates, time.monotonic() - made.time)

    def _submit(self, updates: int, payload: Payload) -> Future[int]:
        self._last = time.monotonic()
        return self._pool.submit(self._send, _Made(updates, self._last), payload)

    def _send(self, made: _Made, payload: Payload) -> int:
        writer = self._writer
        version = writer.next_weights_version()
        self._made[version] = made
        publish(
            self._hub,
            writer.run_id,
            version,
            payload(),
            self._plan_config_json,
            timeout_s=UPLOAD_TIMEOUT_S,
            channels=self._channels,
        )
        writer.published(version)
        return version

    def _report_failure(self) -> None:
        """A regular version that did not arrive is no loss: the next one follows."""
        upload, self._upload = self._upload, None
        error = upload.exception() if upload else None
        if isinstance(error, NewtError):
            log.warning("publish_failed", error=str(error))
        elif error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
