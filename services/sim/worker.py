"""A worker process: builds, steps and draws the instances that the server gives it.

Started by the server as `python -m services.sim.worker`. It serves one message at a time, in turn over its sessions,
and ends when the server does, however that ends.
"""

from __future__ import annotations

import argparse
import faulthandler
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time

import numpy as np
import structlog

from newt import logs
from newt.memory import resident_bytes
from services.sim.block import SessionBlock
from services.sim.group import Group, GroupSpec
from services.sim.messages import (
    BUILD,
    DONE,
    DRAW,
    FAILED,
    MAX_ANSWER_BYTES,
    MAX_MESSAGE_BYTES,
    READY,
    RESET,
    STEP,
    unpack_build,
)

MEMORY_VARIABLE = "NEWT_SIM_WORKER_BYTES"
"""Environment variable with the resident bytes beyond which a worker ends itself; 0 is no limit."""
_LOOK_S = 1.0

log = structlog.get_logger(__name__)


class Worker:
    """Serves the control socket and the sessions that come through it.

    Args:
        control: Connected to the server.
        pulse_descriptor: Memory file of one int64, see Group.
    """

    def __init__(self, control: socket.socket, pulse_descriptor: int) -> None:
        self._control = control
        self._pulse = np.frombuffer(mmap.mmap(pulse_descriptor, mmap.PAGESIZE), np.int64, 1)
        self._sessions: dict[int, tuple[socket.socket, Group, SessionBlock]] = {}
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._most_bytes = int(os.environ.get(MEMORY_VARIABLE, "0"))
        self._looked_at = 0.0

    def run(self) -> None:
        """Serves until the server closes the control socket."""
        self._control.send(READY)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._control.fileno():
                    self._serve(descriptor)
                    self._look_at_memory()
                elif not self._accept():
                    return

    def _accept(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, 2)
        if not message:
            return False
        spec = GroupSpec.load(message)
        block = SessionBlock(spec.session_rows, descriptors[0])
        session = socket.socket(fileno=descriptors[1])
        self._sessions[session.fileno()] = (session, Group(spec, block, self._pulse), block)
        self._poll.register(session, select.EPOLLIN)
        return True

    def _serve(self, descriptor: int) -> None:
        session, group, block = self._sessions[descriptor]
        try:
            message = session.recv(64)
            if message:
                session.send(self._answer(group, message))
        except ConnectionError:
            message = b""
        if not message:  # The server has closed the session.
            self._poll.unregister(session)
            del self._sessions[descriptor]
            session.close()
            group.close()
            block.close()

    def _look_at_memory(self) -> None:
        """Ends the process where it has grown too large, which only beginning anew helps against."""
        now = time.monotonic()
        if not self._most_bytes or now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        used = resident_bytes()
        if used > self._most_bytes:
            tasks = sorted({task for _, group, _ in self._sessions.values() for task in group.tasks})
            log.error(
                "worker_too_large",
                megabytes=used >> 20,
                most=self._most_bytes >> 20,
                tasks=tasks,
                remedy="something is kept from step to step (`newt env check` measures it); if the simulators need as "
                "much, raise NEWT_SIM_MAX_WORKER_MB or have fewer NEWT_SIM_WORKERS",
            )
            sys.stderr.flush()
            os._exit(1)

    def _answer(self, group: Group, message: bytes) -> bytes:
        try:
            kind = message[:1]
            if kind == STEP:
                group.step()
            elif kind == RESET:
                group.reset()
            elif kind == DRAW:
                group.draw()
            elif kind == BUILD:
                group.build(unpack_build(message))
            else:
                raise ValueError(f"unknown message {message!r}")
        except Exception as error:
            log.exception("worker_request_failed")
            return FAILED + f"{type(error).__name__}: {error}".encode()[: MAX_ANSWER_BYTES - 1]
        return DONE


def main() -> None:
    """Entry point; the descriptors come from the server."""
    parser = argparse.ArgumentParser()
    for name in ("control", "lifeline", "pulse"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--log-level", default="INFO")
    arguments = parser.parse_args()
    faulthandler.enable(all_threads=False)
    logs.configure("sim-worker", arguments.log_level)
    # A signal to the whole process group is the server's to act on; it closes our sockets when it is done with us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def exit_with_server() -> None:
        # The end of file comes even if the server was killed, and is seen even while a simulator hangs.
        os.read(arguments.lifeline, 1)
        os._exit(0)

    threading.Thread(target=exit_with_server, name="lifeline", daemon=True).start()
    Worker(socket.socket(fileno=arguments.control), arguments.pulse).run()
    # Not through the interpreter's shutdown: graphics drivers are known to crash in it.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
