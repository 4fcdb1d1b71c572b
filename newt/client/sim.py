"""A thin, typed client of the simulator service.

    with SimClient("127.0.0.1:50051", timeout_s=60) as client:
        with client.open(["walker-walk"] * 8, seeds=range(8)) as session:
            observation = session.reset()
            step = session.step(np.zeros((8, 16), np.float32))

Letters: N instances, O = 128 and A = 16 columns, F finished rows; protos/newt/v1/sim.proto has the semantics.
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Sequence
from types import TracebackType

import grpc

from newt.client.sim_session import Lost, SimSession, telling
from newt.errors import UnavailableError
from newt.tasks.registry import Task
from newt.wire.channels import connect
from newt.wire.numbers import whole
from newt.wire.peer import REMEDY, Patience, Peer
from newt.wire.tasks import from_message
from newt.wire.v1 import sim_pb2, sim_pb2_grpc

_BUILD_S = 5.0  # What building the largest simulator may take on a busy machine.


class ObsMode(enum.Enum):
    """Which observations a session returns."""

    STATE = sim_pb2.OBS_MODE_STATE
    STATE_RGB = sim_pb2.OBS_MODE_STATE_RGB


class AutoReset(enum.Enum):
    """What happens when an episode ends."""

    SAME_STEP = sim_pb2.AUTO_RESET_SAME_STEP
    DISABLED = sim_pb2.AUTO_RESET_DISABLED
    NEXT_STEP = sim_pb2.AUTO_RESET_NEXT_STEP


class SimClient:
    """A connection to one simulator server; thread-safe.

    Args:
        address: host:port.
        timeout_s: Deadline of every call; `open` waits as long for a server that does not answer.
        build_timeout_s: What a server that answers may take to build the simulators of `open`; it has some seconds
            more for each instance.
        name: What people call the server.
        remedy: What to do when it is away.
        patience: Waits for it longer than `timeout_s`.
    """

    def __init__(
        self,
        address: str,
        timeout_s: float,
        build_timeout_s: float = 300.0,
        *,
        name: str = "simulator service",
        remedy: str = REMEDY,
        patience: Patience | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.peer = Peer(name, address, remedy=remedy, patience=patience)
        self._build_timeout_s = build_timeout_s
        self._channel = connect(address)
        self._sessions: weakref.WeakSet[SimSession] = weakref.WeakSet()
        self.stub = sim_pb2_grpc.SimServiceStub(self._channel)

    def describe(self) -> list[Task]:
        """The tasks hosted there, in registry order."""
        reply = self.peer.call(self.stub.Describe, sim_pb2.DescribeRequest(), self.timeout_s)
        return [from_message(task) for task in reply.tasks]

    def open(
        self,
        tasks: Sequence[str],
        seeds: Sequence[int],
        *,
        obs_mode: ObsMode = ObsMode.STATE,
        auto_reset: AutoReset = AutoReset.SAME_STEP,
        lease_s: float = 0.0,
        with_expert: bool = False,
        keep_alive: bool = False,
        lost: Lost | None = None,
    ) -> SimSession:
        """Builds instances and leases them.

        Args:
            tasks: Tasks of each row.
            seeds: Origin of each row's sequence of episodes.
            obs_mode: Whether frames come with every observation.
            auto_reset: What happens when an episode ends.
            lease_s: Seconds without a call after which the session ends; 0 is the server's default.
            with_expert: Return the scripted expert's actions as well.
            keep_alive: Renew from a background thread, so that pauses between steps may be long. The session
                then lives as long as its object.
            lost: Is told each time that the server could not bring simulators back, and is asked again.

        Raises:
            UnavailableError: The server does not answer.
            NotFoundError: A task which the server does not host.
            ExhaustedError: No room.
            NewtError: Anything else the server says.
        """
        if len(tasks) != len(seeds):
            raise ValueError(f"got {len(tasks)} tasks and {len(seeds)} seeds; expected one seed for each task")
        request = sim_pb2.OpenRequest(
            envs=[
                sim_pb2.EnvSpec(task=task, seed=whole(f"seeds[{row}]", seed))
                for row, (task, seed) in enumerate(zip(tasks, seeds, strict=True))
            ],
            obs_mode=obs_mode.value,
            auto_reset=auto_reset.value,
            lease_s=lease_s,
            with_expert=with_expert,
        )
        # Building may take minutes; that nobody is there should be known at once.
        self.peer.call(self.stub.Describe, sim_pb2.DescribeRequest(), self.timeout_s)
        build_s = self._build_timeout_s + _BUILD_S * len(tasks)
        channel, reply = self.peer.wait(
            telling(lost, lambda: self._open(request, build_s)), build_s, on=(UnavailableError,)
        )
        session = SimSession(self.peer, channel, self.timeout_s, reply, keep_alive)
        self._sessions.add(session)
        return session

    def _open(self, request: sim_pb2.OpenRequest, timeout_s: float) -> tuple[grpc.Channel, sim_pb2.OpenResponse]:
        """One try: at one replica, any of them, since the one that opens a session is the only one that knows it."""
        channel = connect(self.peer.address, one_replica=True)
        try:
            return channel, self.peer.once(sim_pb2_grpc.SimServiceStub(channel).Open, request, timeout_s)
        except BaseException:
            channel.close()
            raise

    def close(self) -> None:
        """Closes all connections; open sessions end with their leases."""
        self._channel.close()
        for session in list(self._sessions):
            session.abandon()

    def __enter__(self) -> SimClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
