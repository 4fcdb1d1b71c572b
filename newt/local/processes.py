"""Telling processes apart: the system gives a process's id to another one some time after its end."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; with the id it names one process alone.

    None if there is no such process, or it is a zombie (our own child is one until it is waited for).
    """
    try:
        # proc(5): the second field is the program's name in parentheses, with anything in it; 22 is the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
