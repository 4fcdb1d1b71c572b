"""Client of the planner service: NumPy arrays in, actions out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from newt.errors import InvalidInputError, UnavailableError
from newt.wire.channels import connect
from newt.wire.status import from_rpc_error, rpc_code
from newt.wire.tensors import decode, encode
from newt.wire.v1 import planner_pb2, planner_pb2_grpc

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True, eq=False)
class Plan:
    """Reply of the planner for B rows.

    Attributes:
        action: float32[B, A] in [-1, 1], zero in unused columns.
        next_mean: float32[B, H, A], to be passed as prev_mean of the next step; None without planning.
        value: float32[B], the model's estimate of the selected plan; NaN without planning.
        sequence: float32[B, H, A], the selected sequence, if asked for.
        weights_version: Weights that planned all rows.
        queue_seconds: Time spent waiting in the service.
        compute_seconds: Time of the device batch.
        batch_rows: Rows of the device batch, those of other callers included.
    """

    action: npt.NDArray[np.float32]
    next_mean: npt.NDArray[np.float32] | None
    value: npt.NDArray[np.float32]
    sequence: npt.NDArray[np.float32] | None
    weights_version: int
    queue_seconds: float
    compute_seconds: float
    batch_rows: int


@dataclass(frozen=True)
class ServedModel:
    """A model that a planner can serve now."""

    model_id: str
    weights_version: int
    parameters: int
    tasks: tuple[str, ...]
    horizon: int


class PlannerClient:
    """Plans actions through the planner service; safe to share between threads.

        with PlannerClient("127.0.0.1:50071") as planner:
            plan = planner.plan("run-1", obs, task, seed, explore=True, timeout_s=5)
            plan = planner.plan("run-1", obs, task, seed + 1, explore=True, prev_mean=plan.next_mean, timeout_s=5)

    Args:
        target: `host:port`, or any gRPC target with several planners behind it.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = connect(target)
        self._stub = planner_pb2_grpc.PlannerServiceStub(self._channel)

    def plan(
        self,
        model_id: str,
        obs: npt.ArrayLike,
        task: npt.ArrayLike,
        seed: npt.ArrayLike,
        *,
        explore: bool,
        timeout_s: float,
        prev_mean: npt.ArrayLike | None = None,
        first: npt.ArrayLike | None = None,
        policy_only: bool = False,
        env_step: int | None = None,
        min_weights_version: int = 0,
        horizon: int = 0,
        image: npt.ArrayLike | None = None,
        want_sequence: bool = False,
    ) -> Plan:
        """Chooses one action per row.

        Waits within the deadline for a planner to appear, and for the weights asked for: a planner that says
        UNAVAILABLE is asked again.

        Args:
            model_id: Model to act with; for training runs, the run's id.
            obs: float32[B, O], finite, zero-padded.
            task: int[B], row of each task in the model's task table.
            seed: int[B] in [0, 2**64), source of all randomness of a row; use a new one for every step.
            explore: Add exploration noise; False in evaluation.
            timeout_s: Deadline of the whole call, waiting included.
            prev_mean: float32[B, H, A], next_mean of each row's previous reply; None means zeros.
            first: bool[B], rows at the first step of an episode, which start from a zero mean.
            policy_only: Act with the policy, without planning.
            env_step: Environment steps taken by the run, for constrained planning; None plans unconstrained.
            min_weights_version: Refuse to act with older weights.
            horizon: Planning horizon, 0 for the model's own.
            image: float32[B, X], image features, for models with image input.
            want_sequence: Also return the whole selected sequence.

        Raises:
            InvalidInputError: The service refuses an argument, which the error names.
            ExhaustedError: The planner's queue is full.
            UnavailableError: No planner, or no such weights, before the deadline.
        """
        request = planner_pb2.PlanRequest(
            model_id=model_id,
            obs=encode(_array("obs", obs, np.float32)),
            task=encode(_array("task", task, np.int32)),
            seed=encode(_array("seed", seed, np.uint64)),
            explore=explore,
            mode=planner_pb2.ACT_MODE_POLICY if policy_only else planner_pb2.ACT_MODE_PLAN,
            min_weights_version=min_weights_version,
            horizon=horizon,
            want_sequence=want_sequence,
        )
        if prev_mean is not None:
            request.prev_mean.CopyFrom(encode(_array("prev_mean", prev_mean, np.float32)))
        if first is not None:
            request.first.CopyFrom(encode(_array("first", first, np.bool_)))
        if image is not None:
            request.image.CopyFrom(encode(_array("image", image, np.float32)))
        if env_step is not None:
            request.env_step = env_step
        return _unpack(self._until_available(request, timeout_s))

    def models(self, *, timeout_s: float) -> list[ServedModel]:
        """Models that the planner can serve now.

        Raises:
            UnavailableError: No planner answered before the deadline.
        """
        try:
            reply = self._stub.ListModels(planner_pb2.ListModelsRequest(), timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            raise self._translated(error, timeout_s, "") from error
        return [
            ServedModel(m.model_id, m.weights_version, m.parameters, tuple(m.tasks), m.horizon) for m in reply.models
        ]

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _until_available(self, request: planner_pb2.PlanRequest, timeout_s: float) -> planner_pb2.PlanResponse:
        deadline = time.monotonic() + timeout_s
        pause_s, last = _FIRST_PAUSE_S, ""
        while True:
            remaining_s = max(0.0, deadline - time.monotonic())
            try:
                return self._stub.Plan(request, timeout=remaining_s, wait_for_ready=True)
            except grpc.RpcError as error:
                translated = self._translated(error, timeout_s, last)
                too_late = time.monotonic() + pause_s >= deadline
                if rpc_code(error) is not grpc.StatusCode.UNAVAILABLE or too_late:
                    raise translated from error
                last = str(translated)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _translated(self, error: grpc.RpcError, timeout_s: float, last: str) -> Exception:
        if rpc_code(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
            cause = f"; the last answer was: {last}" if last else ""
            return UnavailableError(f"planner at {self._target} did not answer within {timeout_s} s{cause}")
        return from_rpc_error(error)


def _array(field: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Converts where no value can change; the service judges the shape."""
    array = np.asarray(value)
    want = np.dtype(dtype)
    if array.dtype == want:
        return array
    if array.dtype.kind in "iu" and want.kind in "iu":
        limits = np.iinfo(want)
        if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise InvalidInputError(field, f"values outside of {want}'s range {limits.min} to {limits.max}")
        return array.astype(want)
    if array.dtype.kind == "f" and want.kind == "f":
        return array.astype(want)
    raise InvalidInputError(field, f"got dtype {array.dtype}, expected {want}")


def _unpack(reply: planner_pb2.PlanResponse) -> Plan:
    action = decode(reply.action, "action", dtype=np.float32, shape=(None, None))

    def plans(field: str) -> npt.NDArray[np.float32] | None:
        if not reply.HasField(field):  # type: ignore[arg-type]
            return None
        return decode(getattr(reply, field), field, dtype=np.float32, shape=(len(action), None, None))

    return Plan(
        action=action,
        next_mean=plans("next_mean"),
        value=decode(reply.value, "value", dtype=np.float32, shape=(len(action),)),
        sequence=plans("sequence"),
        weights_version=reply.weights_version,
        queue_seconds=reply.queue_seconds,
        compute_seconds=reply.compute_seconds,
        batch_rows=reply.batch_rows,
    )
