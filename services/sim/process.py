"""A worker process as the server sees it."""

from __future__ import annotations

import collections
import contextlib
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from newt.errors import LostError
from newt.processes import how_it_ended
from services.sim.messages import DONE, MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, READY

_STDERR_LINES = 40


class WorkerLostError(LostError):
    """The process is gone; its text says how, and what it last wrote to stderr."""


class RequestFailedError(Exception):
    """The worker is well, but could not do what it was asked to."""


class WorkerProcess:
    """Starts a worker and talks to it.

    Args:
        index: Its place in the pool.
        environment: Variables on top of our own.
        log_level: Level of its log.
        descriptors: Files of ours that it has open under the same numbers.
    """

    def __init__(
        self, index: int, environment: Mapping[str, str], log_level: str, descriptors: Sequence[int] = ()
    ) -> None:
        self.index = index
        self._hung = False
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE_BYTES)
        lifeline, self._lifeline = os.pipe()
        pulse = os.memfd_create("newt-sim-pulse", os.MFD_CLOEXEC)
        os.ftruncate(pulse, mmap.PAGESIZE)
        self._pulse = np.frombuffer(mmap.mmap(pulse, mmap.PAGESIZE), np.int64, 1)
        command = [sys.executable, "-m", "services.sim.worker", "--log-level", log_level]
        command += ["--control", str(control.fileno()), "--lifeline", str(lifeline), "--pulse", str(pulse)]
        # A new program rather than a fork: gRPC's threads must not be copied, and its stderr can be read.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(control.fileno(), lifeline, pulse, *descriptors),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        )
        control.close()
        os.close(lifeline)
        os.close(pulse)
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        self._reader = threading.Thread(target=self._forward_output, name=f"worker-{index}-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def pulse(self) -> int:
        """Pieces of work begun so far."""
        return int(self._pulse[0])

    def wait_ready(self, timeout_s: float) -> None:
        """Waits until the process serves.

        Raises:
            WorkerLostError: It died, or took longer.
        """
        self._control.settimeout(timeout_s)
        try:
            answer = self._control.recv(16)
        except TimeoutError:
            self.kill_hung()
            answer = b""
        except OSError:
            answer = b""
        if answer != READY:
            raise WorkerLostError(self.obituary())

    def attach(self, spec: bytes, block_descriptor: int, timeout_s: float) -> Channel:
        """Gives a session to the worker, which builds nothing yet.

        Args:
            spec: A dumped GroupSpec.
            block_descriptor: Descriptor of the session's block.
            timeout_s: Time-out of one piece of work, see `Channel.wait`.

        Raises:
            WorkerLostError: The process is gone.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            socket.send_fds(self._control, [spec], [block_descriptor, theirs.fileno()])
        except OSError as error:
            ours.close()
            raise WorkerLostError(self.obituary()) from error
        finally:
            theirs.close()
        return Channel(self, ours, timeout_s)

    def kill_hung(self) -> None:
        """Ends a process that does not answer."""
        self._hung = True
        self._process.kill()

    def reason(self) -> str:
        """Why it ended, as a metrics label: hung, signal or exit. Call when it has."""
        if self._hung:
            return "hung"
        return "signal" if self._process.returncode < 0 else "exit"

    def obituary(self) -> str:
        """How the process ended and what it last wrote; ends it if it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # Its sockets close a moment before it can be reaped.
        if self._process.poll() is None:
            self.kill_hung()
        code = self._process.wait()
        self._reader.join(1.0)
        how = "was killed because a call of its simulator did not return in time" if self._hung else how_it_ended(code)
        last = "\n".join(self._last_lines) or "(nothing)"
        return f"worker {self.index} (pid {self.pid}) {how}; its last lines:\n{last}"

    def stop(self, timeout_s: float) -> None:
        """Ends the process, by force if it takes longer than `timeout_s`."""
        self._control.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1.0)
        os.close(self._lifeline)

    def _forward_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for raw in output:
                line = raw.decode(errors="replace").rstrip("\n")
                self._last_lines.append(line)
                # It must go on: a worker whose output nobody reads stands still.
                with contextlib.suppress(OSError):
                    print(line, file=sys.stderr, flush=True)


class Channel:
    """One session's line to one worker."""

    def __init__(self, worker: WorkerProcess, connection: socket.socket, timeout_s: float) -> None:
        self.worker = worker
        self._connection = connection
        # The kernel's own timeout: socket.settimeout would poll before every receive.
        seconds, fraction = divmod(timeout_s, 1)
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), max(1, int(fraction * 1e6)))
        )

    def send(self, message: bytes) -> None:
        """Asks for something; `wait` must follow.

        Raises:
            WorkerLostError: The process is gone.
        """
        try:
            self._connection.send(message)
        except OSError as error:
            raise WorkerLostError(self.worker.obituary()) from error

    def wait(self, awake_s: float = 0.0) -> None:
        """Waits for the answer to one request.

        A single piece of work (a step of one instance, say) may take `timeout_s`. A worker which begins no new piece
        for that long is stuck, and is killed.

        Args:
            awake_s: Ask again and again for that long before going to sleep, letting whoever wants the processor have
                it: waking up again would take longer than a light simulator's step.

        Raises:
            WorkerLostError: The process died or was killed.
            RequestFailedError: The worker says that it could not.
        """
        seen = self.worker.pulse
        asleep_from = time.perf_counter() + awake_s
        while True:
            awake = time.perf_counter() < asleep_from
            try:
                answer = self._connection.recv(MAX_ANSWER_BYTES, socket.MSG_DONTWAIT if awake else 0)
                break
            except BlockingIOError:
                if awake:
                    os.sched_yield()
                    continue
                if self.worker.pulse == seen:
                    self.worker.kill_hung()
                seen = self.worker.pulse
            except OSError:
                answer = b""
                break
        if not answer:
            raise WorkerLostError(self.worker.obituary())
        if answer != DONE:
            raise RequestFailedError(answer[1:].decode(errors="replace"))

    def close(self) -> None:
        """Ends the session in the worker, which frees its instances."""
        self._connection.close()
