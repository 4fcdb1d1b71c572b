"""Which device computes, and how exactly it multiplies."""

from __future__ import annotations

import torch

from newt.agent.config import Precision


def resolve(name: str) -> str:
    """A torch device's name; `auto` is the first GPU, or the CPU where there is none."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def unused_gpus(device: torch.device) -> int:
    """GPUs of this machine that nobody uses when a process computes on a CPU."""
    return torch.cuda.device_count() if device.type == "cpu" and torch.cuda.is_available() else 0


def set_precision(precision: Precision, device: torch.device) -> str:
    """Fixes for this process how float32 matrices are multiplied on GPUs; CPUs always do it exactly.

    Weights, norms and losses stay float32. The published runs multiply in TensorFloat-32 (10 bits of mantissa).

    Args:
        precision: `auto` is TensorFloat-32 on a GPU.
        device: Where the process computes.

    Returns:
        What is in force: `float32` or `tf32`.
    """
    fast = device.type == "cuda" and precision != "float32"
    torch.set_float32_matmul_precision("high" if fast else "highest")
    return "tf32" if fast else "float32"
