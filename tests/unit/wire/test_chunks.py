from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newt.errors import CorruptDataError, InvalidInputError
from newt.wire.chunks import CHUNK_BYTES, Assembler, Weights, split
from newt.wire.v1 import weights_pb2


def weights(payload: bytes = b"0123456789", version: int = 3) -> Weights:
    return Weights("run-1", version, payload, '{"horizon": 3}', created_at=12.5)


def assemble(chunks: list[weights_pb2.WeightsChunk], assembler: Assembler | None = None) -> Weights | None:
    assembler = assembler or Assembler()
    result = None
    for chunk in chunks:
        result = assembler.add(chunk)
    return result


@given(payload=st.binary(min_size=1, max_size=64), chunk_bytes=st.integers(1, 70))
def test_what_was_split_is_assembled_whatever_the_chunk_size(payload: bytes, chunk_bytes: int) -> None:
    sent = weights(payload)
    chunks = list(split(sent, chunk_bytes))
    assert all(len(chunk.data) <= chunk_bytes for chunk in chunks)
    got = assemble(chunks)
    assert got is not None
    assert vars(got) == vars(sent)


def test_a_chunk_is_at_most_one_mebibyte() -> None:
    sent = weights(os.urandom(2 * CHUNK_BYTES + 1))
    chunks = list(split(sent))
    assert [len(chunk.data) for chunk in chunks] == [CHUNK_BYTES, CHUNK_BYTES, 1]
    assert [chunk.HasField("header") for chunk in chunks] == [True, False, False]


def test_models_follow_each_other() -> None:
    assembler = Assembler()
    for version in (1, 2):
        got = assemble(list(split(weights(b"x" * version, version), 1)), assembler)
        assert got is not None
        assert got.weights_version == version
        assert assembler.pending is None


def test_a_changed_byte_is_noticed() -> None:
    chunks = list(split(weights(), 4))
    chunks[1].data = b"x" + chunks[1].data[1:]
    with pytest.raises(CorruptDataError, match="SHA-256"):
        assemble(chunks)


@pytest.mark.parametrize("drop", [0, 1])
def test_a_missing_chunk_is_noticed(drop: int) -> None:
    chunks = list(split(weights(), 4))
    del chunks[drop]
    with pytest.raises(CorruptDataError, match=["without a header", "offset 8, expected 4"][drop]):
        assemble(chunks)


def test_surplus_bytes_are_noticed() -> None:
    chunks = list(split(weights(), 4))
    chunks[2].data += b"more"
    with pytest.raises(CorruptDataError, match="expected 10 in all"):
        assemble(chunks)


def test_an_empty_chunk_is_refused_so_that_a_stream_cannot_go_on_for_ever() -> None:
    chunks = list(split(weights(), 4))
    chunks.insert(1, weights_pb2.WeightsChunk(offset=4))
    with pytest.raises(CorruptDataError, match="empty or surplus"):
        assemble(chunks)


def test_after_an_error_the_next_model_is_fine() -> None:
    assembler = Assembler()
    chunks = list(split(weights(), 4))
    with pytest.raises(CorruptDataError):
        assemble(chunks[:1] + chunks[2:], assembler)
    assert assemble(list(split(weights(), 4)), assembler) is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_id", ""),
        ("model_id", "a/b"),
        ("model_id", "x" * 129),
        ("model_id", "run\n"),
        ("weights_version", 0),
        ("size_bytes", 0),
        ("size_bytes", 1025),
        ("sha256", b"short"),
    ],
)
def test_impossible_headers_are_refused_before_any_byte_is_kept(field: str, value: object) -> None:
    (chunk,) = split(weights())
    setattr(chunk.header, field, value)
    with pytest.raises(InvalidInputError) as caught:
        Assembler(max_bytes=1024).add(chunk)
    assert caught.value.field == field


def test_a_chunk_that_is_too_large_is_refused() -> None:
    (chunk,) = split(weights(b"x" * (CHUNK_BYTES + 1)), CHUNK_BYTES + 1)
    with pytest.raises(InvalidInputError, match="at most 1048576"):
        Assembler().add(chunk)


@pytest.mark.parametrize(("model_id", "version", "payload"), [("no/slash", 1, b"x"), ("a", 0, b"x"), ("a", 1, b"")])
def test_weights_nobody_would_accept_cannot_be_made(model_id: str, version: int, payload: bytes) -> None:
    with pytest.raises(InvalidInputError):
        Weights(model_id, version, payload, "{}")
