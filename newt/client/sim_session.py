"""Leased simulators: resets, steps and frames of N instances.

Letters: N instances, O = 128 and A = 16 columns, F finished rows; protos/newt/v1/sim.proto has the semantics.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from newt.client.sim_lease import Lease, StepStream
from newt.client.steps import Observation, Step, read_observation, read_step
from newt.errors import InvalidInputError, LostError, NotFoundError, PreconditionError, UnavailableError
from newt.wire.lockstep import LockstepStream
from newt.wire.numbers import MAX_UINT32, whole
from newt.wire.peer import Peer
from newt.wire.status import rpc_code
from newt.wire.tasks import from_message
from newt.wire.tensors import decode, encode
from newt.wire.v1 import sim_pb2, sim_pb2_grpc

T = TypeVar("T")
Lost = Callable[[], None]
"""Is told each time that a server could not bring simulators back, and is asked again."""

# The server says no to the step itself. After any other error it may have been made, or be under way.
_REFUSALS = (InvalidInputError, PreconditionError, NotFoundError)


class SimSession:
    """N leased instances, for one thread at a time.

    Steps travel over a stream of the session's own. Where the stream breaks, the step is repeated with a plain call,
    which is harmless because steps are numbered. A session that is dropped without `close` is given back as well.

    Attributes:
        tasks: Tasks of each row.
        lease_s: Seconds without a call after which the server ends the session.
    """

    def __init__(
        self, peer: Peer, channel: grpc.Channel, timeout_s: float, opened: sim_pb2.OpenResponse, keep_alive: bool
    ) -> None:
        self.tasks = [from_message(task) for task in opened.envs]
        self.lease_s = opened.lease_s
        self._peer = peer
        self._timeout_s = timeout_s
        self._id = opened.session_id
        self._step_number = 0
        self._pending: sim_pb2.StepRequest | None = None
        self._user = threading.RLock()
        self._lease = Lease(peer, channel, timeout_s, opened)
        weakref.finalize(self, self._lease.give_back_later).atexit = False
        if keep_alive:
            threading.Thread(target=self._lease.keep_alive, name="sim-keep-alive", daemon=True).start()

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self.tasks)

    def reset(self, rows: Sequence[int] = (), seeds: Sequence[int] = (), *, lost: Lost | None = None) -> Observation:
        """Starts new episodes. A step that is under way is finished first, and its result dropped.

        Args:
            rows: Which; empty means all.
            seeds: Seeds of the episodes, one per row; empty lets every row continue its own sequence.
            lost: As for `SimClient.open`.

        Returns:
            The state of all rows.
        """
        request = sim_pb2.ResetRequest(
            session_id=self._id,
            rows=[whole(f"rows[{i}]", row, 0, MAX_UINT32) for i, row in enumerate(rows)],
            seeds=[whole(f"seeds[{i}]", seed) for i, seed in enumerate(seeds)],
        )
        with self.in_use():
            if self._pending is not None:
                with contextlib.suppress(InvalidInputError, PreconditionError):  # Then it has moved nothing.
                    self.receive()
            stub = self._stub
            if lost is None:
                reply = self._peer.call(stub.Reset, request, self._timeout_s)
            else:
                once = telling(lost, lambda: self._peer.once(stub.Reset, request, self._timeout_s))
                reply = self._peer.wait(once, self._timeout_s, on=(UnavailableError,))
        return read_observation(reply.observation, self.num_envs)

    @property
    def stepping(self) -> bool:
        """Whether a step is under way: it was sent, and its result has not been received."""
        return self._pending is not None

    def in_use(self) -> _InUse:
        """A block of calls during which other threads are refused."""
        return _InUse(self._user, self._id)

    def step(self, action: npt.NDArray[np.float32]) -> Step:
        """One step of all rows.

        Args:
            action: float32[N, A], used columns in [-1, 1].
        """
        with self.in_use():
            self.send(action)
            return self.receive()

    def send(self, action: npt.NDArray[np.float32]) -> None:
        """Starts a step; `receive` must follow. Work between the two overlaps with the simulators'."""
        with self.in_use():
            if self._pending is not None:
                raise RuntimeError("a step is under way: receive it, or reset, before sending the next")
            request = sim_pb2.StepRequest(session_id=self._id, step_number=self._step_number + 1, action=encode(action))
            stream = self._lease.stream or self._open_stream()
            self._pending = request  # Before it leaves: what a signal interrupts may be under way.
            try:
                stream.send(request)
            except BaseException:
                self._lease.drop_stream()
                raise

    def receive(self, wait_s: float = 0.0, *, lost: Lost | None = None) -> Step:
        """The result of the step that was sent.

        After every error but a refusal `receive` may be called again, until it succeeds: the step keeps its number, so
        it is made once. A new step cannot be sent before, as the server would answer its number with the old result.

        Args:
            wait_s: How long to ask again while the server is away or restarts its simulators; a client with patience
                asks for as long as that lasts.
            lost: As for `SimClient.open`.

        Raises:
            InvalidInputError, PreconditionError, NotFoundError: The step was refused; nothing has moved.
            UnavailableError: The server cannot be reached, does not answer in time, or cannot be asked now.
            LostError: Simulators died and are being restarted.
        """
        with self.in_use():
            return self._peer.wait(telling(lost, self._receive), wait_s)

    def render(self, rows: Sequence[int] = ()) -> npt.NDArray[np.uint8]:
        """Draws rows (empty means all) as they are now: uint8[R, 224, 224, 3]."""
        request = sim_pb2.RenderRequest(
            session_id=self._id, rows=[whole(f"rows[{i}]", row, 0, MAX_UINT32) for i, row in enumerate(rows)]
        )
        with self.in_use():
            reply = self._peer.call(self._stub.Render, request, self._timeout_s)
        return decode(reply.frames, "frames", dtype=np.uint8, shape=(None, None, None, 3))

    def renew(self) -> float:
        """Starts the lease anew; returns its seconds."""
        self._lease.require()
        return self._lease.renew()

    def close(self) -> None:
        """Gives the instances back, a step under way included; idempotent. May come from any thread."""
        self._lease.give_back()

    def abandon(self) -> None:
        """Closes the connection without a word: the session ends with its lease."""
        self._lease.ended.set()
        self._lease.channel.close()

    def __enter__(self) -> SimSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _stub(self) -> sim_pb2_grpc.SimServiceStub:
        self._lease.require()
        return self._lease.stub

    def _open_stream(self) -> StepStream:
        self._lease.require()
        self._lease.stream = LockstepStream(
            self._lease.channel,
            "/newt.v1.SimService/StepStream",
            sim_pb2.StepRequest.SerializeToString,
            sim_pb2.StepResponse.FromString,
            self._timeout_s,
        )
        return self._lease.stream

    def _receive(self) -> Step:
        request = self._pending
        if request is None:
            raise RuntimeError("no step is under way: send one first")
        try:
            reply = self._reply(request)
        except _REFUSALS:
            self._pending = None
            raise
        self._pending = None
        self._step_number = request.step_number
        return read_step(reply, self.num_envs)

    def _reply(self, request: sim_pb2.StepRequest) -> sim_pb2.StepResponse:
        stream = self._lease.stream
        if stream is not None:
            try:
                return stream.receive()
            except grpc.RpcError as error:
                self._lease.drop_stream()
                if rpc_code(error) not in (
                    grpc.StatusCode.OK,  # A server that is shutting down ends its streams.
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ):
                    raise self._peer.error(error, self._timeout_s) from error
            except BaseException:  # A signal's: nobody can tell where it struck.
                self._lease.drop_stream()
                raise
        reply: sim_pb2.StepResponse = self._peer.once(self._stub.Step, request, self._timeout_s)
        return reply


def telling(lost: Lost | None, call: Callable[[], T]) -> Callable[[], T]:
    """A try that tells of simulators that are lost."""

    def told() -> T:
        try:
            return call()
        except LostError:
            if lost is not None:
                lost()
            raise

    return told


class _InUse:
    """Refuses a second thread, at the cost of a lock that is free."""

    def __init__(self, user: threading.RLock, session_id: str) -> None:
        self._user, self._session_id = user, session_id

    def __enter__(self) -> None:
        if not self._user.acquire(blocking=False):
            raise PreconditionError(
                f"session {self._session_id} is in use by another thread; give each thread an environment of its own, "
                "or a lock around all uses"
            )

    def __exit__(self, *exception: object) -> None:
        self._user.release()
