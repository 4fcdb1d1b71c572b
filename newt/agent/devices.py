"""Which device computes, and how exactly it multiplies."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from newt.agent.config import ConfigError, Precision

_DEVICES = Path("/dev")


def resolve(name: str) -> str:
    """A torch device's name; `auto` is the first GPU, or the CPU where there is none."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def working(name: str) -> torch.device:
    """A device on which something has been computed.

    Args:
        name: auto, cpu, cuda or cuda:N.

    Raises:
        ConfigError: It is not there, or this build of torch cannot use it.
    """
    try:
        device = torch.device(resolve(name))
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("neither a CPU nor a GPU of NVIDIA")
        torch.ones(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError) as error:  # the latter where torch is built without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name}: {reason}; expected auto, cpu, or a GPU that torch can use") from error
    return device


def unused_gpus(device: torch.device) -> int:
    """GPUs of this machine that a process leaves unused by computing on a CPU.

    Those count that this build of torch cannot use, unless CUDA_VISIBLE_DEVICES is set, by which people hide them.
    """
    if device.type != "cpu":
        return 0
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return 0 if "CUDA_VISIBLE_DEVICES" in os.environ else len(list(_DEVICES.glob("nvidia[0-9]*")))


def unused_warning(device: torch.device, setting: str) -> str | None:
    """What to do about unused GPUs; None if there are none.

    Args:
        device: Where the process computes.
        setting: The environment variable that chooses it.
    """
    gpus = unused_gpus(device)
    if not gpus:
        return None
    what = "1 GPU of this machine is" if gpus == 1 else f"{gpus} GPUs of this machine are"
    if torch.cuda.is_available():
        return f"{what} not used: set {setting} to auto or cuda"
    return f"{what} not used: torch {torch.__version__} needs a build for CUDA, or a newer driver"


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
