"""What is read while the load runs: processor time of processes, gauges of services, bytes of messages."""

from __future__ import annotations

import os
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, its threads and the kernel's work for it included."""
    # The name, in parentheses, may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def gauge(metrics_port: int, name: str) -> float:
    """Value of an unlabelled metric on a service's Prometheus endpoint."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise KeyError(f"no metric {name}")
    return float(found[1])


class Traffic:
    """Calls and bytes of messages by kind; safe to share between threads. HTTP/2 and TCP headers are not counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, **amounts: int) -> None:
        """Adds to counters."""
        with self._lock:
            self._counts.update(amounts)

    def read(self) -> dict[str, int]:
        """All counters now."""
        with self._lock:
            return dict(self._counts)


class Samples:
    """A value that is read again and again by a thread until the block ends.

    Args:
        read: Name to how it is read.
        every_s: Seconds between two readings.
    """

    def __init__(self, read: Mapping[str, Callable[[], float]], every_s: float = 0.25) -> None:
        self._read, self._every_s = read, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="samples", daemon=True)
        self.values: dict[str, list[float]] = {name: [] for name in read}

    def __enter__(self) -> Samples:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._over.wait(self._every_s):
            for name, read in self._read.items():
                self.values[name].append(read())
