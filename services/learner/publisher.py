"""Weights from a trainer to the hub, versioned, without holding up the updates."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import structlog

from newt.client.weights import publish
from newt.errors import NewtError
from services.learner.child import Context

UPLOAD_TIMEOUT_S = 60.0

log = structlog.get_logger(__name__)


class Publisher:
    """Uploads versions of a run's model.

    Version numbers are counted in the run's record, so they grow over restarts of the trainer.

    Args:
        context: Of the process.
        plan_config_json: Planning settings to serve the model with.
        every_s: Time between two regular versions.
    """

    def __init__(self, context: Context, plan_config_json: str, every_s: float) -> None:
        self._context = context
        self._plan_config_json = plan_config_json
        self._every_s = every_s
        self._last = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._upload: Future[int] | None = None

    def maybe_publish(self, payload: Callable[[], bytes]) -> None:
        """Uploads in the background, if it is time and the last upload has ended."""
        if time.monotonic() - self._last < self._every_s or (self._upload and not self._upload.done()):
            return
        self._report_failure()
        self._last = time.monotonic()
        self._upload = self._pool.submit(self._send, payload())

    def publish(self, payload: bytes) -> int:
        """Uploads now and returns the version. Raises UnavailableError if the hub cannot be reached."""
        if self._upload is not None:
            self._upload.exception()
            self._report_failure()
        self._last = time.monotonic()
        return self._pool.submit(self._send, payload).result()

    def _send(self, payload: bytes) -> int:
        settings, writer = self._context.settings, self._context.writer
        version = writer.next_weights_version()
        hub = settings.hub_address
        publish(hub, writer.run_id, version, payload, self._plan_config_json, timeout_s=UPLOAD_TIMEOUT_S)
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
