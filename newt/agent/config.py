"""Settings of the agent: model size, training constants, planning budget.

Every class is frozen, checks its values when built and refuses unknown keys in ``from_dict``, so that a run's
settings can be stored as JSON beside its checkpoints and read back without guessing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

MAX_ACTION_DIM = 16
MAX_OBS_DIM = 128


class ConfigError(ValueError):
    """A setting has an impossible value; the message names the setting."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


class _Config:
    """Conversion to and from plain dictionaries, shared by the settings classes."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-compatible values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from ``to_dict``'s output; missing keys take their defaults.

        Raises:
            ConfigError: a key is unknown or a value is impossible.
        """
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - known)
        _require(not unknown, f"unknown {cls.__name__} settings {unknown}; known are {sorted(known)}")
        return cls(**values)


@dataclass(frozen=True)
class ModelConfig(_Config):
    """Shape of the world model.

    Example:
        >>> ModelConfig.from_size("L").latent_dim
        512
        >>> ModelConfig.from_size("B", language_dim=0).size
        'B'
    """

    size: str = "custom"  # only a label; the numbers below decide
    latent_dim: int = 512  # D, divisible by simnorm_dim
    encoder_dim: int = 1024  # E, width of the encoder's hidden layers
    encoder_layers: int = 3  # including the output layer
    mlp_dim: int = 1024  # M, width of the two hidden layers of every other network
    num_critics: int = 5  # Nq, at least 2: targets and values use a random pair
    simnorm_dim: int = 8  # V, entries per softmax group
    num_bins: int = 101  # K, of the discrete regression
    vmin: float = -10.0  # first and last bin, in symlog units
    vmax: float = 10.0
    obs_dim: int = MAX_OBS_DIM  # O
    action_dim: int = MAX_ACTION_DIM  # A
    language_dim: int = 512  # G, 0 = no language conditioning
    image_dim: int = 0  # X, 0 = no image features

    def __post_init__(self) -> None:
        for name in ("latent_dim", "encoder_dim", "encoder_layers", "mlp_dim", "simnorm_dim", "obs_dim"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("language_dim", "image_dim"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        _require(self.action_dim >= 1, f"action_dim must be at least 1, got {self.action_dim}")
        _require(
            self.latent_dim % self.simnorm_dim == 0,
            f"latent_dim {self.latent_dim} must be a multiple of simnorm_dim {self.simnorm_dim}",
        )
        _require(self.num_critics >= 2, f"num_critics must be at least 2, got {self.num_critics}")
        _require(self.num_bins >= 2, f"num_bins must be at least 2, got {self.num_bins}")
        _require(self.vmin < self.vmax, f"vmin {self.vmin} must be below vmax {self.vmax}")

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> Self:
        """Return a published size (S, B, L, XL) or XS, the project's own size for laptops.

        Raises:
            ConfigError: unknown size, unknown override or impossible value.
        """
        _require(size in SIZES, f"unknown model size {size!r}; known are {', '.join(SIZES)}")
        return cls.from_dict({"size": size, **SIZES[size], **overrides})


def _size(latent: int, encoder: int, layers: int, mlp: int, critics: int) -> dict[str, int]:
    return {
        "latent_dim": latent,
        "encoder_dim": encoder,
        "encoder_layers": layers,
        "mlp_dim": mlp,
        "num_critics": critics,
    }


SIZES: dict[str, dict[str, int]] = {
    "XS": _size(128, 128, 2, 192, 2),  # ours: learns on two CPU cores
    "S": _size(384, 128, 2, 256, 3),
    "B": _size(512, 256, 2, 512, 5),
    "L": _size(512, 1024, 3, 1024, 5),
    "XL": _size(704, 2048, 4, 2048, 7),
}

TargetCritic = Literal["ema", "online"]


@dataclass(frozen=True)
class TrainConfig(_Config):
    """Constants of losses and optimisation; defaults are the published run's effective values."""

    horizon: int = 3  # H, steps of a training sequence
    rho: float = 0.5  # a loss at step t weighs rho^t / sum_{j<=H} rho^j
    consistency_coef: float = 20.0  # of predicted against encoded latent states, in the model loss
    reward_coef: float = 0.1  # of predicted rewards, in the model loss
    value_coef: float = 0.1  # of the critics, in the model loss
    pretrain_bc_coef: float = 1.0  # behaviour cloning in the model loss, pretraining only
    bc_coef: float = 1.0  # behaviour cloning in the policy loss, online phase; 0 switches it off
    entropy_coef: float = 1e-4  # of the policy's scaled entropy, in its loss
    lr: float = 3e-4  # learning rate of both optimisers
    encoder_lr_factor: float = 0.3  # the encoder's share of the learning rate
    adam_eps: float = 1e-8  # of the world model's optimiser
    policy_adam_eps: float = 1e-5  # of the policy's optimiser
    grad_clip_norm: float = 20.0  # of the world model, and of the policy
    ema_rate: float = 0.01  # of the target critics and of the value scale
    target_critic: TargetCritic = "ema"  # "online" imitates the published runs, whose targets were bypassed
    warmup_updates: int = 0  # linear learning-rate warm-up; 5000 when a run starts from demonstrations
    value_percentiles: tuple[float, float] = (5.0, 95.0)  # their distance is the scale of values in the policy loss

    def __post_init__(self) -> None:
        _require(self.horizon >= 1, f"horizon must be at least 1, got {self.horizon}")
        for name in ("rho", "lr", "encoder_lr_factor", "adam_eps", "policy_adam_eps", "grad_clip_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, f"{name} must be positive, got {value}")
        for name in (
            "consistency_coef",
            "reward_coef",
            "value_coef",
            "pretrain_bc_coef",
            "bc_coef",
            "entropy_coef",
            "warmup_updates",
        ):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, f"{name} must not be negative, got {value}")
        _require(0 < self.ema_rate <= 1, f"ema_rate must lie in (0, 1], got {self.ema_rate}")
        _require(
            self.target_critic in get_args(TargetCritic),
            f"target_critic must be one of {get_args(TargetCritic)}, got {self.target_critic!r}",
        )
        object.__setattr__(self, "value_percentiles", tuple(self.value_percentiles))  # JSON has lists only
        _require(
            len(self.value_percentiles) == 2 and 0 <= self.value_percentiles[0] < self.value_percentiles[1] <= 100,
            f"value_percentiles must be two rising numbers in [0, 100], got {self.value_percentiles}",
        )


@dataclass(frozen=True)
class PlanConfig(_Config):
    """Budget and constants of planning by model-predictive path integral control (MPPI)."""

    num_samples: int = 512  # S, candidates per iteration, policy trajectories included
    num_policy_trajectories: int = 24  # P, candidates that the policy proposes
    num_elites: int = 64  # E, best candidates, which the next iteration is drawn from
    iterations: int = 6  # of sampling, ranking and refitting
    horizon: int = 3  # H, steps of a plan
    temperature: float = 0.5  # multiplies value differences before the exponential
    min_std: float = 0.05  # bounds of the candidates' standard deviation
    max_std: float = 2.0  # also where unconstrained planning starts
    constrained: bool = True  # pull the first proposal towards the policy early in training
    constraint_start: int = 2_000_000  # env steps until the pull weakens
    constraint_duration: int = 10_000_000  # env steps over which it fades to nothing

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_elites", "iterations", "horizon", "constraint_duration"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        _require(
            self.num_elites <= self.num_samples,
            f"num_elites {self.num_elites} must not exceed num_samples {self.num_samples}",
        )
        _require(
            2 <= self.num_policy_trajectories < self.num_samples,
            f"num_policy_trajectories must lie in [2, num_samples), got {self.num_policy_trajectories} "
            f"with num_samples {self.num_samples}",
        )
        _require(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        _require(
            0 < self.min_std <= self.max_std,
            f"need 0 < min_std <= max_std, got {self.min_std} and {self.max_std}",
        )
        _require(self.constraint_start >= 0, f"constraint_start must not be negative, got {self.constraint_start}")

    def constraint_weight(self, env_step: int | None) -> float:
        """Return w in [0, 1], the policy's share of the first proposal at a global env step.

        ``None`` (an evaluation outside of a run) and ``constrained=False`` give 0. The published schedule
        divides by the full duration after the start, so it ends at start + duration.
        """
        if env_step is None or not self.constrained:
            return 0.0
        if env_step < self.constraint_start:
            return 1.0
        return max(0.0, 1.0 - (env_step - self.constraint_start) / self.constraint_duration)
