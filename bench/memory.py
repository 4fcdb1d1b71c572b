"""What processes hold in memory, without counting twice what they share."""

from __future__ import annotations

import contextlib

import psutil


def resident_mb(pid: int) -> float:
    """Memory of a process and everything that it started, MB.

    A page that several processes share (libraries, sessions of simulators) counts in parts (Linux's PSS), so that the
    sum is what the machine must have. Processes that end meanwhile count nothing.
    """
    process = psutil.Process(pid)
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            total += float(member.memory_full_info().pss)
    return total / 1e6
