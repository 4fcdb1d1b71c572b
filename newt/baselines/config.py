"""Settings of the baselines; without torch, as the schema of a run has them too.

The comment beside a field says what it means; it is shown in docs/run-settings.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le

from newt.agent.config import Coefficient, ConfigError, Epsilon, LearningRate, Settings, Share, Steps, Width

Count = Annotated[int, Ge(1), Le(65_536)]
Epochs = Annotated[int, Ge(1), Le(1000)]
Atoms = Annotated[int, Ge(2), Le(4096)]
Bound = Annotated[float, Ge(-1e6), Le(1e6)]
Noise = Annotated[float, Ge(0.0), Le(10.0)]
Norm = Annotated[float, Gt(0.0), Le(1e9)]


@dataclass(frozen=True)
class PPOConfig(Settings):
    """Constants of proximal policy optimisation; defaults are the paper's (Appendix D), the rest is upstream's."""

    hidden_dim: Width = 1024  # width of the two hidden layers of the actor, and of the critic
    action: Literal["tanh_normal", "clipped_normal"] = "tanh_normal"  # clipped_normal: clipped when it is executed
    rollout_steps: Count = 128  # steps of every env between two rounds of updates
    minibatches: Count = 8  # parts of a rollout, each of which is one update
    epochs: Epochs = 8  # passes over a rollout
    lr: LearningRate = 2.6e-3  # learning rate of Adam
    adam_eps: Epsilon = 1e-5  # of Adam
    gae_lambda: Annotated[float, Ge(0.0), Le(1.0)] = 0.95  # of the generalised advantage estimate
    clip: Annotated[float, Gt(0.0), Le(10.0)] = 0.2  # bounds of the probability ratio, and of a value's change
    clip_value: bool = True  # clip the value loss as well
    value_coef: Coefficient = 1.0  # of the value loss
    entropy_coef: Coefficient = 0.0  # of the entropy of the Normal before the tanh
    grad_clip_norm: Norm = 1.0  # of actor and critic together
    reward_scale: Annotated[float, Gt(0.0), Le(1e6)] = 0.1  # multiplies rewards
    bootstrap_truncated: bool = True  # value what follows a time limit; false: as if the task had ended, as upstream

    def updates(self, steps: int) -> int:
        """Updates in so many steps of all instances, if no simulator breaks."""
        return steps // self.rollout_steps * self.epochs * self.minibatches


UNTUNED_PPO = PPOConfig(
    hidden_dim=256,
    action="clipped_normal",
    rollout_steps=16,
    minibatches=2,
    epochs=4,
    clip_value=False,
    value_coef=2.0,
    reward_scale=1.0,
    bootstrap_truncated=False,
)
"""The constants of the script that the paper started from."""


@dataclass(frozen=True)
class FastTD3Config(Settings):
    """Constants of FastTD3; defaults are upstream's for many tasks at once, with the paper's n-step returns."""

    actor_dim: Annotated[int, Ge(4), Le(65_536)] = 512  # width of the actor's first layer; the next have 1/2 and 1/4
    critic_dim: Annotated[int, Ge(4), Le(65_536)] = 1024  # likewise of each of the two critics
    num_atoms: Atoms = 101  # of a critic's distribution of returns
    v_min: Bound = -10.0  # first atom; returns beyond the atoms are taken for the nearest
    v_max: Bound = 10.0  # last atom
    clipped_double_q: bool = True  # learn from the critic that expects less; false: each critic from itself
    n_step: Annotated[int, Ge(1), Le(1000)] = 8  # rewards in a target before the critic values what follows
    target_rate: Share = 0.1  # of the target critics, at every update
    batch_size: Annotated[int, Ge(1), Le(2**20)] = 32_768  # transitions per update, over all envs
    updates_per_step: Count = 2  # updates after each step of all envs
    policy_delay: Count = 2  # critic updates for one of the actor
    start_steps: Steps = 10  # steps of all envs before the first update
    capacity_steps: Annotated[int, Ge(2), Le(2**31)] = 51_200  # newest steps of every env that are kept
    target_noise: Noise = 0.001  # standard deviation of the noise on the target's actions
    target_noise_clip: Noise = 0.5  # bound of it
    min_noise: Noise = 0.001  # exploration: each env's standard deviation is drawn between these, again per episode
    max_noise: Noise = 0.4  # the other end
    lr: LearningRate = 3e-4  # of both AdamW optimisers
    weight_decay: Coefficient = 0.1  # of both
    normalise_obs: bool = True  # subtract the running mean of observations, divide by their standard deviation
    normalise_rewards: bool = True  # divide rewards by their task's spread of discounted returns, to fit the atoms

    def __post_init__(self) -> None:
        super().__post_init__()
        for low, high in (("v_min", "v_max"), ("min_noise", "max_noise")):
            got = getattr(self, low), getattr(self, high)
            if got[0] > got[1] or (low == "v_min" and got[0] == got[1]):
                raise ConfigError(f"{low} {got[0]} must be below {high} {got[1]}")
        if self.normalise_rewards and not self.v_min < 0 < self.v_max:
            raise ConfigError(f"v_min {self.v_min} and v_max {self.v_max} must enclose 0 to normalise rewards")
        if self.n_step >= self.capacity_steps:
            raise ConfigError(f"n_step {self.n_step} must be below capacity_steps {self.capacity_steps}")

    def updates(self, steps: int) -> int:
        """Updates in so many steps of all instances."""
        return max(0, steps - max(1, self.start_steps) + 1) * self.updates_per_step


Kind = Literal["ppo", "fasttd3"]
Config = PPOConfig | FastTD3Config
_CONFIGS: dict[Kind, type[PPOConfig] | type[FastTD3Config]] = {"ppo": PPOConfig, "fasttd3": FastTD3Config}
assert set(_CONFIGS) == set(get_args(Kind))


def kind_of(config: Config) -> Kind:
    """What learns with such settings."""
    return "ppo" if isinstance(config, PPOConfig) else "fasttd3"


def read_config(kind: Kind, values: dict[str, object]) -> Config:
    """Settings from `to_dict`'s output; those that a later version has added are left out. Raises ConfigError."""
    return _CONFIGS[kind].from_stored(values)
