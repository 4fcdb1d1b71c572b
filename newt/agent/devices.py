"""Which device computes, and how exactly it multiplies."""

from __future__ import annotations

import torch
from torch import Tensor

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

    The published runs multiply in TensorFloat-32 (10 bits of mantissa). With bfloat16 (7 bits) the networks convert
    what they multiply, on any device (`WorldModel.multiply_in`). Weights, norms and losses stay float32.

    Args:
        precision: `auto` is TensorFloat-32 on a GPU.
        device: Where the process computes.

    Returns:
        What is in force: `float32`, `tf32` or `bfloat16`.
    """
    fast = device.type == "cuda" and precision in ("auto", "tf32")
    torch.set_float32_matmul_precision("high" if fast else "highest")
    if precision == "bfloat16":
        return precision
    return "tf32" if fast else "float32"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies to a device, behind the work that it has; nobody waits.

    What comes from ordinary memory would be waited for: CUDA copies that to a GPU only when the GPU has nothing to do.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
