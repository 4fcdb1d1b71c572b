"""Client of the planner service: NumPy arrays in, actions out."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from newt.acting.plans import ActMode as ActMode
from newt.acting.plans import Plan as Plan
from newt.acting.plans import PlanOptions as PlanOptions
from newt.errors import InvalidInputError
from newt.runs.record import Computing
from newt.wire.channels import connect
from newt.wire.numbers import MAX_UINT32, whole
from newt.wire.peer import REMEDY, Patience, Peer
from newt.wire.tensors import decode, encode
from newt.wire.v1 import planner_pb2, planner_pb2_grpc

_MODES: dict[ActMode, planner_pb2.ActMode.ValueType] = {
    "planner": planner_pb2.ACT_MODE_PLANNER,
    "policy": planner_pb2.ACT_MODE_POLICY,
}


@dataclass(frozen=True)
class ServedModel:
    """A model that a planner can serve now.

    Attributes:
        model_id: Its name.
        weights_version: Its newest version.
        parameters: Learnable numbers.
        tasks: Names, in the order of the task table.
        horizon: Steps of a plan.
        action_dims: Valid action columns of each task; empty from planners that do not tell.
        obs_dims: Valid observation columns of each task, 0 where nobody knows; empty from planners that do not tell.
        image_dim: Columns of image features; 0 without images.
        mode: How training acted with it.
    """

    model_id: str
    weights_version: int
    parameters: int
    tasks: tuple[str, ...]
    horizon: int
    action_dims: tuple[int, ...] = ()
    obs_dims: tuple[int, ...] = ()
    image_dim: int = 0
    mode: ActMode = "planner"


class PlannerClient:
    """Plans actions through the planner service; safe to share between threads.

        with PlannerClient("127.0.0.1:50071") as planner:
            plan = planner.plan("run-1", obs, task, seed, explore=True, timeout_s=5)
            plan = planner.plan("run-1", obs, task, seed + 1, explore=True, prev_mean=plan.next_mean, timeout_s=5)

    Args:
        target: `host:port`, or any gRPC target with several planners behind it.
        remedy: What to do when it is away.
        patience: Waits for planners longer than a call may take.
    """

    def __init__(self, target: str, *, remedy: str = REMEDY, patience: Patience | None = None) -> None:
        self.peer = Peer("planner", target, remedy=remedy, patience=patience)
        self._channel = connect(target)
        self._stub = planner_pb2_grpc.PlannerServiceStub(self._channel)

    def plan(
        self,
        model_id: str,
        obs: npt.ArrayLike,
        task: npt.ArrayLike,
        seed: npt.ArrayLike,
        *,
        prev_mean: npt.ArrayLike | None = None,
        first: npt.ArrayLike | None = None,
        image: npt.ArrayLike | None = None,
        timeout_s: float = 10.0,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """Chooses one action per row.

        Waits within the deadline for a planner to appear, and for the weights asked for: a planner that says
        UNAVAILABLE is asked again.

        Args:
            model_id: Model to act with; for training runs, the run's id.
            obs: float32[B, O], finite, zero-padded.
            task: int[B], row of each task in the model's task table.
            seed: int[B] in [0, 2**64), source of all randomness of a row; use a new one for every step.
            prev_mean: float32[B, H, A], next_mean of each row's previous reply; None means zeros.
            first: bool[B], rows at the first step of an episode, which start from a zero mean.
            image: float32[B, X], image features, for models with image input.
            timeout_s: Deadline of the whole call, waiting included.
            options: How to choose; `explore` is required.

        Raises:
            InvalidInputError: The service refuses an argument, which the error names.
            PreconditionError: The weights that were published cannot be used.
            ExhaustedError: The planner's queue is full.
            UnavailableError: No planner, or no such weights, before the deadline.
        """
        request = planner_pb2.PlanRequest(
            model_id=model_id,
            obs=encode(_array("obs", obs, np.float32)),
            task=encode(_array("task", task, np.int32)),
            seed=encode(_array("seed", seed, np.uint64)),
            explore=options["explore"],
            mode=_MODES[options.get("mode", "planner")],
            min_weights_version=whole("min_weights_version", options.get("min_weights_version", 0)),
            horizon=whole("horizon", options.get("horizon", 0), 0, MAX_UINT32),
            want_sequence=options.get("want_sequence", False),
        )
        if prev_mean is not None:
            request.prev_mean.CopyFrom(encode(_array("prev_mean", prev_mean, np.float32)))
        if first is not None:
            request.first.CopyFrom(encode(_array("first", first, np.bool_)))
        if image is not None:
            request.image.CopyFrom(encode(_array("image", image, np.float32)))
        env_step = options.get("env_step")
        if env_step is not None:
            request.env_step = whole("env_step", env_step)
        weight = options.get("constraint_weight")
        if weight is not None:
            rows = np.asarray(weight, np.float32)
            each = np.full(len(np.asarray(seed)), rows) if rows.ndim == 0 else rows
            request.constraint_weight.CopyFrom(encode(each))
        return _unpack(self.peer.call(self._stub.Plan, request, timeout_s))

    def models(self, *, timeout_s: float) -> list[ServedModel]:
        """Models that the planner can serve now.

        Raises:
            UnavailableError: No planner answered before the deadline.
        """
        return [
            ServedModel(
                m.model_id,
                m.weights_version,
                m.parameters,
                tuple(m.tasks),
                m.horizon,
                tuple(m.action_dims),
                tuple(m.obs_dims),
                m.image_dim,
                "policy" if m.trained_mode == planner_pb2.ACT_MODE_POLICY else "planner",
            )
            for m in self._list(timeout_s).models
        ]

    def refused(self, *, timeout_s: float) -> dict[str, str]:
        """Models whose newest version the planner cannot use, and why; older versions may go on being served.

        Raises:
            UnavailableError: No planner answered before the deadline.
        """
        return {m.model_id: f"version {m.weights_version}: {m.reason}" for m in self._list(timeout_s).refused}

    def computing(self, *, timeout_s: float) -> Computing | None:
        """What the planner computes on; None from planners that do not tell.

        Raises:
            UnavailableError: No planner answered before the deadline.
        """
        reply = self._list(timeout_s)
        if not reply.HasField("computing"):
            return None
        told = reply.computing
        return Computing(
            device=told.device, precision=told.precision, compiled=told.compiled, warning=told.warning or None
        )

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _list(self, timeout_s: float) -> planner_pb2.ListModelsResponse:
        reply: planner_pb2.ListModelsResponse
        reply = self.peer.call(self._stub.ListModels, planner_pb2.ListModelsRequest(), timeout_s)
        return reply


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
