"""PlanRequest messages to checked arrays. Whatever is wrong with a request is found here, before it is queued."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.agent.config import MAX_PLAN_STEPS, PlanConfig
from newt.agent.planning import NOTHING_TO_PLAN_WITH
from newt.errors import InvalidInputError
from newt.wire.limits import MAX_HORIZON
from newt.wire.tensors import decode
from newt.wire.v1 import planner_pb2


@dataclass(frozen=True)
class ModelShape:
    """What a request is checked against: equal for all versions of a model unless somebody changes the model."""

    obs_dim: int
    action_dim: int
    image_dim: int
    num_tasks: int
    horizon: int
    num_samples: int
    iterations: int
    plans: bool = True  # False: it has a policy only

    def cost(self, horizon: int) -> float:
        """What planning one row takes, in rows of the published plan: time by model steps, memory by candidates."""
        published = PlanConfig()
        steps = published.num_samples * published.iterations * published.horizon
        return max(self.num_samples * self.iterations * horizon / steps, self.num_samples / published.num_samples)


@dataclass(frozen=True)
class BatchKey:
    """Requests of equal keys can share a device batch."""

    model_id: str
    shape: ModelShape
    horizon: int
    mode: planner_pb2.ActMode.ValueType

    @property
    def cost(self) -> float:
        """What one row takes, in rows of the published plan."""
        return 0.0 if self.mode == planner_pb2.ACT_MODE_POLICY else self.shape.cost(self.horizon)


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
        env_step: Env step for the weight of constrained planning; None: that of the weights.
        constraint_weight: float32[B], weights in place of what training had; None: no such wish.
        want_sequence: Whether the reply has the whole sequence.
    """

    obs: npt.NDArray[np.float32]
    task: npt.NDArray[np.int64]
    seed: npt.NDArray[np.int64]
    prev_mean: npt.NDArray[np.float32]
    first: npt.NDArray[np.bool_]
    image: npt.NDArray[np.float32]
    explore: bool
    env_step: int | None
    constraint_weight: npt.NDArray[np.float32] | None
    want_sequence: bool

    def __len__(self) -> int:
        return len(self.obs)


def parse(request: planner_pb2.PlanRequest, shape: ModelShape, max_rows: int) -> tuple[BatchKey, Rows]:
    """Checks a request against the model that it names.

    Args:
        request: The message.
        shape: Shape of that model.
        max_rows: Larger requests could never be queued.

    Raises:
        InvalidInputError: Names the tensor, and the row where there is one.
    """
    if request.horizon > MAX_HORIZON:
        raise InvalidInputError(
            "horizon", f"got {request.horizon}, expected at most {MAX_HORIZON}, or 0 for the model's"
        )
    horizon = request.horizon or shape.horizon
    candidates = shape.num_samples * shape.iterations
    if horizon * candidates > MAX_PLAN_STEPS:
        raise InvalidInputError(
            "horizon",
            f"got {horizon}, expected at most {MAX_PLAN_STEPS // candidates}: the {candidates} candidates of a plan "
            f"would take more than {MAX_PLAN_STEPS} model steps",
        )
    mode = request.mode or planner_pb2.ACT_MODE_PLANNER
    if mode not in (planner_pb2.ACT_MODE_PLANNER, planner_pb2.ACT_MODE_POLICY):
        raise InvalidInputError("mode", f"got unknown code {mode}, expected PLANNER (1) or POLICY (2)")
    if mode == planner_pb2.ACT_MODE_PLANNER and not shape.plans:
        raise InvalidInputError("mode", f"got PLANNER (1), expected POLICY (2): {NOTHING_TO_PLAN_WITH}")
    if mode == planner_pb2.ACT_MODE_POLICY and request.want_sequence:
        raise InvalidInputError("want_sequence", "got true with mode POLICY, which has no sequence; use mode PLANNER")

    obs = decode(request.obs, "obs", dtype=np.float32, shape=(None, shape.obs_dim), finite=True)
    B = len(obs)
    if not 1 <= B <= max_rows:
        raise InvalidInputError("obs", f"got {B} rows, expected 1 to {max_rows}; split the request")
    task = decode(request.task, "task", dtype=np.int32, shape=(B,))
    wrong = np.flatnonzero((task < 0) | (task >= shape.num_tasks))
    if wrong.size:
        raise InvalidInputError(
            "task",
            f"got {task[wrong[0]]} in row {wrong[0]}, expected 0 to {shape.num_tasks - 1}: a row of the task table",
        )
    seed = decode(request.seed, "seed", dtype=np.uint64, shape=(B,))
    plan_shape = (B, horizon, shape.action_dim)
    if request.HasField("prev_mean"):
        prev_mean = decode(request.prev_mean, "prev_mean", dtype=np.float32, shape=plan_shape, finite=True)
    else:
        prev_mean = np.zeros(plan_shape, np.float32)
    if request.HasField("first"):
        first = decode(request.first, "first", dtype=np.bool_, shape=(B,))
    else:
        first = np.zeros(B, np.bool_)
    if shape.image_dim:
        image = decode(request.image, "image", dtype=np.float32, shape=(B, shape.image_dim), finite=True)
    elif request.HasField("image"):
        raise InvalidInputError("image", "got image features, expected none: the model has no image input")
    else:
        image = np.zeros((B, 0), np.float32)
    weight = None
    if request.HasField("constraint_weight"):
        weight = decode(request.constraint_weight, "constraint_weight", dtype=np.float32, shape=(B,), finite=True)
        wrong = np.flatnonzero((weight < 0) | (weight > 1))
        if wrong.size:
            raise InvalidInputError(
                "constraint_weight", f"got {weight[wrong[0]]:g} in row {wrong[0]}, expected 0 to 1: the policy's share"
            )
    rows = Rows(
        obs=obs,
        task=task.astype(np.int64),
        seed=seed.view(np.int64),
        prev_mean=prev_mean,
        first=first,
        image=image,
        explore=request.explore,
        env_step=request.env_step if request.HasField("env_step") else None,
        constraint_weight=weight,
        want_sequence=request.want_sequence,
    )
    return BatchKey(request.model_id, shape, horizon, mode), rows
