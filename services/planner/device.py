"""Where and in which precision this process plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from newt.agent.compilation import prepare
from services.planner.settings import PlannerSettings


@dataclass(frozen=True)
class Device:
    """The chosen device.

    Attributes:
        where: Where tensors live.
        dtype: Type of the matrix products.
        max_rows: Rows of one device batch.
        pad: Whether batches are padded to powers of two, so that few shapes occur.
        compile: Whether the networks are compiled.
    """

    where: torch.device
    dtype: torch.dtype
    max_rows: int
    pad: bool
    compile: bool = False

    def padded(self, rows: int) -> int:
        """Rows to compute for a batch of so many, at most `max_rows`."""
        return min(1 << (rows - 1).bit_length(), self.max_rows) if self.pad else rows


# Rows beyond a few do not make a CPU faster per row, they only make every caller wait for all.
_CPU_MAX_ROWS, _GPU_MAX_ROWS = 32, 256


def choose_device(settings: PlannerSettings) -> Device:
    """Reads the settings, fixes torch's threads and runs one product on the device.

    Raises:
        ValueError: The device does not exist or does not compute, or there is no compiler to compile with; the message
            says what to change.
    """
    if settings.compile:
        prepare(Path(settings.compile_cache) if settings.compile_cache else None)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("expected auto, cpu, cuda or cuda:N")
        dtype = _dtype(settings.precision, device)
        ones = torch.ones(8, 8, device=device, dtype=dtype)
        if float((ones @ ones).float().sum()) != 512.0:
            raise RuntimeError("a matrix product on it gave a wrong result")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"NEWT_PLANNER_DEVICE={settings.device}: {error}") from error
    on_gpu = device.type == "cuda"
    return Device(
        where=device,
        dtype=dtype,
        max_rows=settings.max_rows or (_GPU_MAX_ROWS if on_gpu else _CPU_MAX_ROWS),
        pad=settings.pad == "always" or (settings.pad == "auto" and on_gpu),
        compile=settings.compile,
    )


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # Without these instructions bfloat16 is emulated, slower than float32.
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("arm_bf16")
    return torch.bfloat16 if fast else torch.float32
