"""Ports on loopback."""

from __future__ import annotations

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 10_240
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on now, and that was not given before.

    Another process may take it before it is used; that is an error then. It is none of those that the system gives to
    outgoing connections, which would take it sooner or later on a busy machine.
    """
    try:
        below = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        below = 32_768
    random_ports = random.SystemRandom()  # Processes that were forked, or seeded, must not choose alike.
    for _ in range(100):
        port = random_ports.randrange(_LOWEST, max(below, _LOWEST + 1))
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether `port` can be bound on loopback."""
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
