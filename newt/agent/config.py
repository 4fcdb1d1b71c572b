"""Settings of the agent: model size, training constants, planning budget.

Every class is frozen, checks its values when built and refuses unknown keys in `from_dict`, so that a run's
settings can be stored as JSON beside its checkpoints and read back without guessing.

A field's type names its bounds, for whoever builds the class, for the REST API and for docs/run-settings.md alike.
They leave out what no hardware, wire or number type could carry, not what is unwise.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le

from newt.wire.limits import MAX_HORIZON, MAX_IMAGE_DIM, MAX_MODEL_BYTES, PADDED_ACTION_DIM, PADDED_OBS_DIM

MAX_WIDTH = 65_536
"""Of one layer. What many wide layers need together is bounded by `MAX_PARAMETERS`."""
MAX_LAYERS = 64
"""Of the encoder, and members of the critic ensemble: each is a module of its own."""
MAX_PARAMETERS = (MAX_MODEL_BYTES - 64 * 1024 * 1024) // 4
"""Weights in float32, and their task table, must fit into what the hub and the planners take. XL has 75 million."""
MAX_PLAN_STEPS = 2**20
"""Model steps of one row's plan: num_samples x iterations x horizon. The published plan takes 9,216, and 196,608 over
the longest horizon; a planner that computes many more for one action does nothing else."""
MAX_SAMPLES = 16_384
"""Candidates of one plan, 32 times the published number."""
MAX_ACTIVATIONS = 2**26
"""Numbers that one layer gives for all candidates of one row: 256 MiB in float32. The published plan of XL has a
million, and a planner holds a few such layers at once."""
MAX_INT64 = 2**63 - 1

Width = Annotated[int, Ge(1), Le(MAX_WIDTH)]
Layers = Annotated[int, Ge(1), Le(MAX_LAYERS)]
Critics = Annotated[int, Ge(2), Le(MAX_LAYERS)]
Bins = Annotated[int, Ge(2), Le(MAX_WIDTH)]
OptionalWidth = Annotated[int, Ge(0), Le(MAX_IMAGE_DIM)]
Symlog = Annotated[float, Ge(-80.0), Le(80.0)]  # float32 holds exp(88)
Horizon = Annotated[int, Ge(1), Le(MAX_HORIZON)]
Coefficient = Annotated[float, Ge(0.0), Le(1e6)]
Share = Annotated[float, Gt(0.0), Le(1.0)]
LearningRate = Annotated[float, Gt(0.0), Le(1e30)]  # float32 holds it; a run that diverges says so
Epsilon = Annotated[float, Ge(1e-20), Le(1.0)]  # below, float32 loses it, and 0 / 0 is NaN
Samples = Annotated[int, Ge(2), Le(MAX_SAMPLES)]
Elites = Annotated[int, Ge(1), Le(MAX_SAMPLES)]
Steps = Annotated[int, Ge(0), Le(MAX_INT64)]


class ConfigError(ValueError):
    """A setting has an impossible value; the message names the setting."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


class Settings:
    """Conversion to and from plain dictionaries, and the check of types and bounds, shared by the settings classes."""

    def __post_init__(self) -> None:
        own: Any = type(self)  # hashable, which mypy doubts
        for name, kind in _kinds(own).items():
            _check(name, getattr(self, name), kind)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON-compatible values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds from `to_dict`'s output; missing keys take their defaults.

        Raises:
            ConfigError: A key is unknown or a value is impossible.
        """
        _require(isinstance(values, Mapping), f"{cls.__name__}: got {_short(values)}, expected an object")
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(str(name) for name in set(values) - known)
        _require(not unknown, f"unknown {cls.__name__} settings {_short(unknown)}; known are {sorted(known)}")
        return cls(**values)

    @classmethod
    def from_stored(cls, values: Mapping[str, Any]) -> Self:
        """As `from_dict`, of what may have been stored by a later version: keys that it has added are left out."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls.from_dict({name: value for name, value in values.items() if name in known})


