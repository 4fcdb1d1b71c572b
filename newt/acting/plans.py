"""A plan as callers see it: NumPy arrays, whoever has computed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Required, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

ActMode = Literal["planner", "policy"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Plan:
    """Actions for B rows.

    Attributes:
        action: float32[B, A] in [-1, 1], zero in unused columns.
        next_mean: float32[B, H, A], to be passed as prev_mean of the next step; None without planning.
        value: float32[B], the model's estimate of the selected plan; NaN without planning.
        sequence: float32[B, H, A], the selected sequence, if asked for.
        weights_version: Weights that planned all rows; 0 for those of a file.
        queue_seconds: Time spent waiting in the service.
        compute_seconds: Time of the device batch.
        batch_rows: Rows of the device batch, those of other callers included.
    """

    action: Floats
    next_mean: Floats | None
    value: Floats
    sequence: Floats | None
    weights_version: int
    queue_seconds: float
    compute_seconds: float
    batch_rows: int


class PlanOptions(TypedDict, total=False):
    """How actions are chosen.

    Attributes:
        explore: Add exploration noise; False in evaluation.
        mode: Way of choosing: "planner", or "policy", the policy alone without planning.
        env_step: Environment steps taken by the run, for constrained planning; None: those of the weights, which so
            act as they were trained to.
        constraint_weight: Share of the policy in the first proposal, in [0, 1], for all rows or float32[B]; None: what
            training had for each row's task; 0 plans freely.
        min_weights_version: Refuse to act with older weights.
        horizon: Planning horizon, 0 for the model's own.
        want_sequence: Whether to return the whole selected sequence.
    """

    explore: Required[bool]
    mode: ActMode
    env_step: int | None
    constraint_weight: npt.ArrayLike | None
    min_weights_version: int
    horizon: int
    want_sequence: bool


class Plans(Protocol):
    """What plans: the service's client, or a model in this process."""

    def plan(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        seed: npt.NDArray[np.uint64],
        *,
        prev_mean: Floats | None = None,
        first: npt.NDArray[np.bool_] | None = None,
        image: Floats | None = None,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """Chooses one action per row: `newt.client.planner.PlannerClient.plan` describes the arguments."""


class Carry(Protocol):
    """What carries the plans of N rows from step to step."""

    def step(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        first: npt.NDArray[np.bool_],
        image: Floats | None,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """The next actions of all rows."""


class PlanCarry:
    """Carries the plans of N rows from step to step, each to the next request as its warm start, and draws the seeds.

    Args:
        plans: What plans.
        random: Source of the seeds.
    """

    def __init__(self, plans: Plans, random: np.random.Generator) -> None:
        self._plans, self._random = plans, random
        self._prev_mean: Floats | None = None

    def step(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        first: npt.NDArray[np.bool_],
        image: Floats | None,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """The next actions of all rows; a call that fails changes no plan.

        Args:
            obs: float32[N, O].
            task: int32[N], rows of the task table.
            first: bool[N], rows at the first step of an episode, which start from a zero mean.
            image: float32[N, X], or None without images.
            options: How to choose.
        """
        plan = self._plans.plan(
            obs,
            task,
            draw_seeds(self._random, len(obs)),
            prev_mean=self._prev_mean if options.get("mode", "planner") == "planner" else None,
            first=first,
            image=image,
            **options,
        )
        self._prev_mean = plan.next_mean
        return plan


def draw_seeds(random: np.random.Generator, rows: int) -> npt.NDArray[np.uint64]:
    """A seed for each of some rows: new ones at every step."""
    return random.integers(0, 2**64, rows, np.uint64)
