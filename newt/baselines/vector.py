"""What algorithms have in common that learn in the process which steps the simulators.

    action = learner.act(obs)
    ...                                  # the simulators step
    metrics = learner.observe(transition)

Letters: N instances, K tasks, O observation, A action, G text embedding.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from newt.agent.task_table import TaskTable

Metrics = dict[str, Tensor]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Transition:
    """One step of N instances.

    Attributes:
        obs: float32[N, O] that was acted on.
        action: float32[N, A] that was executed, in [-1, 1], zero in entries that the task does not have.
        reward: float32[N]; anything where not valid.
        reached: float32[N, O] that it led to: at an episode's end its last observation, not the next one's first.
        terminated: bool[N], the task ended.
        truncated: bool[N], the episode ended for another reason.
        valid: bool[N]; false where the simulator broke: the episode is over, and what happened is not known.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    reached: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor

    @property
    def ended(self) -> Tensor:
        """bool[N], the next observation belongs to another episode."""
        return self.terminated | self.truncated | ~self.valid


class Conditioning(nn.Module):
    """What a network is told of the task: its text embedding, put behind the observation.

    Args:
        table: The tasks.
    """

    embeddings: Tensor
    masks: Tensor

    def __init__(self, table: TaskTable) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("embeddings", table.embeddings.clone(), persistent=False)
        self.register_buffer("masks", table.masks.clone(), persistent=False)

    def forward(self, obs: Tensor, task: Tensor) -> Tensor:
        """float32[..., O] and int64[...] to float32[..., O + G]."""
        return torch.cat([obs, self.embeddings[task]], -1)


class Policy(nn.Module, ABC):
    """Acts for tasks of a table."""

    @abstractmethod
    def best_action(self, obs: Tensor, task: Tensor) -> Tensor:
        """The action without exploration.

        Args:
            obs: float32[N, O].
            task: int64[N], rows of the table.

        Returns:
            float32[N, A] in [-1, 1], zero in entries that the task does not have.
        """


class VectorLearner(ABC):
    """Acts for N instances and learns from what becomes of it.

    Attributes:
        policy: What acts.
        updates: Optimiser steps so far (of the critic, where actor and critic have their own).
        tasks: int64[N], the task of every instance as a row of the table.
    """

    policy: Policy
    updates: int
    tasks: Tensor

    @abstractmethod
    def act(self, obs: Tensor) -> Tensor:
        """Actions with exploration: float32[N, O] to float32[N, A], as `Transition.action`."""

    @abstractmethod
    def observe(self, transition: Transition) -> Metrics | None:
        """Takes in what became of the last `act`, and updates where it is time: metrics of the last update, or None."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """A copy of what is learnt, optimisers, statistics and source of noise included; not of experience."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`. Raises ValueError if it does not fit."""


def mlp(in_dim: int, hidden: tuple[int, ...], out_dim: int, activation: type[nn.Module]) -> nn.Sequential:
    """Affine layers with an activation behind each but the last."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(in_dim, width), activation()]
        in_dim = width
    return nn.Sequential(*layers, nn.Linear(in_dim, out_dim))


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """A source of noise on a device."""
    return torch.Generator(device).manual_seed(seed)


def restore_noise(generator: torch.Generator, state: Tensor) -> None:
    """Restores a source of noise; one of another type of device goes on with other noise."""
    with contextlib.suppress(RuntimeError):
        generator.set_state(state.cpu())


def load_module(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Restores a module's parameters and buffers. Raises ValueError if they do not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights do not fit: {error}") from error


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, Tensor]:
    """Moments of an Adam optimiser as `PARAMETER.MOMENT`; absent before a parameter's first step."""
    return {
        f"{name}.{key}": optimizer.state[parameter][key]
        for parameter, name in names.items()
        for key in _MOMENTS
        if key in optimizer.state.get(parameter, {})
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str], state: Mapping[str, Tensor]
) -> None:
    """Restores `optimizer_state`. Raises ValueError if moments are missing, unknown or of another shape."""
    known = set()
    for parameter, name in names.items():
        moments = {key: f"{name}.{key}" for key in _MOMENTS}
        known |= set(moments.values())
        optimizer.state.pop(parameter, None)
        if moments["step"] in state:
            wrong = [
                n for k, n in moments.items() if n not in state or (k != "step" and state[n].shape != parameter.shape)
            ]
            if wrong:
                raise ValueError(f"optimiser state does not fit: {wrong[0]}")
            # The count of steps stays on the CPU, where Adam keeps it.
            optimizer.state[parameter] = {
                key: state[n].clone() if key == "step" else state[n].to(parameter.device, copy=True)
                for key, n in moments.items()
            }
    unknown = sorted(set(state) - known)
    if unknown:
        raise ValueError(f"optimiser state does not fit: unknown {unknown[0]}")


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
