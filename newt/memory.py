"""Memory: what a process gives back, how much it has, how much it may have."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

# glibc's mallopt parameters.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Below it are the batches and messages of ordinary runs, which come again at once: they are kept and reused.
LARGE_BYTES = 4 << 20
KEPT_BYTES = 32 << 20
# Of a process that has no batches, and weights now and then, in chunks of 1 MiB.
SMALL_BYTES = 256 << 10
# Heaps that the threads share: each keeps the most that it ever held, and a gRPC server has dozens of threads.
ARENAS = 2


def return_large_blocks(large_bytes: int = LARGE_BYTES, kept_bytes: int = KEPT_BYTES) -> None:
    """Has large blocks go back to the system when they are freed; call once, before threads start.

    By default glibc raises that threshold to whatever was freed last, up to 32 MiB, so that one batch of 100 MB leaves
    the heap, and each thread's own, larger for as long as the process lives. Threads share ARENAS heaps from now on.
    Other C libraries are left as they are.

    Args:
        large_bytes: Blocks of more than that are large.
        kept_bytes: How much of what is free at a heap's end stays there.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, large_bytes)
        mallopt(_M_TRIM_THRESHOLD, kept_bytes)
        mallopt(_M_ARENA_MAX, ARENAS)


def resident_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this machine has in all, or the container that we are in.

    Args:
        groups: Where the kernel shows control groups, of either version.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no limit
            found.append(int((groups / file).read_text()))
    return min(found)
