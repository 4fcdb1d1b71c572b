"""The tensor codec: what goes in comes out, and what is wrong is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from newt.errors import InvalidInputError
from newt.wire import tensors
from newt.wire.v1 import tensor_pb2

DTYPES = ["<f4", "u1", "<i4", "<i8", "<u8", "?"]


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    )
)
def test_round_trip_keeps_every_bit(array: npt.NDArray[Any]) -> None:
    message = tensor_pb2.Tensor.FromString(tensors.encode(array).SerializeToString())
    back = tensors.decode(message, "x", dtype=array.dtype, shape=array.shape)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_decoded_arrays_are_read_only() -> None:
    array = tensors.decode(tensors.encode(np.zeros(3, np.float32)), "x", dtype="f4", shape=(3,))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_non_contiguous_input_is_packed_row_major() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4).T
    back = tensors.decode(tensors.encode(array), "x", dtype="i4", shape=(4, 3))
    np.testing.assert_array_equal(back, array)


def test_unsupported_dtype_is_refused_when_encoding() -> None:
    with pytest.raises(TypeError, match="float64"):
        tensors.encode(np.zeros(2))


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (tensor_pb2.Tensor(), "missing"),
        (tensor_pb2.Tensor(dtype=99, shape=[2], data=b"12345678"), "unknown dtype code 99"),  # type: ignore[arg-type]
        (tensors.encode(np.zeros((2, 3), np.int32)), "got dtype int32, expected float32"),
        (tensors.encode(np.zeros((2, 4), np.float32)), r"got shape \[2, 4\], expected \[any, 3\]"),
        (tensors.encode(np.zeros(3, np.float32)), r"got shape \[3\], expected \[any, 3\]"),
        (tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[2, 3], data=b"1234"), "got 4 bytes, expected 24"),
        (tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[-1, 3], data=b""), "got shape"),
        (tensors.encode(np.array([[0, np.nan, 0]], np.float32)), r"nan at \[0, 1\]"),
        (tensors.encode(np.array([[0, 0, np.inf]], np.float32)), r"inf at \[0, 2\]"),
    ],
)
def test_bad_tensors_are_refused_with_the_field_and_the_reason(message: tensor_pb2.Tensor, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^action: .*{complaint}") as caught:
        tensors.decode(message, "action", dtype="f4", shape=(None, 3), finite=True)
    assert caught.value.field == "action"


def test_a_huge_claimed_shape_allocates_nothing() -> None:
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[1 << 40, 1 << 20], data=b"")
    with pytest.raises(InvalidInputError, match="got 0 bytes"):
        tensors.decode(message, "x", dtype="f4", shape=(None, None))
