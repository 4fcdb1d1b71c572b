"""Weights in pieces: a model's bytes to WeightsChunk messages and back, checked by size and SHA-256."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from newt.errors import CorruptDataError, InvalidInputError
from newt.wire.limits import MAX_MODEL_BYTES, MODEL_ID
from newt.wire.v1 import weights_pb2

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, eq=False)
class Weights:
    """One version of one model, as it travels.

    Attributes:
        model_id: 1-128 characters of [A-Za-z0-9._@-]; for training runs, the run's id.
        weights_version: 1 or more, grows with every version of a model.
        payload: The model's bytes (safetensors); nothing here looks inside.
        plan_config_json: Planning settings to serve the model with, as JSON.
        created_at: When it was produced, seconds since the epoch.
        sha256: Digest of the payload, 32 bytes; computed when not given.

    Raises:
        InvalidInputError: A field that no receiver would accept.
    """

    model_id: str
    weights_version: int
    payload: bytes = field(repr=False)
    plan_config_json: str
    created_at: float = field(default_factory=time.time)
    sha256: bytes = b""

    def __post_init__(self) -> None:
        check_model_id(self.model_id)
        if self.weights_version < 1:
            raise InvalidInputError("weights_version", f"got {self.weights_version}, expected 1 or more")
        if not self.payload:
            raise InvalidInputError("size_bytes", "got an empty model, expected at least one byte")
        if not self.sha256:
            object.__setattr__(self, "sha256", hashlib.sha256(self.payload).digest())


def check_model_id(model_id: str) -> None:
    """Raises InvalidInputError unless the id has the required form."""
    if not MODEL_ID.fullmatch(model_id):
        raise InvalidInputError("model_id", f"got {model_id[:160]!r}, expected 1-128 characters of [A-Za-z0-9._@-]")


def split(weights: Weights, chunk_bytes: int = CHUNK_BYTES) -> Iterator[weights_pb2.WeightsChunk]:
    """Yields the chunks of a model in order, the first one with the header. Copies one chunk at a time."""
    view = memoryview(weights.payload)
    for offset in range(0, len(view), chunk_bytes):
        chunk = weights_pb2.WeightsChunk(offset=offset, data=bytes(view[offset : offset + chunk_bytes]))
        if offset == 0:
            chunk.header.CopyFrom(
                weights_pb2.WeightsHeader(
                    model_id=weights.model_id,
                    weights_version=weights.weights_version,
                    size_bytes=len(view),
                    sha256=weights.sha256,
                    plan_config_json=weights.plan_config_json,
                    created_at=weights.created_at,
                )
            )
        yield chunk


class Assembler:
    """Puts chunks together again; one model at a time, any number one after the other.

        assembler = Assembler()
        for chunk in chunks:
            weights = assembler.add(chunk)
            if weights is not None:
                ...

    After an error it has forgotten the model it was at. The chunks that may still follow of that model are then
    refused too (they lack a header) until the next header starts afresh.

    Args:
        max_bytes: Larger models are refused before their bytes are kept.
    """

    def __init__(self, max_bytes: int = MAX_MODEL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._forget()

    def _forget(self) -> None:
        self._header: weights_pb2.WeightsHeader | None = None
        self._data = bytearray()

    @property
    def pending(self) -> str | None:
        """Id of the model that is incomplete so far, None between two models."""
        return self._header.model_id if self._header is not None else None

    def add(self, chunk: weights_pb2.WeightsChunk) -> Weights | None:
        """Takes the next chunk; returns the model when it is complete.

        Raises:
            InvalidInputError: A header that cannot be right (id, version, size, digest length, chunk too large).
            CorruptDataError: A chunk without header, a gap, too many bytes, or another digest than announced.
        """
        try:
            return self._add(chunk)
        except BaseException:
            self._forget()
            raise

    def _add(self, chunk: weights_pb2.WeightsChunk) -> Weights | None:
        if chunk.HasField("header"):
            self._start(chunk.header)
        header = self._header
        if header is None:
            raise CorruptDataError(f"chunk at offset {chunk.offset} without a header before it; send the model again")
        if len(chunk.data) > CHUNK_BYTES:
            raise InvalidInputError("data", f"got {len(chunk.data)} bytes, expected at most {CHUNK_BYTES} per chunk")
        if chunk.offset != len(self._data):
            raise CorruptDataError(
                f"model {header.model_id}: got a chunk at offset {chunk.offset}, expected {len(self._data)}; "
                "send the model again"
            )
        self._data += chunk.data
        if len(self._data) > header.size_bytes or not chunk.data:
            raise CorruptDataError(
                f"model {header.model_id}: got {len(self._data)} bytes and an empty or surplus chunk, "
                f"expected {header.size_bytes} in all; send the model again"
            )
        if len(self._data) < header.size_bytes:
            return None
        payload = bytes(self._data)
        self._forget()
        digest = hashlib.sha256(payload).digest()
        if digest != header.sha256:
            raise CorruptDataError(
                f"model {header.model_id} version {header.weights_version}: SHA-256 is {digest.hex()}, "
                f"the header says {header.sha256.hex()}; send the model again"
            )
        return Weights(
            header.model_id,
            header.weights_version,
            payload,
            header.plan_config_json,
            header.created_at,
            digest,
        )

    def _start(self, header: weights_pb2.WeightsHeader) -> None:
        self._forget()
        check_model_id(header.model_id)
        if header.weights_version < 1:
            raise InvalidInputError("weights_version", f"got {header.weights_version}, expected 1 or more")
        if not 1 <= header.size_bytes <= self._max_bytes:
            raise InvalidInputError("size_bytes", f"got {header.size_bytes}, expected 1 to {self._max_bytes}")
        if len(header.sha256) != hashlib.sha256().digest_size:
            raise InvalidInputError("sha256", f"got {len(header.sha256)} bytes, expected 32")
        self._header = header
