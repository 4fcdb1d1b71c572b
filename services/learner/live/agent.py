"""A checkpoint's agent in this process, asked for one row at a time: what it does, and what it expects."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from newt.acting.trained import as_trained
from newt.agent import devices
from newt.agent.checkpoints import Checkpoint
from newt.agent.imagining import imagine, state_value
from newt.agent.inference import InferenceModel, fastest_dtype
from newt.agent.planning import Planner
from newt.baselines.checkpoints import PolicyCheckpoint
from newt.errors import PreconditionError
from newt.tasks.registry import Task
from services.learner.checkpoints.files import AnyCheckpoint
from services.learner.checkpoints.task_table import task_table

Floats = npt.NDArray[np.float32]
_TASK = torch.zeros(1, dtype=torch.int64)  # the only row of the task table


class Seen(NamedTuple):
    """What the agent sees.

    Attributes:
        obs: float32[1, O].
        image: float32[1, X], X = 0 without images.
    """

    obs: Floats
    image: Floats


class Planned(NamedTuple):
    """One plan.

    Attributes:
        action: float32[A].
        spread: Mean deviation of the first action's proposal, over the task's columns, when planning ended.
    """

    action: Floats
    spread: float


class Expected(NamedTuple):
    """What the world model expects of T steps.

    Attributes:
        action: float32[T, A].
        reward: float32[T].
        value: float32[T], of the state after each step.
    """

    action: Floats
    reward: Floats
    value: Floats


class LiveAgent(Protocol):
    """What `ModelAgent` and `PolicyAgent` have in common."""

    plans: bool

    def tell(self, instruction: str | None) -> None:
        """From now on it is told this; None: what its task says. Raises as `task_table`; then nothing changes."""

    def begin(self) -> None:
        """The next plan starts afresh."""

    def plan(self, seen: Seen, seed: int) -> Planned:
        """Plans one step."""

    def policy(self, seen: Seen) -> Floats:
        """The policy's action, float32[A]."""

    def value(self, seen: Seen) -> float | None:
        """What it expects from here on, if it does."""

    def imagine(self, seen: Seen, steps: int, seed: int, *, planned: bool) -> Expected:
        """Unrolls its world model."""


def live_agent(checkpoint: AnyCheckpoint, task: Task, instruction: str | None, device: str) -> LiveAgent:
    """The agent of a checkpoint for one task.

    Raises:
        InvalidInputError: The instruction is too long for its encoder.
        PreconditionError: The instruction has to be encoded, and its encoder is not here.
    """
    kind = PolicyAgent if isinstance(checkpoint, PolicyCheckpoint) else ModelAgent
    agent = kind(checkpoint, task, torch.device(devices.resolve(device)))  # type: ignore[arg-type]
    agent.tell(instruction)
    return agent


class ModelAgent:
    """An agent with a world model, or with the policy of one.

    Args:
        checkpoint: Its checkpoint.
        task: What it plays.
        device: Where it computes.
    """

    def __init__(self, checkpoint: Checkpoint, task: Task, device: torch.device) -> None:
        self._checkpoint, self._task, self._device = checkpoint, task, device
        self.plans = not checkpoint.model_config.policy_only
        self._images = bool(checkpoint.model_config.image_dim)
        self._config, guidance = as_trained(checkpoint, [task.name])
        self._weight = float(guidance.weights(self._config, [task.name])[0])
        self._previous: torch.Tensor | None = None
        self._planner: Planner

    def tell(self, instruction: str | None) -> None:
        """See `LiveAgent`."""
        texts = {} if instruction is None else {self._task.name: instruction}
        table, _ = task_table(self._checkpoint, [self._task], texts)
        model = InferenceModel.from_model(self._checkpoint.model(table), fastest_dtype(self._device), self._device)
        self._planner = Planner(model, self._config)

    def begin(self) -> None:
        """See `LiveAgent`."""
        self._previous = None

    def plan(self, seen: Seen, seed: int) -> Planned:
        """See `LiveAgent`."""
        result = self._plan(seen, seed, None, self._previous)
        self._previous = result.next_mean
        return Planned(_row(result.action), float(result.std[0, 0, : self._task.action_dim].mean()))

    def policy(self, seen: Seen) -> Floats:
        """See `LiveAgent`."""
        obs, image = self._tensors(seen, torch.device("cpu"))
        action = self._planner.policy(obs, _TASK, seeds=_TASK, explore=False, image=image)
        return _row(action)

    def value(self, seen: Seen) -> float | None:
        """See `LiveAgent`."""
        if not self.plans:
            return None
        obs, image = self._tensors(seen, self._device)
        return float(state_value(self._planner.model, obs, _TASK.to(self._device), image))

    def imagine(self, seen: Seen, steps: int, seed: int, *, planned: bool) -> Expected:
        """See `LiveAgent`. Raises PreconditionError without a world model."""
        if not self.plans:
            raise PreconditionError("this agent has a policy only and no world model to imagine with")
        actions = self._plan(seen, seed, steps, None).sequence if planned else None
        obs, image = self._tensors(seen, self._device)
        found = imagine(self._planner.model, obs, _TASK.to(self._device), steps, actions, image)
        return Expected(_row(found.action), _row(found.reward), _row(found.value))

    def _plan(self, seen: Seen, seed: int, horizon: int | None, previous: torch.Tensor | None) -> Any:
        obs, image = self._tensors(seen, torch.device("cpu"))
        return self._planner.plan(
            obs,
            _TASK,
            seeds=torch.tensor([seed]),
            prev_mean=previous,
            explore=False,
            constraint_weight=self._weight,
            horizon=horizon,
            image=image,
        )

    def _tensors(self, seen: Seen, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
        obs = torch.from_numpy(np.array(seen.obs)).to(device)
        return obs, torch.from_numpy(np.array(seen.image)).to(device) if self._images else None


class PolicyAgent:
    """A policy that learnt without a world model.

    Args:
        checkpoint: Its checkpoint.
        task: What it plays.
        device: Where it computes.
    """

    plans = False

    def __init__(self, checkpoint: PolicyCheckpoint, task: Task, device: torch.device) -> None:
        self._checkpoint, self._task, self._device = checkpoint, task, device

    def tell(self, instruction: str | None) -> None:
        """See `LiveAgent`."""
        texts = {} if instruction is None else {self._task.name: instruction}
        table, _ = task_table(self._checkpoint, [self._task], texts)
        self._policy = self._checkpoint.policy(table).to(self._device)

    def begin(self) -> None:
        """See `LiveAgent`."""

    def plan(self, seen: Seen, seed: int) -> Planned:
        """Raises PreconditionError."""
        raise PreconditionError("this agent has a policy only and no world model to plan with")

    def policy(self, seen: Seen) -> Floats:
        """See `LiveAgent`."""
        with torch.no_grad():
            obs = torch.from_numpy(np.array(seen.obs)).to(self._device)
            return _row(self._policy.best_action(obs, _TASK.to(self._device)))

    def value(self, seen: Seen) -> float | None:
        """It has none."""
        return None

    def imagine(self, seen: Seen, steps: int, seed: int, *, planned: bool) -> Expected:
        """Raises PreconditionError."""
        raise PreconditionError("this agent has a policy only and no world model to imagine with")


def _row(tensor: torch.Tensor) -> Floats:
    """The only row of a batch."""
    array: Floats = tensor[0].float().cpu().numpy()
    return array
