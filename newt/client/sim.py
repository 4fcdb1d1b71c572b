"""A thin, typed client of the simulator service.

    with SimClient("127.0.0.1:50051", timeout_s=60) as client:
        with client.open(["walker-walk"] * 8, seeds=range(8)) as session:
            observation = session.reset()
            step = session.step(np.zeros((8, 16), np.float32))

Letters: N instances, O = 128 and A = 16 columns, F finished rows; protos/newt/v1/sim.proto has the semantics.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import structlog

from newt.errors import InvalidInputError, NewtError, NotFoundError, PreconditionError, UnavailableError
from newt.tasks.registry import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.channels import connect
from newt.wire.lockstep import LockstepStream
from newt.wire.status import from_rpc_error, rpc_code
from newt.wire.tensors import decode, encode
from newt.wire.v1 import sim_pb2, sim_pb2_grpc, tensor_pb2

log = structlog.get_logger(__name__)

_BUILD_S = 5.0  # What building the largest simulator may take on a busy machine.
# The server says no to the step itself. After any other error it may have been made, or be under way.
_REFUSALS = (InvalidInputError, PreconditionError, NotFoundError)


class ObsMode(enum.Enum):
    """Which observations a session returns."""

    STATE = sim_pb2.OBS_MODE_STATE
    STATE_RGB = sim_pb2.OBS_MODE_STATE_RGB


class AutoReset(enum.Enum):
    """What happens when an episode ends."""

    SAME_STEP = sim_pb2.AUTO_RESET_SAME_STEP
    DISABLED = sim_pb2.AUTO_RESET_DISABLED


@dataclass(frozen=True)
class Task:
    """A task as the server describes it; see SimTask in the proto."""

    name: str
    domain: str
    obs_dim: int
    action_dim: int
    episode_length: int
    action_repeat: int
    has_success: bool
    has_expert: bool


@dataclass(frozen=True)
class Observation:
    """What N instances show now. Arrays are read-only.

    Attributes:
        obs: float32[N, O], zero-padded.
        rgb: uint8[N, 3, 224, 224], or None in state mode.
        expert_action: float32[N, A], or None unless asked for.
        episode_seed: uint64[N].
        episode_step: int32[N], 0 for a first observation.
    """

    obs: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8] | None
    expert_action: npt.NDArray[np.float32] | None
    episode_seed: npt.NDArray[np.uint64]
    episode_step: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Step:
    """One step of N instances. Arrays are read-only.

    Attributes:
        observation: After the step (and after auto-reset).
        reward: float32[N]; NaN for a crashed row.
        terminated: bool[N].
        truncated: bool[N].
        success: float32[N], NaN where undefined.
        score: float32[N], the published score of the episode so far.
        corrected_score: float32[N], the score that reports use: `score` but for the tasks of
            newt.tasks.corrected_scores.
        final_rows: int32[F], rows whose episode has ended, ascending.
        final_obs: float32[F, O].
        final_rgb: uint8[F, 3, 224, 224], or None in state mode.
        crashed: bool[N], rows whose simulator died: discard this transition.
    """

    observation: Observation
    reward: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    success: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    corrected_score: npt.NDArray[np.float32]
    final_rows: npt.NDArray[np.int32]
    final_obs: npt.NDArray[np.float32]
    final_rgb: npt.NDArray[np.uint8] | None
    crashed: npt.NDArray[np.bool_]


class SimClient:
    """A connection to one simulator server; thread-safe.

    Args:
        address: host:port.
        timeout_s: Deadline of every call but `open`.
        open_timeout_s: Deadline of `open`, which builds simulators and waits for a server that is coming up; it has
            some seconds more for each instance.
    """

    def __init__(self, address: str, timeout_s: float, open_timeout_s: float = 300.0) -> None:
        self.timeout_s = timeout_s
        self._address = address
        self._open_timeout_s = open_timeout_s
        self._channel = connect(address)
        self._sessions: weakref.WeakSet[SimSession] = weakref.WeakSet()
        self.stub = sim_pb2_grpc.SimServiceStub(self._channel)

    def describe(self) -> list[Task]:
        """The tasks hosted there, in registry order."""
        with translated():
            reply = self.stub.Describe(sim_pb2.DescribeRequest(), timeout=self.timeout_s)
        return [_task(task) for task in reply.tasks]

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
    ) -> SimSession:
        """Builds instances and leases them.

        Args:
            tasks: Of each row.
            seeds: Origin of each row's sequence of episodes.
            obs_mode: Whether frames come with every observation.
            auto_reset: What happens when an episode ends.
            lease_s: Seconds without a call after which the session ends; 0 is the server's default.
            with_expert: Return the scripted expert's actions as well.
            keep_alive: Renew from a background thread, so that pauses between steps may be long. The session
                then lives as long as this process.

        Raises:
            NotFoundError: A task which the server does not host.
            ExhaustedError: No room.
            NewtError: Anything else the server says.
        """
        if len(tasks) != len(seeds):
            raise ValueError(f"got {len(tasks)} tasks and {len(seeds)} seeds; expected one seed for each task")
        request = sim_pb2.OpenRequest(
            envs=[sim_pb2.EnvSpec(task=task, seed=seed) for task, seed in zip(tasks, seeds, strict=True)],
            obs_mode=obs_mode.value,
            auto_reset=auto_reset.value,
            lease_s=lease_s,
            with_expert=with_expert,
        )
        # The replica that opens a session is the only one that knows it.
        channel = connect(self._address, one_replica=True)
        try:
            with translated():
                stub = sim_pb2_grpc.SimServiceStub(channel)
                timeout_s = self._open_timeout_s + _BUILD_S * len(tasks)
                reply = stub.Open(request, timeout=timeout_s, wait_for_ready=True)
        except BaseException:
            channel.close()
            raise
        session = SimSession(channel, self.timeout_s, reply, keep_alive)
        self._sessions.add(session)
        return session

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


class SimSession:
    """N leased instances. Not thread-safe, apart from the keep-alive.

    Steps travel over a stream of the session's own. Where the stream breaks, the step is repeated with a plain call,
    which is harmless because steps are numbered.

    Attributes:
        tasks: Of each row.
        lease_s: Seconds without a call after which the server ends the session.
    """

    def __init__(self, channel: grpc.Channel, timeout_s: float, opened: sim_pb2.OpenResponse, keep_alive: bool) -> None:
        self.tasks = [_task(task) for task in opened.envs]
        self.lease_s = opened.lease_s
        self._channel = channel
        self._calls = sim_pb2_grpc.SimServiceStub(channel)
        self._timeout_s = timeout_s
        self._id = opened.session_id
        self._sequence = 0
        self._pending: sim_pb2.StepRequest | None = None
        self._stream: LockstepStream[sim_pb2.StepRequest, sim_pb2.StepResponse] | None = None
        self._closed = threading.Event()
        if keep_alive:
            threading.Thread(target=self._keep_alive, name="sim-keep-alive", daemon=True).start()

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self.tasks)

    def reset(self, rows: Sequence[int] = (), seeds: Sequence[int] = ()) -> Observation:
        """Starts new episodes. A step that is under way is finished first, and its result dropped.

        Args:
            rows: Which; empty means all.
            seeds: Of the episodes, one per row; empty lets every row continue its own sequence.

        Returns:
            The state of all rows.
        """
        if self._pending is not None:
            with contextlib.suppress(InvalidInputError, PreconditionError):  # Then it has moved nothing.
                self.receive()
        request = sim_pb2.ResetRequest(session_id=self._id, rows=rows, seeds=seeds)
        with translated():
            reply = self._stub.Reset(request, timeout=self._timeout_s)
        return _observation(reply.observation, self.num_envs)

    @property
    def stepping(self) -> bool:
        """Whether a step is under way: it was sent, and its result has not been received."""
        return self._pending is not None

    def step(self, action: npt.NDArray[np.float32]) -> Step:
        """One step of all rows.

        Args:
            action: float32[N, A], used columns in [-1, 1].
        """
        self.send(action)
        return self.receive()

    def send(self, action: npt.NDArray[np.float32]) -> None:
        """Starts a step; `receive` must follow. Work between the two overlaps with the simulators'."""
        if self._pending is not None:
            raise RuntimeError("a step is under way: receive it, or reset, before sending the next")
        request = sim_pb2.StepRequest(session_id=self._id, sequence=self._sequence + 1, action=encode(action))
        if self._stream is None:
            self._stream = self._step_stream()
        self._stream.send(request)
        self._pending = request

    def receive(self) -> Step:
        """The result of the step that was sent.

        After every error but a refusal `receive` may be called again, until it succeeds: the step keeps its number, so
        it is made once. A new step cannot be sent before, as the server would answer its number with the old result.

        Raises:
            InvalidInputError, PreconditionError, NotFoundError: The step was refused; nothing has moved.
            UnavailableError: The server cannot be reached, or not be asked, now.
            LostError: Simulators died and are being restarted.
            grpc.RpcError: The step takes longer than the deadline (DEADLINE_EXCEEDED), among others.
        """
        request = self._pending
        if request is None:
            raise RuntimeError("no step is under way: send one first")
        try:
            reply = self._receive(request)
        except grpc.RpcError as error:
            translated = from_rpc_error(error)
            if isinstance(translated, _REFUSALS):
                self._pending = None
            raise translated from error
        self._pending = None
        self._sequence = request.sequence
        return _step(reply, self.num_envs)

    def render(self, rows: Sequence[int] = ()) -> npt.NDArray[np.uint8]:
        """Draws rows (empty means all) as they are now: uint8[R, 224, 224, 3]."""
        request = sim_pb2.RenderRequest(session_id=self._id, rows=rows)
        with translated():
            reply = self._stub.Render(request, timeout=self._timeout_s)
        return decode(reply.frames, "frames", dtype=np.uint8, shape=(None, None, None, 3))

    def renew(self) -> float:
        """Starts the lease anew; returns its seconds."""
        with translated():
            reply = self._stub.Renew(sim_pb2.RenewRequest(session_id=self._id), timeout=self._timeout_s)
        return float(reply.lease_s)

    def close(self) -> None:
        """Gives the instances back; idempotent. A server that is gone has nothing to give back to."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._stream is not None:
            self._stream.close()
        with contextlib.suppress(grpc.RpcError):
            self._calls.Close(sim_pb2.CloseRequest(session_id=self._id), timeout=self._timeout_s)
        self._channel.close()

    def abandon(self) -> None:
        """Closes the connection without a word: the session ends with its lease."""
        self._closed.set()
        self._channel.close()

    def __enter__(self) -> SimSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _stub(self) -> sim_pb2_grpc.SimServiceStub:
        if self._closed.is_set():
            raise NotFoundError(f"session {self._id} is closed; open another")
        return self._calls

    def _step_stream(self) -> LockstepStream[sim_pb2.StepRequest, sim_pb2.StepResponse]:
        if self._closed.is_set():
            raise NotFoundError(f"session {self._id} is closed; open another")
        return LockstepStream(
            self._channel,
            "/newt.v1.SimService/StepStream",
            sim_pb2.StepRequest.SerializeToString,
            sim_pb2.StepResponse.FromString,
            self._timeout_s,
        )

    def _receive(self, request: sim_pb2.StepRequest) -> sim_pb2.StepResponse:
        if self._stream is not None:
            try:
                return self._stream.receive()
            except grpc.RpcError as error:
                self._stream.close()
                self._stream = None
                if rpc_code(error) not in (
                    grpc.StatusCode.OK,  # A server that is shutting down ends its streams.
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ):
                    raise
        return self._stub.Step(request, timeout=self._timeout_s)

    def _keep_alive(self) -> None:
        while not self._closed.wait(self.lease_s / 3):
            try:
                self.renew()
            except UnavailableError as error:
                log.warning("renew_failed", error=str(error))
            except (NewtError, grpc.RpcError, ValueError) as error:  # ValueError: the client was closed.
                if not self._closed.is_set():
                    log.warning("keep_alive_ended", error=str(error))
                return


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns a failed call's error into the NewtError that the server raised."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def _task(task: sim_pb2.SimTask) -> Task:
    return Task(
        name=task.name,
        domain=task.domain,
        obs_dim=task.obs_dim,
        action_dim=task.action_dim,
        episode_length=task.episode_length,
        action_repeat=task.action_repeat,
        has_success=task.has_success,
        has_expert=task.has_expert,
    )


def _observation(message: sim_pb2.Observation, rows: int) -> Observation:
    return Observation(
        obs=decode(message.obs, "obs", dtype=np.float32, shape=(rows, PADDED_OBS_DIM)),
        rgb=_frames(message, "rgb", rows),
        expert_action=(
            decode(message.expert_action, "expert_action", dtype=np.float32, shape=(rows, PADDED_ACTION_DIM))
            if message.HasField("expert_action")
            else None
        ),
        episode_seed=decode(message.episode_seed, "episode_seed", dtype=np.uint64, shape=(rows,)),
        episode_step=decode(message.episode_step, "episode_step", dtype=np.int32, shape=(rows,)),
    )


@functools.cache
def _no(rows: int) -> npt.NDArray[np.bool_]:
    values = np.zeros(rows, np.bool_)
    values.flags.writeable = False
    return values


@functools.cache
def _undefined(rows: int) -> npt.NDArray[np.float32]:
    values = np.full(rows, np.nan, np.float32)
    values.flags.writeable = False
    return values


_NO_ROWS = np.zeros(0, np.int32)
_NO_OBS = np.zeros((0, PADDED_OBS_DIM), np.float32)


def _step(message: sim_pb2.StepResponse, rows: int) -> Step:
    def column(tensor: tensor_pb2.Tensor, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return decode(tensor, name, dtype=dtype, shape=(rows,))

    final_rows, final_obs = _NO_ROWS, _NO_OBS
    terminated = truncated = crashed = _no(rows)
    if message.HasField("final_rows"):
        final_rows = decode(message.final_rows, "final_rows", dtype=np.int32, shape=(None,))
        final_obs = decode(message.final_obs, "final_obs", dtype=np.float32, shape=(len(final_rows), PADDED_OBS_DIM))
        terminated = column(message.terminated, "terminated", np.bool_)
        truncated = column(message.truncated, "truncated", np.bool_)
    if message.HasField("errors"):
        crashed = column(message.errors, "errors", np.int32) != 0
    score = column(message.score, "score", np.float32)
    corrected = message.HasField("corrected_score")
    return Step(
        observation=_observation(message.observation, rows),
        reward=column(message.reward, "reward", np.float32),
        terminated=terminated,
        truncated=truncated,
        success=column(message.success, "success", np.float32) if message.HasField("success") else _undefined(rows),
        score=score,
        corrected_score=column(message.corrected_score, "corrected_score", np.float32) if corrected else score,
        final_rows=final_rows,
        final_obs=final_obs,
        final_rgb=_frames(message, "final_rgb", len(final_rows)),
        crashed=crashed,
    )


def _frames(message: sim_pb2.Observation | sim_pb2.StepResponse, field: str, rows: int) -> npt.NDArray[np.uint8] | None:
    # A field's name is checked against the type at run time alone.
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    return decode(getattr(message, field), field, dtype=np.uint8, shape=(rows, 3, None, None))