_BOUNDS = {
    Ge: ("ge", operator.ge, "at least"),
    Gt: ("gt", operator.gt, "greater than"),
    Le: ("le", operator.le, "at most"),
}


@cache
def _kinds(config: type[Any]) -> dict[str, Any]:
    return get_type_hints(config, include_extras=True)


def _check(name: str, value: Any, kind: Any) -> None:
    """Raises ConfigError unless a setting has its type and lies within its bounds."""
    base, *bounds = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if get_origin(base) is Literal:
        _require(value in get_args(base), f"{name} must be one of {get_args(base)}, got {_short(value)}")
    elif base in (int, float):
        number = Integral if base is int else Real
        _require(
            isinstance(value, number) and not isinstance(value, bool),
            f"{name} must be {'a whole number' if base is int else 'a number'}, got {_short(value)}",
        )
        # Written so that NaN fails; unlike math.isfinite, comparing takes whole numbers of any size.
        within = -math.inf < value < math.inf and all(_holds(value, bound) for bound in bounds)
        _require(within, f"{name} must be {_words(bounds)}, got {_short(value)}")
    elif base in (bool, str):
        _require(isinstance(value, base), f"{name} must be a {base.__name__}, got {_short(value)}")


def _holds(value: Any, bound: Any) -> bool:
    attribute, compare, _ = _BOUNDS[type(bound)]
    return bool(compare(value, getattr(bound, attribute)))


def _words(bounds: list[Any]) -> str:
    words = [f"{_BOUNDS[type(bound)][2]} {getattr(bound, _BOUNDS[type(bound)][0])}" for bound in bounds]
    return " and ".join(words) or "finite"


