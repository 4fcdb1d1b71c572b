"""The weights hub: trainers publish versions of models to it, planners subscribe to them.

It keeps the newest complete version of every model in memory and nothing on disk: after a restart, models that are
expected to be published again stay with the planners that have them, and all others are forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import replace

import grpc
import structlog

from newt.errors import CorruptDataError, ExhaustedError, InvalidInputError, PreconditionError, UnavailableError
from newt.wire.chunks import Assembler, Weights, check_model_id, split
from newt.wire.limits import MAX_MODEL_BYTES
from newt.wire.v1 import weights_pb2, weights_pb2_grpc

log = structlog.get_logger(__name__)


class WeightsHub(weights_pb2_grpc.WeightsServiceServicer):
    """Servicer of newt.v1.WeightsService.

        hub = WeightsHub()
        weights_pb2_grpc.add_WeightsServiceServicer_to_server(hub, server.grpc)
        hub.close()  # before the server stops: ends the subscriptions

    Memory: one payload per model, none for a copy that is as new, one more for each upload under way, and one for each
    subscriber that is still busy with a version which has been replaced meanwhile.

    Args:
        max_model_bytes: Larger models are refused.
        max_subscribers: Subscriptions at once. Each holds a thread of the server, so stay well below its threads.
        expected: Models that live and will be published, from before this hub was there; None if that cannot be told,
            and then planners keep whatever they have.
    """

    def __init__(
        self,
        max_model_bytes: int = MAX_MODEL_BYTES,
        max_subscribers: int = 32,
        expected: Collection[str] | None = (),
    ) -> None:
        self._max_model_bytes = max_model_bytes
        self._max_subscribers = max_subscribers
        self._changed = threading.Condition()
        self._models: dict[str, Weights] = {}
        self._copies: dict[str, str] = {}  # what each is a copy of
        self._expected = None if expected is None else set(expected)
        self._subscribers = 0
        self._closed = False

    def models(self) -> dict[str, int]:
        """Newest version of every model, by model id."""
        with self._changed:
            return {model_id: weights.weights_version for model_id, weights in self._models.items()}

    def copy(self, model_id: str, copy_id: str) -> int:
        """Keeps what is held of a model under another id, too; returns its version.

        Raises:
            InvalidInputError: Not a model id, or the same one.
            UnavailableError: Nothing is held yet.
        """
        if copy_id == model_id:
            raise InvalidInputError("copy_id", f"got {copy_id!r}, the model itself; expected another id")
        with self._changed:
            held = self._models.get(model_id)
            if held is None:
                raise UnavailableError(f"the weights hub holds no version of model {model_id!r} yet")
            copy = replace(held, model_id=copy_id)
            self._models.pop(copy_id, None)
            self._models[copy_id] = copy
            self._copies[copy_id] = model_id
            self._changed.notify_all()
        log.info("weights_copied", model_id=model_id, copy_id=copy_id, weights_version=copy.weights_version)
        return copy.weights_version

    def retire(self, model_id: str) -> None:
        """Removes a model and its copies from the hub and from planners; an unknown one is not an error."""
        with self._changed:
            for copy_id in [copy for copy, of in self._copies.items() if model_id in (copy, of)]:
                del self._copies[copy_id]
                if copy_id != model_id:
                    self._models.pop(copy_id, None)
            gone = self._models.pop(model_id, None)
            if self._expected is not None:
                self._expected.discard(model_id)
            self._changed.notify_all()
        if gone is not None:
            log.info("weights_retired", model_id=model_id, weights_version=gone.weights_version)

    def close(self) -> None:
        """Ends all subscriptions and refuses new ones, so that the server can stop at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _accept(self, weights: Weights) -> int:
        with self._changed:
            held = self._models.get(weights.model_id)
            if held is not None and held.weights_version >= weights.weights_version:
                if _identity(held) == _identity(weights):
                    return self._subscribers
                raise PreconditionError(
                    f"model {weights.model_id}: the hub holds version {held.weights_version}, got version "
                    f"{weights.weights_version}; publish a higher one, or retire the model to start again"
                )
            # A replaced version moves to the end, so that subscribers get the models in the order they changed.
            self._models.pop(weights.model_id, None)
            self._models[weights.model_id] = weights
            self._changed.notify_all()
            subscribers = self._subscribers
        log.info(
            "weights_published",
            model_id=weights.model_id,
            weights_version=weights.weights_version,
            size_bytes=len(weights.payload),
            subscribers=subscribers,
        )
        return subscribers

    # The methods of the service.

    def Publish(  # noqa: N802
        self, request_iterator: Iterator[weights_pb2.PublishRequest], context: grpc.ServicerContext
    ) -> weights_pb2.PublishResponse:
        """Takes one model in chunks."""
        assembler = Assembler(self._max_model_bytes)
        weights: Weights | None = None
        for request in request_iterator:
            if weights is not None:
                raise CorruptDataError(f"model {weights.model_id}: chunks after the last byte; send the model again")
            weights = assembler.add(request.chunk)
        if weights is None:
            raise CorruptDataError(f"model {assembler.pending}: the stream ended early; send the model again")
        return weights_pb2.PublishResponse(subscribers=self._accept(weights))

    def Subscribe(  # noqa: N802
        self, request: weights_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[weights_pb2.SubscribeResponse]:
        """Streams what the hub holds, then what changes, until the client goes or the hub closes."""
        with self._changed:
            if self._subscribers >= self._max_subscribers:
                raise ExhaustedError(f"max_subscribers: all {self._max_subscribers} subscriptions are in use")
            self._subscribers += 1
        log.info("subscriber_connected", subscriber=request.subscriber)
        try:
            context.add_callback(self._wake)
            # The client learns that it is connected even while the hub is empty.
            context.send_initial_metadata(())
            yield from self._changes(context)
        finally:
            with self._changed:
                self._subscribers -= 1
            log.info("subscriber_disconnected", subscriber=request.subscriber)

    def Copy(  # noqa: N802
        self, request: weights_pb2.CopyRequest, context: grpc.ServicerContext
    ) -> weights_pb2.CopyResponse:
        """Keeps a model under another id, too."""
        for model_id in (request.model_id, request.copy_id):
            check_model_id(model_id)
        return weights_pb2.CopyResponse(weights_version=self.copy(request.model_id, request.copy_id))

    def Retire(  # noqa: N802
        self, request: weights_pb2.RetireRequest, context: grpc.ServicerContext
    ) -> weights_pb2.RetireResponse:
        """Removes a model."""
        check_model_id(request.model_id)
        self.retire(request.model_id)
        return weights_pb2.RetireResponse()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _live(self) -> set[str]:
        """With the lock held."""
        return self._models.keys() | (self._expected or set())

    def _changes(self, context: grpc.ServicerContext) -> Iterator[weights_pb2.SubscribeResponse]:
        """Yields the differences between what this subscriber was sent and what the hub holds.

        Differences instead of a queue of events: what a slow subscriber misses costs no memory, and it always ends
        with the newest. gRPC takes the next message only when the last one has left, so waiting happens here.
        """
        # Version and digest, not the payload: it may be replaced by now. None: named as living, but not sent.
        sent: dict[str, tuple[int, bytes] | None] = {}
        with self._changed:
            live = None if self._expected is None else sorted(self._live())
        if live is not None:
            sent = dict.fromkeys(live)
            yield weights_pb2.SubscribeResponse(live=weights_pb2.LiveModels(model_ids=live))
        while True:
            with self._changed:
                gone: list[str] = []
                changed: Weights | None = None
                while context.is_active() and not self._closed:
                    alive = self._live()
                    gone = [model_id for model_id in sent if model_id not in alive]
                    changed = next((w for w in self._models.values() if sent.get(w.model_id) != _identity(w)), None)
                    if gone or changed is not None:
                        break
                    self._changed.wait()
                if not context.is_active():
                    return
                if self._closed:
                    raise UnavailableError("the weights hub is shutting down; subscribe again")
            for model_id in gone:
                del sent[model_id]
                yield weights_pb2.SubscribeResponse(retired_model_id=model_id)
            if changed is not None:
                for chunk in split(changed):
                    yield weights_pb2.SubscribeResponse(chunk=chunk)
                sent[changed.model_id] = _identity(changed)


def _identity(weights: Weights) -> tuple[int, bytes]:
    return weights.weights_version, weights.sha256
