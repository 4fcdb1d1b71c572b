"""Where and in which precision this process plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import structlog
import torch

from newt.agent import devices
from newt.agent.code_maker import CodeMaker
from newt.agent.compilation import prepare
from newt.agent.config import ConfigError, ModelConfig
from newt.agent.inference import fastest_dtype
from newt.runs.record import Computing
from services.planner.requests import ModelShape
from services.planner.settings import PlannerSettings
from services.planner.spares import Spares

log = structlog.get_logger(__name__)

# A multiple of it wastes little of a large batch (200 rows become 208), and few sizes remain.
_PAD_TO = 16


@dataclass(frozen=True)
class Device:
    """The chosen device.

    Attributes:
        where: Device that tensors live on.
        dtype: Type of the matrix products.
        max_rows: Rows of one device batch.
        pad: Whether batches are padded, so that few shapes occur.
        code: Compiles the networks; None: they are not compiled.
        prepared: Kinds of models of which batches of every size were computed once.
        spares: Lends planners that record their passes and replay them; None: they do not.
    """

    where: torch.device
    dtype: torch.dtype
    max_rows: int
    pad: bool
    code: CodeMaker | None = field(default=None, compare=False)
    prepared: set[tuple[ModelShape, ModelConfig]] = field(default_factory=set, compare=False)
    spares: Spares | None = field(default=None, compare=False)

    def computing(self) -> Computing:
        """What people are told of it."""
        return Computing(
            device=str(self.where),
            precision=str(self.dtype).removeprefix("torch."),
            compiled=self.code is not None,
            warning=devices.unused_warning(self.where, "NEWT_PLANNER_DEVICE"),
        )

    def rows_per_pass(self, cost: float) -> int:
        """Rows to compute at once.

        Args:
            cost: Of one row, in rows of the published plan. Where it is more than 1, a pass has fewer rows, so that it
                takes no more memory, and other models need not wait longer for their turn.
        """
        return max(1, int(self.max_rows / max(1.0, cost)))

    def padded(self, rows: int) -> int:
        """Rows to compute for a batch of so many, at most `max_rows`: 1, 2, 4, 8, or a multiple of 16."""
        if not self.pad:
            return rows
        size = 1 << (rows - 1).bit_length() if rows <= _PAD_TO else -(-rows // _PAD_TO) * _PAD_TO
        return min(size, self.max_rows)


# Rows beyond a few do not make a CPU faster per row, they only make every caller wait for all.
_CPU_MAX_ROWS, _GPU_MAX_ROWS = 32, 256


def choose_device(settings: PlannerSettings) -> Device:
    """Reads the settings, fixes torch's threads and runs one product on the device.

    Raises:
        ValueError: The device does not exist or does not compute, or there is no compiler to compile with; the message
            says what to change.
    """
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    try:
        device = torch.device(devices.resolve(settings.device))
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("expected auto, cpu, cuda or cuda:N")
        dtype = fastest_dtype(device) if settings.precision == "auto" else getattr(torch, settings.precision)
        ones = torch.ones(8, 8, device=device, dtype=dtype)
        if float((ones @ ones).float().sum()) != 512.0:
            raise RuntimeError("a matrix product on it gave a wrong result")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"NEWT_PLANNER_DEVICE={settings.device}: {error}") from error
    on_gpu = device.type == "cuda"
    devices.set_precision("auto", device)  # of what is not computed in the reduced type: the encoder
    return Device(
        where=device,
        dtype=dtype,
        max_rows=settings.max_rows or (_GPU_MAX_ROWS if on_gpu else _CPU_MAX_ROWS),
        pad=settings.pad == "always" or (settings.pad == "auto" and on_gpu),
        code=CodeMaker() if _compiles(settings, on_gpu) else None,
        spares=Spares() if settings.graphs else None,
    )


def _compiles(settings: PlannerSettings, on_gpu: bool) -> bool:
    if settings.compile is False or (settings.compile is None and not on_gpu):
        return False
    try:
        prepare(Path(settings.compile_cache) if settings.compile_cache else None)
    except ConfigError as error:
        if settings.compile:
            raise
        log.warning("not_compiled", reason=str(error))
        return False
    return True