def _short(value: Any) -> str:
    """A value for a message; it may be anything, of any size."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


ObsScaling = Literal["none", "per_task"]


@dataclass(frozen=True)
class ModelConfig(Settings):
    """Shape of the world model.

    Example:
        >>> ModelConfig.from_size("L").latent_dim
        512
        >>> ModelConfig.from_size("B", language_dim=0).size
        'B'
    """

    size: str = "custom"  # only a label; the numbers below decide
    latent_dim: Width = 512  # D, divisible by simnorm_dim
    encoder_dim: Width = 1024  # E, width of the encoder's hidden layers
    encoder_layers: Layers = 3  # including the output layer
    mlp_dim: Width = 1024  # M, width of the two hidden layers of every other network
    num_critics: Critics = 5  # Nq, at least 2: targets and values use a random pair
    critic_dim: OptionalWidth = 0  # width of the critics' hidden layers; 0 = mlp_dim
    simnorm_dim: Width = 8  # V, entries per softmax group
    num_bins: Bins = 101  # K, of the discrete regression
    vmin: Symlog = -10.0  # first and last bin, in symlog units
    vmax: Symlog = 10.0
    obs_dim: Width = PADDED_OBS_DIM  # O
    action_dim: Width = PADDED_ACTION_DIM  # A
    language_dim: OptionalWidth = 512  # G, width of the tasks' vectors, 0 = the networks are not told the task
    image_dim: OptionalWidth = 0  # X, 0 = no image features
    learned_embeddings: bool = False  # the tasks' vectors are trained, not embeddings of their instructions
    obs_scaling: ObsScaling = "none"  # "per_task": observations as the encoder sees them have mean 0 and spread 1
    policy_only: bool = False  # encoder and policy alone, as cloning needs: there is nothing to plan with

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(len(self.size) <= 64, f"size must have at most 64 characters, got {_short(self.size)}")
        _require(
            self.latent_dim % self.simnorm_dim == 0,
            f"latent_dim {self.latent_dim} must be a multiple of simnorm_dim {self.simnorm_dim}",
        )
        _require(self.vmin < self.vmax, f"vmin {self.vmin} must be below vmax {self.vmax}")
        _require(
            self.language_dim > 0 or not self.learned_embeddings,
            "learned_embeddings need a width, language_dim, of at least 1",
        )
        _require(
            self.parameters() <= MAX_PARAMETERS,
            f"latent_dim, encoder_dim, mlp_dim, critic_dim and num_critics make a model of {self.parameters():,} "
            f"parameters, more than the {MAX_PARAMETERS:,} that can be published; choose smaller ones",
        )

    @property
    def reads_language(self) -> bool:
        """Whether the tasks' vectors are embeddings of their instructions."""
        return self.language_dim > 0 and not self.learned_embeddings

    @property
    def critic_width(self) -> int:
        """Width of the critics' hidden layers."""
        return self.critic_dim or self.mlp_dim

    def parameters(self) -> int:
        """Returns the number of learnable parameters of networks of this shape, without target critics."""
        D, A, M, C = self.latent_dim, self.action_dim, self.mlp_dim, self.critic_width

        def mlp(inputs: int, hidden: tuple[int, ...], out: int, *, normed_output: bool = False) -> int:
            widths = (inputs + self.language_dim, *hidden, out)
            affine = sum((widths[i] + 1) * widths[i + 1] for i in range(len(widths) - 1))
            return affine + 2 * (sum(hidden) + normed_output * out)

        encoder = (self.encoder_dim,) * (self.encoder_layers - 1)
        acting = mlp(self.obs_dim + self.image_dim, encoder, D, normed_output=True) + mlp(D, (M, M), 2 * A)
        if self.policy_only:
            return acting
        reward, critic = (mlp(D + A, (width, width), self.num_bins) for width in (M, C))
        return acting + mlp(D + A, (M, M), D, normed_output=True) + reward + self.num_critics * critic

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> Self:
        """Returns a published size (S, B, L, XL) or XS, the project's own size for laptops.

        Raises:
            ConfigError: Unknown size, unknown override or impossible value.
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
Sharing = Literal["shared", "per_task"]
Cloned = Literal["all", "demos"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Constants of losses and optimisation; defaults are the published run's effective values."""

    horizon: Horizon = 3  # H, steps of a training sequence
    rho: Annotated[float, Gt(0.0), Le(2.0)] = 0.5  # a loss at step t weighs rho^t / sum_{j<=H} rho^j
    consistency_coef: Coefficient = 20.0  # of predicted against encoded latent states, in the model loss
    reward_coef: Coefficient = 0.1  # of predicted rewards, in the model loss
    value_coef: Coefficient = 0.1  # of the critics, in the model loss
    pretrain_bc_coef: Coefficient = 1.0  # behaviour cloning in the model loss, pretraining only
    bc_coef: Coefficient = 1.0  # behaviour cloning in the policy loss, online phase; 0 switches it off
    bc_data: Cloned = "all"  # whose actions are cloned online: those of a whole batch, as published, or of demos alone
    entropy_coef: Coefficient = 1e-4  # of the policy's scaled entropy, in its loss
    lr: LearningRate = 3e-4  # learning rate of both optimisers
    encoder_lr_factor: Annotated[float, Gt(0.0), Le(1000.0)] = 0.3  # the encoder's share of the learning rate
    adam_eps: Epsilon = 1e-8  # of the world model's optimiser
    policy_adam_eps: Epsilon = 1e-5  # of the policy's optimiser
    grad_clip_norm: Annotated[float, Gt(0.0), Le(1e9)] = 20.0  # of the world model, and of the policy
    ema_rate: Share = 0.01  # of the target critics and of the value scale
    target_critic: TargetCritic = "ema"  # "online" imitates the published runs, whose targets were bypassed
    warmup_updates: Steps = 0  # linear learning-rate warm-up; 5000 when a run starts from demonstrations
    value_scale: Sharing = "shared"  # "per_task": tasks with small values are not drowned by those with large ones
    precision: Precision = "auto"  # of matrix products: auto is tf32 on a GPU, as published, and float32 on a CPU
    value_percentiles: tuple[float, float] = (5.0, 95.0)  # their distance is the scale of values in the policy loss

    def __post_init__(self) -> None:
        super().__post_init__()
        percentiles = self.value_percentiles
        numbers = isinstance(percentiles, list | tuple) and all(type(p) in (int, float) for p in percentiles)
        _require(
            numbers and len(percentiles) == 2 and 0 <= percentiles[0] < percentiles[1] <= 100,
            f"value_percentiles must be two rising numbers in [0, 100], got {_short(percentiles)}",
        )
        object.__setattr__(self, "value_percentiles", tuple(percentiles))  # JSON has lists only


