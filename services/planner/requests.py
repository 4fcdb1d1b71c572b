"""PlanRequest messages to checked arrays. Whatever is wrong with a request is found here, before it is queued."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.errors import InvalidInputError
from newt.wire.tensors import decode
from newt.wire.v1 import planner_pb2

MAX_HORIZON = 64


@dataclass(frozen=True)
class ModelSpec:
    """What a request is checked against: equal for all versions of a model unless somebody changes the model."""

    obs_dim: int
    action_dim: int
    image_dim: int
    num_tasks: int
    horizon: int


@dataclass(frozen=True)
class BatchKey:
    """Requests of equal keys can share a device batch."""

    model_id: str
    spec: ModelSpec
    horizon: int
    policy_only: bool


@dataclass(frozen=True, eq=False)
class Rows:
    """A request's B rows.

    Attributes:
        obs: float32[B, O].
        task: int64[B].
        seed: int64[B], the request's uint64 bit by bit.
        prev_mean: float32[B, H, A].
        first: bool[B].
        image: float32[B, X], X = 0 for models without image input.
        explore: Whether noise is added.
        env_step: For the weight of constrained planning; None plans unconstrained.
    """

    obs: npt.NDArray[np.float32]
    task: npt.NDArray[np.int64]
    seed: npt.NDArray[np.int64]
    prev_mean: npt.NDArray[np.float32]
    first: npt.NDArray[np.bool_]
    image: npt.NDArray[np.float32]
    explore: bool
    env_step: int | None

    def __len__(self) -> int:
        return len(self.obs)


def parse(request: planner_pb2.PlanRequest, spec: ModelSpec, max_rows: int) -> tuple[BatchKey, Rows]:
    """Checks a request against the model that it names.

    Args:
        request: The message.
        spec: Of the model.
        max_rows: Larger requests could never be queued.

    Raises:
        InvalidInputError: Names the tensor, and the row where there is one.
    """
    if request.horizon > MAX_HORIZON:
        raise InvalidInputError(
            "horizon", f"got {request.horizon}, expected at most {MAX_HORIZON}, or 0 for the model's"
        )
    horizon = request.horizon or spec.horizon
    modes = (planner_pb2.ACT_MODE_UNSPECIFIED, planner_pb2.ACT_MODE_PLAN, planner_pb2.ACT_MODE_POLICY)
    if request.mode not in modes:
        raise InvalidInputError("mode", f"got unknown code {request.mode}, expected PLAN (1) or POLICY (2)")
    policy_only = request.mode == planner_pb2.ACT_MODE_POLICY
    if policy_only and request.want_sequence:
        raise InvalidInputError("want_sequence", "got true with mode POLICY, which has no sequence; use mode PLAN")

    obs = decode(request.obs, "obs", dtype=np.float32, shape=(None, spec.obs_dim), finite=True)
    B = len(obs)
    if not 1 <= B <= max_rows:
        raise InvalidInputError("obs", f"got {B} rows, expected 1 to {max_rows}; split the request")
    task = decode(request.task, "task", dtype=np.int32, shape=(B,))
    wrong = np.flatnonzero((task < 0) | (task >= spec.num_tasks))
    if wrong.size:
        raise InvalidInputError(
            "task",
            f"got {task[wrong[0]]} in row {wrong[0]}, expected 0 to {spec.num_tasks - 1}: a row of the task table",
        )
    seed = decode(request.seed, "seed", dtype=np.uint64, shape=(B,))
    plan_shape = (B, horizon, spec.action_dim)
    if request.HasField("prev_mean"):
        prev_mean = decode(request.prev_mean, "prev_mean", dtype=np.float32, shape=plan_shape, finite=True)
    else:
        prev_mean = np.zeros(plan_shape, np.float32)
    if request.HasField("first"):
        first = decode(request.first, "first", dtype=np.bool_, shape=(B,))
    else:
        first = np.zeros(B, np.bool_)
    if spec.image_dim:
        image = decode(request.image, "image", dtype=np.float32, shape=(B, spec.image_dim), finite=True)
    elif request.HasField("image"):
        raise InvalidInputError("image", "got image features, expected none: the model has no image input")
    else:
        image = np.zeros((B, 0), np.float32)
    rows = Rows(
        obs=obs,
        task=task.astype(np.int64),
        seed=seed.view(np.int64),
        prev_mean=prev_mean,
        first=first,
        image=image,
        explore=request.explore,
        env_step=request.env_step if request.HasField("env_step") else None,
    )
    return BatchKey(request.model_id, spec, horizon, policy_only), rows
