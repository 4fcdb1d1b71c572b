"""Planning in this process: what the planner service computes for a batch, and a program of one's own for itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from newt.acting.facts import AgentFacts
from newt.acting.plans import ActMode, Floats, Plan, PlanOptions
from newt.agent.constraint import Guidance
from newt.agent.planning import Planner
from newt.baselines.vector import Policy
from newt.errors import InvalidInputError

Arrays = Mapping[str, npt.NDArray[Any]]


def compute(planner: Planner, rows: Mapping[str, Tensor], mode: ActMode, horizon: int) -> dict[str, Tensor]:
    """Acts for B rows: `action`, and with the planner also `value`, `next_mean` and `sequence`.

    Args:
        planner: Planner of the agent.
        rows: `obs`, `task`, `seed`, `explore` and `image`, with the planner also `prev_mean`, `first` and
            `constraint_weight`, each with B rows, as `newt.agent.planning.Planner` takes them.
        mode: Way of choosing.
        horizon: Steps to plan.
    """
    image = rows["image"] if planner.model.config.image_dim else None
    seeds, explore = rows["seed"], rows["explore"]
    if mode == "policy":
        return {"action": planner.policy(rows["obs"], rows["task"], seeds=seeds, explore=explore, image=image)}
    result = planner.plan(
        rows["obs"],
        rows["task"],
        seeds=seeds,
        prev_mean=rows["prev_mean"],
        first=rows["first"],
        explore=explore,
        constraint_weight=rows["constraint_weight"],
        horizon=horizon,
        image=image,
    )
    return {name: getattr(result, name) for name in ("action", "value", "next_mean", "sequence")}


def not_finite(outputs: Arrays) -> int | None:
    """The first row with a NaN or an infinity, if any: sums of very large inputs overflow in the encoder."""
    for array in outputs.values():
        wrong = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
        if wrong.size:
            return int(wrong[0])
    return None


def overflow(row: int, inputs: Mapping[str, Floats]) -> InvalidInputError:
    """What to say of a row that leads to no numbers: names its largest input."""
    found = {name: float(np.abs(array[row]).max(initial=0.0)) for name, array in inputs.items()}
    name = max(found, key=lambda name: found[name])
    return InvalidInputError(
        name, f"row {row} leads to NaN or infinity: the largest of its numbers is {found[name]:g}, choose smaller ones"
    )


class LocalPlans:
    """An agent in this process, asked as planners are.

    Args:
        planner: Planner of the agent.
        guidance: How it was trained to act.
    """

    def __init__(self, planner: Planner, guidance: Guidance) -> None:
        self._planner, self._guidance = planner, guidance

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
        """Chooses one action per row.

        Raises:
            InvalidInputError: Numbers so large that nothing finite comes out.
        """
        begun = time.monotonic()
        B, config = len(obs), self._planner.config
        horizon = options.get("horizon", 0) or config.horizon
        seen = np.zeros((B, 0), np.float32) if image is None else image
        arrays: dict[str, npt.NDArray[Any]] = {
            "obs": obs,
            "task": task.astype(np.int64),
            "seed": seed.view(np.int64),
            "explore": np.full(B, options["explore"]),
            "image": seen,
            "first": np.zeros(B, np.bool_) if first is None else first,
            "constraint_weight": self._constraint(task, options),
        }
        if prev_mean is None:
            prev_mean = np.zeros((B, horizon, self._planner.model.config.action_dim), np.float32)
        arrays["prev_mean"] = prev_mean
        rows = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        results = compute(self._planner, rows, options.get("mode", "planner"), horizon)
        outputs = {name: tensor.cpu().numpy() for name, tensor in results.items()}
        wrong = not_finite(outputs)
        if wrong is not None:
            raise overflow(wrong, {"obs": obs, "image": seen})
        return _plan(outputs, options.get("want_sequence", False), time.monotonic() - begun)

    def _constraint(self, task: npt.NDArray[np.int32], options: PlanOptions) -> Floats:
        asked = options.get("constraint_weight")
        if asked is not None:
            return np.broadcast_to(np.asarray(asked, np.float32), task.shape)
        names = [self._planner.model.table.names[row] for row in task]
        return self._guidance.weights(self._planner.config, names, options.get("env_step"))


class LocalPolicy:
    """A policy without a world model in this process, asked as planners are. It knows no exploration.

    Args:
        policy: What acts.
        facts: Its tasks.
    """

    def __init__(self, policy: Policy, facts: AgentFacts) -> None:
        self._policy, self._facts = policy, facts

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
        """The policy's best action for every row.

        Raises:
            InvalidInputError: Exploration is asked for, or numbers are so large that nothing finite comes out.
        """
        if options["explore"]:
            raise InvalidInputError("explore", "got True, but this agent's policy has one action for an observation")
        begun = time.monotonic()
        device = next(self._policy.parameters()).device
        with torch.no_grad():
            rows = torch.from_numpy(task.astype(np.int64)).to(device)
            action = self._policy.best_action(torch.from_numpy(obs).to(device), rows)
        outputs = {"action": action.cpu().numpy()}
        wrong = not_finite(outputs)
        if wrong is not None:
            raise overflow(wrong, {"obs": obs})
        return _plan(outputs, False, time.monotonic() - begun)


def _plan(outputs: Mapping[str, Floats], want_sequence: bool, seconds: float) -> Plan:
    B = len(outputs["action"])
    value = outputs.get("value")
    return Plan(
        action=outputs["action"],
        next_mean=outputs.get("next_mean"),
        value=np.full(B, np.nan, np.float32) if value is None else value,
        sequence=outputs.get("sequence") if want_sequence else None,
        weights_version=0,
        queue_seconds=0.0,
        compute_seconds=seconds,
        batch_rows=B,
    )
