"""Copies of many tensors in few operations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, in one operation for each type and device.

    A GPU would take longer to begin a hundred copies than to make them. The copies of an operation share their memory,
    which is free again when the last of them is.
    """
    kinds = {(tensor.dtype, tensor.device) for tensor in tensors.values()}
    copies: dict[str, Tensor] = {}
    for kind in kinds:
        own = {name: tensor.detach() for name, tensor in tensors.items() if (tensor.dtype, tensor.device) == kind}
        joined = torch.cat([tensor.reshape(-1) for tensor in own.values()])
        parts = torch.split(joined, [tensor.numel() for tensor in own.values()])
        copies |= {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}
    return {name: copies[name] for name in tensors}
