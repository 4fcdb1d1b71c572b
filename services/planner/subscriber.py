"""Keeps the models of this process equal to what the weights hub holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from newt.errors import CorruptDataError, InvalidInputError, NewtError, UnavailableError
from newt.wire.channels import connect
from newt.wire.chunks import Assembler, Weights
from newt.wire.retry import Backoff, until_available
from newt.wire.status import rpc_code
from newt.wire.v1 import weights_pb2, weights_pb2_grpc
from services.planner import metrics
from services.planner.model import LoadedModel
from services.planner.store import ModelStore, Refusal

_BACKOFF = Backoff(0.1, 2.0)
_SUBSCRIPTION_S = 86_400.0
_SHORTEST_RESYNC_S = 5.0

log = structlog.get_logger(__name__)


class Subscriber:
    """A thread that listens to the hub for ever: it outlives the hub's restarts, bad weights and lost connections.

    While the hub is away, the models that are loaded go on serving. What the hub sends is loaded beside what is in
    use and replaces it only when it has passed every check. Weights that fail one are dropped, whatever is wrong with
    them: the store keeps the reason, and the next model follows.

    A subscription lasts a day, then it is renewed; keepalive finds a hub that vanished.

    Args:
        hub: `host:port` of the weights hub.
        name: Name of this replica, for the hub's logs.
        store: Store that models go to.
        load: Builds and checks a model; raises CorruptDataError for weights that are not fit for use, and anything
            else where this process cannot load them.
        max_model_bytes: Larger models are refused.
        on_change: Called after the connection or the set of models has changed.
    """

    def __init__(
        self,
        hub: str,
        name: str,
        store: ModelStore,
        load: Callable[[Weights], LoadedModel],
        max_model_bytes: int,
        on_change: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._name = name
        self._store = store
        self._load = load
        self._max_model_bytes = max_model_bytes
        self._on_change = on_change
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._call: Any = None  # The stream under way; the stubs do not type calls.
        self._resynced_at = float("-inf")
        self._connected = False
        self._thread = threading.Thread(target=self._loop, name="weights", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the hub is being listened to now."""
        return self._connected

    def start(self) -> None:
        """Starts listening."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the subscription and waits for the thread."""
        self._stopping.set()
        self._cancel()
        self._thread.join(timeout_s)

    def resync(self) -> None:
        """Subscribes anew, which makes the hub send all models again; not more often than every few seconds."""
        with self._lock:
            now = time.monotonic()
            if now - self._resynced_at < _SHORTEST_RESYNC_S:
                return
            self._resynced_at = now
        self._cancel()

    def _cancel(self) -> None:
        with self._lock:
            if self._call is not None:
                self._call.cancel()

    def _loop(self) -> None:
        with connect(self._hub) as channel:
            stub = weights_pb2_grpc.WeightsServiceStub(channel)
            while not self._stopping.is_set():
                until_available(lambda: self._subscribe(stub), None, _BACKOFF, self._stopping.wait)
                self._stopping.wait(next(_BACKOFF.pauses()))

    def _subscribe(self, stub: weights_pb2_grpc.WeightsServiceStub) -> None:
        """Listens until the hub is lost; raises UnavailableError if there was none to listen to."""
        try:
            self._listen(stub)
        except grpc.RpcError as error:
            self._lost(error)
        except Exception as error:
            # Whatever it was, giving up would leave this replica with old weights for ever.
            log.error("weights_subscription_failed", hub=self._hub, exc_info=error)
        connected = self._connected
        self._set_connected(False)
        if not connected and not self._stopping.is_set():
            raise UnavailableError(f"weights hub at {self._hub} is away")

    def _listen(self, stub: weights_pb2_grpc.WeightsServiceStub) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            request = weights_pb2.SubscribeRequest(subscriber=self._name)
            self._call = call = stub.Subscribe(request, timeout=_SUBSCRIPTION_S)
        call.initial_metadata()  # Returns when the hub has accepted, or when the call has failed.
        assembler, skipping = Assembler(self._max_model_bytes), False
        if call.is_active():
            self._set_connected(True)
        for event in call:
            kind = event.WhichOneof("event")
            if kind == "live":
                # Models can be retired while this process does not listen.
                for model_id in self._store.keep_only(set(event.live.model_ids)):
                    log.info("model_retired", model_id=model_id)
                self._on_change()
                continue
            if kind == "retired_model_id":
                if self._store.kept(event.retired_model_id):
                    continue
                log.info("model_retired", model_id=event.retired_model_id)
                self._store.drop(event.retired_model_id)
                self._on_change()
                continue
            skipping = skipping and not event.chunk.HasField("header")
            if skipping:
                continue
            try:
                weights = assembler.add(event.chunk)
            except InvalidInputError as error:
                # Too large for this planner, say. Other models may follow.
                header = event.chunk.header
                self._refuse(Refusal(header.model_id, header.weights_version, header.sha256, str(error)))
                skipping = True
                continue
            except CorruptDataError as error:
                # Harmed on the way: the hub believes it sent, so only a new subscription brings it again.
                self._log_refused(str(error))
                call.cancel()
                return
            if weights is not None:
                self._take(weights)

    def _take(self, weights: Weights) -> None:
        if self._store.kept(weights.model_id):
            log.warning("weights_of_a_served_file_ignored", model_id=weights.model_id)
        if not self._store.wants(weights):
            return
        started = time.monotonic()
        try:
            model = self._load(weights)
        except Exception as error:
            # By the weights' fault or, if no memory is left, say, by ours: the next model must be taken in any case.
            final = isinstance(error, CorruptDataError)
            if not isinstance(error, NewtError):
                log.error("weights_not_loaded", model_id=weights.model_id, exc_info=error)
            self._refuse(Refusal(weights.model_id, weights.weights_version, weights.sha256, _text(error), final))
            return
        self._store.put(model)
        swap_seconds = time.monotonic() - started
        metrics.SWAPS.inc()
        metrics.SWAP_SECONDS.observe(swap_seconds)
        metrics.PUBLISH_SECONDS.observe(max(0.0, time.time() - weights.created_at))
        metrics.WEIGHTS_VERSION.set(weights.weights_version)
        metrics.WEIGHTS_CREATED.set(weights.created_at)
        log.info(
            "weights_swapped",
            model_id=weights.model_id,
            weights_version=weights.weights_version,
            swap_seconds=round(swap_seconds, 4),
        )
        self._on_change()

    def _refuse(self, refusal: Refusal) -> None:
        self._store.refuse(refusal)
        self._log_refused(refusal.reason, model_id=refusal.model_id, weights_version=refusal.weights_version)

    def _log_refused(self, reason: str, **what: object) -> None:
        metrics.WEIGHTS_REFUSED.inc()
        log.error("weights_refused", hub=self._hub, reason=reason, **what)

    def _lost(self, error: grpc.RpcError) -> None:
        code = rpc_code(error)
        if code is grpc.StatusCode.CANCELLED:  # By ourselves.
            return
        reason = code.name if code else str(error)
        if self._connected:
            log.warning("hub_lost", hub=self._hub, code=reason)
        else:
            log.debug("hub_unreachable", hub=self._hub, code=reason)

    def _set_connected(self, connected: bool) -> None:
        if connected == self._connected:
            return
        self._connected = connected
        metrics.HUB_CONNECTED.set(connected)
        if connected:
            log.info("hub_connected", hub=self._hub)
        self._on_change()


def _text(error: Exception) -> str:
    """For people, and short enough for the trailer of a call."""
    text = str(error) if isinstance(error, NewtError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= 500 else f"{text[:500]}..."
