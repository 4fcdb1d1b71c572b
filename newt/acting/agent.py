"""A trained agent in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

import torch

from newt.acting.files import StoredAgent, read_agent
from newt.acting.local import LocalPlans, LocalPolicy
from newt.acting.plans import ActMode, Plans
from newt.acting.session import ActingSession
from newt.agent.config import ConfigError, PlanConfig
from newt.agent.inference import InferenceModel, fastest_dtype
from newt.agent.planning import Planner
from newt.agent.world_model import WorldModel
from newt.errors import InvalidInputError

Precision = Literal["auto", "float32", "bfloat16"]


class ActingOptions(TypedDict, total=False):
    """How an agent acts; `newt.acting.session.ActingSession` describes them."""

    seed: int | None
    mode: ActMode | None
    explore: bool
    constraint_weight: float | None
    horizon: int | None


class Agent(ActingSession):
    """A trained agent that acts in this process: it needs torch, and no service.

        from newt.agent import Agent

        agent = Agent.load("checkpoint-40_050")
        action = agent.act(obs, task="walker-walk")   # float32[A] in [-1, 1]
        agent.reset()                                 # before the next episode

    It acts as it was trained to: with the planner or its policy, with the constraint weight that training had reached.
    """

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        tasks: Sequence[str] | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        plan: Mapping[str, Any] | None = None,
        **options: Unpack[ActingOptions],
    ) -> Self:
        """Reads an agent from a file.

        Args:
            path: A checkpoint of a run, a published one, or a folder, which stands for the newest checkpoint in it.
            tasks: Names of the tasks of a published file, in row order, if they are not the 200.
            device: Where to plan: auto (the first GPU, if any), cpu, cuda or cuda:N.
            precision: Type of the matrix products; auto is bfloat16 where the hardware has it.
            plan: Constants of planning to change, by their names in `newt.agent.config.PlanConfig`: a smaller budget,
                such as `{"num_samples": 128, "iterations": 3, "num_elites": 16}`, is faster.
            options: How to act: `seed`, `mode`, `explore`, `constraint_weight`, `horizon`.

        Raises:
            NotFoundError: Nothing there.
            CorruptDataError: A damaged file.
            InvalidInputError: A file of another kind, or an option that makes no sense.
        """
        stored = read_agent(path, tasks)
        try:
            stored = replace(stored, plan=PlanConfig.from_dict({**stored.plan.to_dict(), **(plan or {})}))
        except ConfigError as error:
            raise InvalidInputError("plan", str(error)) from error
        return cls(_plans(stored, _device(device), precision), stored.facts, **options)


def _plans(stored: StoredAgent, device: torch.device, precision: Precision) -> Plans:
    if not isinstance(stored.network, WorldModel):
        return LocalPolicy(stored.network.to(device), stored.facts)
    types = {"auto": fastest_dtype(device), "float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision not in types:
        raise InvalidInputError("precision", f"got {precision!r}, expected one of {', '.join(types)}")
    inference = InferenceModel.from_model(stored.network, types[precision], device)
    return LocalPlans(Planner(inference, stored.plan), stored.guidance)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError("device", f"got {name!r}, expected auto, cpu, cuda or cuda:N: {error}") from error
    return device
