"""What one update takes: training sequences, and the random draws."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from newt.agent.config import ConfigError
from newt.agent.devices import send
from newt.agent.draws import LANES, lanes, normal, pairs, random_words, tables
from newt.agent.world_model import WorldModel


@dataclass(frozen=True)
class UpdateBatch:
    """B training sequences of H steps; (action[t], reward[t]) lead from obs[t] to obs[t+1].

    Attributes:
        obs: float32[H+1, B, O].
        action: float32[H, B, A]; invalid entries are ignored.
        reward: float32[H, B].
        terminated: bool[H, B], the step ended the task: nothing is bootstrapped behind it.
        task: int64[B], rows of the task table.
        image: float32[H+1, B, X] image features, for models which take them.
        demo: bool[B], whether the sequence comes from a demo; needed where `TrainConfig.bc_data` is "demos".
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    task: Tensor
    image: Tensor | None = None
    demo: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """Every tensor by its name; an absent one is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def to(self, device: torch.device | str) -> UpdateBatch:
        """Copies to a device, which is not waited for."""
        return replace(self, **{name: send(value, torch.device(device)) for name, value in self.named().items()})

    def clone(self) -> UpdateBatch:
        """Copies every tensor."""
        return replace(self, **{name: value.clone() for name, value in self.named().items()})

    def check(self, model: WorldModel, horizon: int) -> None:
        """Compares shapes and types with the model.

        Raises:
            ConfigError: Names the field, what it is and what it should be.
        """
        c, B = model.config, self.task.shape[0] if self.task.ndim == 1 else -1
        expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "task": ((B,), torch.int64),
            "obs": ((horizon + 1, B, c.obs_dim), torch.float32),
            "action": ((horizon, B, c.action_dim), torch.float32),
            "reward": ((horizon, B), torch.float32),
            "terminated": ((horizon, B), torch.bool),
        }
        if c.image_dim:
            expected["image"] = ((horizon + 1, B, c.image_dim), torch.float32)
        if self.demo is not None:
            expected["demo"] = ((B,), torch.bool)
        for name, (shape, dtype) in expected.items():
            value = getattr(self, name)
            if value is None or tuple(value.shape) != shape or value.dtype != dtype:
                got = "nothing" if value is None else f"{value.dtype} {tuple(value.shape)}"
                raise ConfigError(f"batch.{name}: expected {dtype} {shape} (-1: one axis), got {got}")


def pad_rows(
    values: Tensor,
    starts: Tensor,
    obs_dims: Tensor,
    action_dims: Tensor,
    *,
    horizon: int,
    padded_obs_dim: int,
    padded_action_dim: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pads training sequences on the device that has them: a fraction of what is padded has to be sent there.

    Args:
        values: float32[N], rows [obs | action | reward] as wide as each task's valid columns, and behind them as many
            numbers as a padded row has. Action and reward of a sequence's last row are not looked at.
        starts: int64[B], where the `horizon` + 1 rows of each sequence begin.
        obs_dims: int64[B], valid columns of each sequence's observations.
        action_dims: int64[B], the same of its actions.
        horizon: H.
        padded_obs_dim: O.
        padded_action_dim: A.

    Returns:
        obs float32[H+1, B, O], action float32[H, B, A] and reward float32[H, B], as in UpdateBatch.
    """
    steps = torch.arange(horizon + 1, device=values.device)[:, None]
    obs = starts + steps * (obs_dims + action_dims + 1)  # where the observation of each row begins
    action = obs[:-1] + obs_dims
    return (
        _columns(values, obs, obs_dims, padded_obs_dim),
        _columns(values, action, action_dims, padded_action_dim),
        values[action + action_dims],
    )


def _columns(values: Tensor, first: Tensor, valid: Tensor, columns: int) -> Tensor:
    """The numbers from `first` on, and zeros in the columns that are not valid."""
    taken = values.unfold(0, columns, 1)[first]
    return taken.masked_fill_(torch.arange(columns, device=values.device) >= valid[:, None], 0.0)


@dataclass(frozen=True)
class UpdateNoise:
    """The random draws of one update.

    Attributes:
        td_policy: float32[H, B, A] of the actions in the TD target.
        td_pair: int64[2] critics of the TD target.
        bc_policy: float32[H, B, A] of the cloned actions, pretraining only.
        pi_policy: float32[H+1, B, A] of the policy loss, online phase only.
        pi_pair: int64[2] critics of the policy loss, online phase only.
    """

    td_policy: Tensor
    td_pair: Tensor
    bc_policy: Tensor | None = None
    pi_policy: Tensor | None = None
    pi_pair: Tensor | None = None

    def columns(self, part: slice) -> UpdateNoise:
        """Returns the draws of some of the B sequences; the pairs of critics are common to all."""
        rowwise = ("td_policy", "bc_policy", "pi_policy")
        values = {name: getattr(self, name) for name in rowwise}
        return replace(self, **{name: value[:, part] for name, value in values.items() if value is not None})


def draw_noise(model: WorldModel, sequences: int, horizon: int, seed: Tensor, *, pretrain: bool) -> UpdateNoise:
    """Draws what one update of B `sequences` needs.

    Args:
        model: Its device gets the draws.
        sequences: B.
        horizon: H.
        seed: int64[] or int64[1], on the CPU or the model's device.
        pretrain: Whether the update is one of pretraining.
    """
    config = model.config
    steps = [horizon, horizon if pretrain else horizon + 1]  # of the TD target, and of the policy's loss
    numbers = sum(steps) * sequences * config.action_dim
    # Added to, not copied to the device: a copy would wait for it.
    seeds = torch.zeros(1, dtype=torch.int64, device=model.device) + seed
    words = random_words(seeds, torch.arange(2 + -(-numbers // LANES), device=model.device))
    td_pair, pi_pair = pairs(words[:, :2], config.num_critics)[0]
    entries = normal(tables(model.device), lanes(words)[:, 2 * LANES :][:, :numbers])
    td_policy, policy = torch.split(entries.view(-1, sequences, config.action_dim), steps)
    if pretrain:
        return UpdateNoise(td_policy, td_pair, bc_policy=policy)
    return UpdateNoise(td_policy, td_pair, pi_policy=policy, pi_pair=pi_pair)
