"""Times of work on a device, and how it multiplies meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from bench.measure import Candidate
from newt.agent import devices
from newt.agent.config import Precision


def synchronise(device: torch.device) -> None:
    """Waits until the device has nothing to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def multiplying(precision: Precision, device: torch.device) -> Iterator[None]:
    """Sets how float32 matrices are multiplied for a while."""
    before = torch.get_float32_matmul_precision()
    devices.set_precision(precision, device)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def on_device(work: Callable[[], object], device: torch.device, precision: Precision = "float32") -> Candidate:
    """A contestant whose work counts as done when the device has done it."""

    def whole() -> None:
        work()
        synchronise(device)

    return Candidate(whole, lambda: multiplying(precision, device))