@dataclass(frozen=True)
class PlanConfig(Settings):
    """Budget and constants of planning by model-predictive path integral control (MPPI)."""

    num_samples: Samples = 512  # S, candidates per iteration, policy trajectories included
    num_policy_trajectories: Samples = 24  # P, candidates that the policy proposes
    num_elites: Elites = 64  # E, best candidates, which the next iteration is drawn from
    iterations: Annotated[int, Ge(1), Le(1000)] = 6  # of sampling, ranking and refitting
    horizon: Horizon = 3  # H, steps of a plan
    temperature: Annotated[float, Gt(0.0), Le(1e6)] = 0.5  # multiplies value differences before the exponential
    min_std: Annotated[float, Gt(0.0), Le(1000.0)] = 0.05  # bounds of the candidates' standard deviation
    max_std: Annotated[float, Gt(0.0), Le(1000.0)] = 2.0  # also where unconstrained planning starts
    constrained: bool = True  # pull the first proposal towards the policy early in training
    constraint_start: Steps = 2_000_000  # env steps until the pull weakens
    constraint_duration: Annotated[int, Ge(1), Le(MAX_INT64)] = 10_000_000  # env steps over which it fades to nothing

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.num_elites <= self.num_samples,
            f"num_elites {self.num_elites} must not exceed num_samples {self.num_samples}",
        )
        _require(
            self.num_policy_trajectories < self.num_samples,
            f"num_policy_trajectories must lie in [2, num_samples), got {self.num_policy_trajectories} "
            f"with num_samples {self.num_samples}",
        )
        _require(self.min_std <= self.max_std, f"need min_std <= max_std, got {self.min_std} and {self.max_std}")
        steps = self.num_samples * self.iterations * self.horizon
        _require(
            steps <= MAX_PLAN_STEPS,
            f"num_samples {self.num_samples} x iterations {self.iterations} x horizon {self.horizon} are {steps:,} "
            f"model steps per action, more than {MAX_PLAN_STEPS:,}; choose smaller ones",
        )

    def check_memory(self, model: ModelConfig) -> None:
        """Raises ConfigError if planning with this model takes more memory than a planner grants to one row."""
        width = max(model.latent_dim, model.mlp_dim, model.critic_width)
        _require(
            self.num_samples * width <= MAX_ACTIVATIONS,
            f"num_samples {self.num_samples} with layers of width {width} take {self.num_samples * width:,} numbers at "
            f"once, more than {MAX_ACTIVATIONS:,}; choose fewer samples or a narrower model",
        )

    def constraint_weight(self, env_step: int | None) -> float:
        """Returns w in [0, 1], the policy's share of the first proposal at a global env step.

        That is for a task with a policy to follow; `newt.agent.constraint` knows which have one. `None` (no run is
        known) and `constrained=False` give 0. The published schedule divides by the full duration after the start, so
        it ends at start + duration.
        """
        if env_step is None or not self.constrained:
            return 0.0
        if env_step < self.constraint_start:
            return 1.0
        return max(0.0, 1.0 - (env_step - self.constraint_start) / self.constraint_duration)
