"""What a training process computes on, fixed and told when it starts."""

from __future__ import annotations

import structlog
import torch

from newt.agent import devices
from newt.agent.config import Precision
from newt.runs.record import Computing

log = structlog.get_logger(__name__)


def compute_on(device: torch.device, precision: Precision) -> Computing:
    """Fixes the precision of this process, and logs what it computes on."""
    computing = Computing(
        device=str(device),
        precision=devices.set_precision(precision, device),
        warning=devices.unused_warning(device, "NEWT_LEARNER_DEVICE"),
    )
    log.info("device", device=computing.device, precision=computing.precision)
    if computing.warning:
        log.warning("gpu_unused", advice=computing.warning)
    return computing
