"""Keeps the models of this process equal to what the weights hub holds."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from newt.errors import CorruptDataError, InvalidInputError
from newt.wire.channels import connect
from newt.wire.chunks import Assembler, Weights
from newt.wire.status import rpc_code
from newt.wire.v1 import weights_pb2, weights_pb2_grpc
from services.planner import metrics
from services.planner.model import LoadedModel
from services.planner.store import ModelStore

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_SHORTEST_RESYNC_S = 5.0

log = structlog.get_logger(__name__)


class Subscriber:
    """A thread that listens to the hub for ever: it outlives the hub's restarts, bad weights and lost connections.

    While the hub is away, the models that are loaded go on serving. What the hub sends is loaded beside what is in
    use and replaces it only when it has passed every check; weights that fail one are logged, counted and dropped.

    The subscription has no deadline, it lasts as long as the process; keepalive finds a hub that vanished.

    Args:
        hub: `host:port` of the weights hub.
        name: Of this replica, for the hub's logs.
        store: Where models go.
        load: Builds and checks a model; raises CorruptDataError for weights that are not fit for use.
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
        pause_s = _FIRST_PAUSE_S
        with connect(self._hub) as channel:
            stub = weights_pb2_grpc.WeightsServiceStub(channel)
            while not self._stopping.is_set():
                try:
                    self._listen(stub)
                except grpc.RpcError as error:
                    if self._connected:
                        pause_s = _FIRST_PAUSE_S
                    self._lost(error)
                except Exception as error:
                    # Whatever it was, giving up would leave this replica with old weights for ever.
                    log.error("weights_subscription_failed", hub=self._hub, exc_info=error)
                self._set_connected(False)
                # Not all replicas at the same moment.
                self._stopping.wait(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _listen(self, stub: weights_pb2_grpc.WeightsServiceStub) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            self._call = call = stub.Subscribe(weights_pb2.SubscribeRequest(subscriber=self._name))
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
                self._refused(error)
                skipping = True
                continue
            except CorruptDataError as error:
                # Harmed on the way: the hub believes it sent, so only a new subscription brings it again.
                self._refused(error)
                call.cancel()
                return
            if weights is not None:
                self._take(weights)

    def _take(self, weights: Weights) -> None:
        if not self._store.wants(weights):
            return
        started = time.monotonic()
        try:
            model = self._load(weights)
        except CorruptDataError as error:
            self._refused(error)
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

    def _refused(self, error: Exception) -> None:
        metrics.WEIGHTS_REFUSED.inc()
        log.error("weights_refused", hub=self._hub, error=str(error))

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
