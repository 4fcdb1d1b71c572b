"""What a session of simulators must give back, and how it is kept until then."""

from __future__ import annotations

import contextlib
import threading

import grpc
import structlog

from newt.errors import NewtError, NotFoundError, UnavailableError
from newt.wire.lockstep import LockstepStream
from newt.wire.peer import Peer
from newt.wire.v1 import sim_pb2, sim_pb2_grpc

StepStream = LockstepStream[sim_pb2.StepRequest, sim_pb2.StepResponse]

log = structlog.get_logger(__name__)


class Lease:
    """What a session must give back, apart from the session, so that it can be done when that is dropped."""

    def __init__(self, peer: Peer, channel: grpc.Channel, timeout_s: float, opened: sim_pb2.OpenResponse) -> None:
        self.peer, self.channel, self.timeout_s = peer, channel, timeout_s
        self.stub = sim_pb2_grpc.SimServiceStub(channel)
        self.session_id, self.seconds = opened.session_id, opened.lease_s
        self.ended = threading.Event()
        self.stream: StepStream | None = None

    def require(self) -> None:
        """Raises NotFoundError once the session is closed."""
        if self.ended.is_set():
            raise NotFoundError(f"session {self.session_id} is closed; open another")

    def renew(self) -> float:
        """Starts the lease anew; returns its seconds."""
        request = sim_pb2.RenewRequest(session_id=self.session_id)
        return float(self.peer.once(self.stub.Renew, request, self.timeout_s).lease_s)

    def keep_alive(self) -> None:
        """Renews until the end."""
        while not self.ended.wait(self.seconds / 3):
            try:
                self.renew()
            except UnavailableError as error:
                if not self.ended.is_set():
                    log.warning("renew_failed", error=str(error))
            except (NewtError, ValueError) as error:  # ValueError: the channel was closed.
                if not self.ended.is_set():
                    log.warning("keep_alive_ended", error=str(error))
                return

    def drop_stream(self) -> None:
        """Ends the stream of steps, if there is one."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()

    def give_back(self) -> None:
        """Ends the session at the server; idempotent. One that is gone has nothing to give back to."""
        if self.ended.is_set():
            return
        self.ended.set()
        try:
            self.drop_stream()
            with contextlib.suppress(NewtError):
                self.peer.once(self.stub.Close, sim_pb2.CloseRequest(session_id=self.session_id), self.timeout_s)
        finally:
            self.channel.close()

    def give_back_later(self) -> None:
        """As `give_back`, without waiting for the server: a collected session may not hold up anybody."""
        if not self.ended.is_set():
            with contextlib.suppress(RuntimeError):  # Python is ending, and the connection with it.
                threading.Thread(target=self.give_back, name="sim-give-back", daemon=True).start()
