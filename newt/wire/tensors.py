"""NumPy arrays to and from the wire's Tensor message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.errors import InvalidInputError
from newt.wire.v1 import tensor_pb2

MAX_RANK = 8

_DTYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DTYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DTYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DTYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DTYPE_UINT64: np.dtype("<u8"),
    tensor_pb2.DTYPE_BOOL: np.dtype("?"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def encode(array: npt.NDArray[Any]) -> tensor_pb2.Tensor:
    """Packs an array; copies once. Raises TypeError for a dtype that the wire does not carry."""
    tensor = tensor_pb2.Tensor()
    fill(tensor, array)
    return tensor


def fill(tensor: tensor_pb2.Tensor, array: npt.NDArray[Any]) -> None:
    """Packs an array into an empty field of a message, which saves the copy that passing a Tensor to it would make."""
    fill_raw(tensor, array.dtype, array.shape, array.tobytes())


def fill_raw(tensor: tensor_pb2.Tensor, dtype: npt.DTypeLike, shape: Sequence[int], data: bytes) -> None:
    """Packs bytes that are an array's already, row-major and little-endian; see fill."""
    code = _CODES.get(np.dtype(dtype))
    if code is None:
        raise TypeError(f"dtype {dtype} does not travel; use one of {sorted(map(str, _CODES))}")
    tensor.dtype = code  # type: ignore[assignment]
    tensor.shape.extend(shape)
    tensor.data = data


def decode(
    tensor: tensor_pb2.Tensor,
    field: str,
    *,
    dtype: npt.DTypeLike,
    shape: Sequence[int | None],
    finite: bool = False,
) -> npt.NDArray[Any]:
    """Unpacks and checks a tensor; the result is a read-only view of the message's bytes.

    Args:
        tensor: The message.
        field: Its name, for errors.
        dtype: Required element type.
        shape: Required extents; None accepts any.
        finite: Refuse NaN and infinities.

    Raises:
        InvalidInputError: Anything is not as required; nothing has been allocated by then.
    """
    # On the way of every step, so each part of the message is fetched once.
    want = np.dtype(dtype)
    got = _DTYPES.get(tensor.dtype)
    if got is None:
        raise InvalidInputError(field, f"missing, or unknown dtype code {tensor.dtype}; expected {want}")
    if got != want:
        raise InvalidInputError(field, f"got dtype {got}, expected {want}")
    got_shape = tuple(tensor.shape)
    if got_shape != shape and not _matches(got_shape, shape):
        expected = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
        raise InvalidInputError(field, f"got shape {list(got_shape)}, expected {expected}")
    size = math.prod(got_shape) * got.itemsize
    data = tensor.data
    if len(data) != size:
        raise InvalidInputError(field, f"got {len(data)} bytes, expected {size} for {got}{list(got_shape)}")
    array: npt.NDArray[Any] = np.ndarray(got_shape, got, data)
    if finite and not np.isfinite(array).all():
        position = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise InvalidInputError(field, f"value {array[tuple(position)]} at {position}, expected finite numbers")
    return array


def _matches(got: tuple[int, ...], shape: Sequence[int | None]) -> bool:
    return len(got) == len(shape) <= MAX_RANK and all(
        n >= 0 and want in (None, n) for n, want in zip(got, shape, strict=True)
    )
