"""Actor and distributional critics of FastTD3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from newt.agent.task_table import TaskTable
from newt.baselines.config import FastTD3Config
from newt.baselines.normalisers import ObsNormaliser
from newt.baselines.vector import Conditioning, Policy, mlp


class Actor(Policy):
    """mu(s): an action for every observation, without noise.

    Args:
        config: Settings.
        table: The tasks.
        obs_dim: O.
    """

    def __init__(self, config: FastTD3Config, table: TaskTable, obs_dim: int) -> None:
        super().__init__()
        self.conditioning = Conditioning(table)
        self.normaliser = ObsNormaliser(obs_dim) if config.normalise_obs else None
        widths = (config.actor_dim, config.actor_dim // 2, config.actor_dim // 4)
        self.network = mlp(obs_dim + table.language_dim, widths, table.max_action_dim, nn.ReLU)

    def inputs(self, obs: Tensor, task: Tensor) -> Tensor:
        """What actor and critics see: float32[..., O + G]."""
        inputs: Tensor = self.conditioning(self.normaliser(obs) if self.normaliser else obs, task)
        return inputs

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """Actions float32[..., A] of `inputs`."""
        action: Tensor = self.network(inputs).tanh() * self.conditioning.masks[task]
        return action

    def best_action(self, obs: Tensor, task: Tensor) -> Tensor:
        """As Policy."""
        action: Tensor = self(self.inputs(obs, task), task)
        return action


class Critics(nn.Module):
    """Two distributions of returns, each as logits of Z atoms.

    Args:
        config: Settings.
        in_dim: Width of what `Actor.inputs` gives.
        action_dim: A.
    """

    atoms: Tensor

    def __init__(self, config: FastTD3Config, in_dim: int, action_dim: int) -> None:
        super().__init__()
        widths = (config.critic_dim, config.critic_dim // 2, config.critic_dim // 4)
        self.networks = nn.ModuleList(mlp(in_dim + action_dim, widths, config.num_atoms, nn.ReLU) for _ in range(2))
        atoms = torch.linspace(config.v_min, config.v_max, config.num_atoms)
        self.register_buffer("atoms", atoms, persistent=False)

    def forward(self, inputs: Tensor, action: Tensor) -> Tensor:
        """Logits float32[2, B, Z]."""
        both = torch.cat([inputs, action], -1)
        return torch.stack([network(both) for network in self.networks])

    def expectation(self, logits: Tensor) -> Tensor:
        """Q: logits float32[..., Z] to float32[...]."""
        return logits.softmax(-1) @ self.atoms


def initialise(actor: Actor, critics: Critics, generator: torch.Generator) -> None:
    """PyTorch's usual weights, drawn from a generator; the actor's last layer N(0, 0.01) with zero bias."""
    for module in (*actor.network, *(layer for network in critics.networks for layer in network)):  # type: ignore[attr-defined]
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    last = actor.network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, 0.0, 0.01, generator=generator)
    nn.init.zeros_(last.bias)
