"""The sections of a run's settings, each a small schema of its own; `newt.runs.spec` puts them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from newt.agent.config import MAX_LAYERS, MAX_WIDTH, SIZES, ModelConfig, ObsScaling, Settings
from newt.baselines.config import FastTD3Config, PPOConfig
from newt.runs.algorithms import AlgorithmName
from newt.runs.stored import being_read
from newt.wire.limits import MAX_CAPACITY_ROWS, MAX_COUNT

SAMPLERS = Literal["episode_uniform", "transition_uniform", "task_balanced"]
SET_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
SCRIPTED_SET_NAME = r"^scripted-[0-9]+(-disturbed[0-9.e-]+)?(-rgb[0-9]+)?$"
"""Sets that runs fill by themselves, as far as they need them."""
TaskSpecs = Annotated[
    list[Annotated[str, Field(strict=True, max_length=128)]],
    # Each is matched with all tasks; all of them, named one by one and several times, are fewer.
    Field(min_length=1, max_length=1000),
]


def strictly(settings: type[Any]) -> Callable[[Any, ValidationInfo], Any]:
    """Refuses what pydantic lets pass into a dataclass: unknown keys, and numbers given as strings or switches."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping):
            known = {field.name: field.default for field in fields(settings)}
            for name, given in value.items():
                if name not in known:
                    if being_read(info):
                        continue
                    raise ValueError(f"unknown setting {str(name)[:80]!r}; known are {', '.join(known)}")
                if isinstance(given, bool | str) and type(given) is not type(known[name]):
                    raise ValueError(f"{name}: got {str(given)[:80]!r}, expected a value like {known[name]!r}")
        return value

    return check


def built(settings: type[Settings]) -> Callable[[Any, ValidationInfo], Any]:
    """Builds such settings of a mapping, which a strict section would refuse; they check themselves."""

    def build(value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        if not being_read(info):
            return settings.from_dict(value)
        found = settings.from_stored(value)
        vars(found).update({name: given for name, given in value.items() if name not in vars(found)})
        return found

    return build


class Section(BaseModel):
    """Strict: a string is no number, a number is no switch, an unknown setting is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSpec(Section):
    """Size of the world model: a named size, each dimension of which can be overridden."""

    size: Literal["XS", "S", "B", "L", "XL"] = Field("L", description="Named size that the numbers start from.")
    latent_dim: int | None = Field(
        None, ge=1, le=MAX_WIDTH, description="Width of the latent state, a multiple of simnorm_dim."
    )
    encoder_dim: int | None = Field(None, ge=1, le=MAX_WIDTH, description="Width of the encoder's hidden layers.")
    encoder_layers: int | None = Field(
        None, ge=1, le=MAX_LAYERS, description="Layers of the encoder, output layer included."
    )
    mlp_dim: int | None = Field(
        None, ge=1, le=MAX_WIDTH, description="Width of the hidden layers of the other networks."
    )
    critic_dim: int | None = Field(
        None, ge=1, le=MAX_WIDTH, description="Width of the critics' hidden layers; null: mlp_dim."
    )
    num_critics: int | None = Field(None, ge=2, le=MAX_LAYERS, description="Members of the critic ensemble.")
    simnorm_dim: int | None = Field(
        None, ge=1, le=MAX_WIDTH, description="Entries per softmax group of the latent state."
    )
    num_bins: int | None = Field(
        None, ge=2, le=MAX_WIDTH, description="Bins of the discrete regression of rewards and values."
    )
    obs_scaling: ObsScaling | None = Field(
        None,
        description="none: the encoder sees observations as they are, as published; per_task: in standard deviations "
        "from their task's mean over the training so far. null: none.",
    )

    def config(self) -> ModelConfig:
        """The agent's settings, reading language. Raises ConfigError if the dimensions do not fit together."""
        overrides = self.model_dump(exclude={"size"}, exclude_none=True)
        if overrides.keys() - {"obs_scaling"}:
            overrides = {**overrides, "size": "custom"}
        return replace(ModelConfig.from_size(self.size), **overrides)

    @classmethod
    def of(cls, config: ModelConfig) -> ModelSpec:
        """What describes an existing model."""
        size = config.size if config.size in SIZES else "L"
        base = ModelConfig.from_size(size)
        names = [name for name in cls.model_fields if name != "size"]
        differing = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(base, name)}
        return cls(size=size, **differing)  # type: ignore[arg-type]  # checked on the line before last

    @model_validator(mode="after")
    def _fits(self) -> ModelSpec:
        self.config()
        return self


class AlgorithmSpec(Section):
    """The algorithm and switches of its parts. Others: plan.constrained, train.target_critic, train.bc_coef."""

    name: AlgorithmName = Field(
        "newt",
        description="What learns; it fixes other settings and refuses other values of theirs (docs/algorithms.md).",
    )
    language: bool = Field(True, description="Condition every network on the task's instruction.")
    task_embedding_dim: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Without language: width of a learned vector by which the networks tell the tasks apart; 0: they "
        "are not told. null: 96 for tdmpc2 with several tasks, else 0.",
    )
    pretraining: bool | None = Field(
        None,
        description="Pretrain on demonstrations before the first online step; null: if there are any and the run "
        "does not fine-tune a checkpoint.",
    )
    text_encoder: Literal["minilm-l6-v2", "clip-vit-b32"] = Field(
        "minilm-l6-v2", description="What embeds the instructions; CLIP is the published one and needs its weights."
    )
    planning: bool = Field(True, description="Act with the planner; false: with the policy alone.")
    ppo: Annotated[PPOConfig, BeforeValidator(built(PPOConfig))] = Field(
        default_factory=PPOConfig, description="Constants of the algorithms ppo and ppo-untuned."
    )
    fasttd3: Annotated[FastTD3Config, BeforeValidator(built(FastTD3Config))] = Field(
        default_factory=FastTD3Config, description="Constants of the algorithm fasttd3."
    )


class ScheduleSpec(Section):
    """How long, how often."""

    total_env_steps: int = Field(
        100_000_000,
        ge=0,
        le=MAX_COUNT,
        description="Agent steps of the run, over all tasks; 0 for algorithms that learn from demonstrations alone.",
    )
    seed_env_steps: int | None = Field(
        None,
        ge=0,
        le=MAX_COUNT,
        description="Steps before planning and online updates begin; null: five of the longest episodes per env.",
    )
    pretrain_updates: int = Field(
        200_000, ge=1, le=MAX_COUNT, description="Updates on demonstrations before the first online step."
    )
    updates_per_env_step: float = Field(0.075, gt=0, le=100, description="Online updates per env step after seeding.")
    eval_every_env_steps: int | None = Field(
        None,
        ge=0,
        le=MAX_COUNT,
        description="Steps between evaluations; null: 10,000 per env; 0: only before and after training.",
    )
    checkpoint_every_updates: int = Field(20_000, ge=1, le=MAX_COUNT, description="Updates between checkpoints.")
    keep_checkpoints: int = Field(
        10, ge=1, le=MAX_COUNT, description="Newest checkpoints kept, besides the one after pretraining."
    )
    publish_every_s: float = Field(5.0, gt=0, le=3600, description="Seconds between new weights for the planners.")


class ReplaySpec(Section):
    """What is kept and how training sequences are drawn."""

    capacity_rows: int = Field(
        10_000_000, ge=1_000, le=MAX_CAPACITY_ROWS, description="Rows of online episodes kept; oldest go first."
    )
    batch_size: int = Field(1024, ge=2, le=65_536, description="Sequences per update.")
    sampler: SAMPLERS = Field("episode_uniform", description="How sequences are drawn from the stored episodes.")
    demo_fraction: float = Field(0.5, ge=0, le=1, description="Share of a batch from demonstrations, if there are any.")
    demos_in_online: bool = Field(True, description="Let the online half draw demonstrations until the ring is full.")
    max_lead_updates: int | None = Field(
        None,
        ge=0,
        le=MAX_COUNT,
        description="Updates that collection may run ahead of training, counting every step taken; null: those of "
        "four steps of all envs, at least eight; 0: no bound.",
    )


DISTURBANCE = (
    "Largest amplitude of the noise on the actions of scripted experts, in bursts after which they recover; an episode "
    "draws its own, between a tenth of it and all of it. 0: none."
)


class DemosSpec(Section):
    """Which demonstrations a run learns from."""

    sets: list[Annotated[str, Field(pattern=SET_NAME)]] = Field(
        default_factory=list,
        max_length=100,
        description="Existing demonstration sets (`newt demos list`); only episodes of the run's tasks are used.",
    )
    scripted_episodes: int = Field(
        20,
        ge=0,
        le=1000,
        description="Good episodes per task from scripted experts, for tasks that have one; kept in the set "
        "scripted-<n> and reused by later runs. A task whose expert cannot bring them trains without.",
    )
    disturbance: float = Field(
        0.0,
        ge=0,
        le=1,
        description=DISTURBANCE + " The set is then scripted-<n>-disturbed<amplitude>.",
    )
    scripted_tasks: TaskSpecs | None = Field(
        None,
        description="Task names, globs, domains or sets whose scripted experts are asked; null: all.",
    )


class VisionSpec(Section):
    """What the agent sees, where `obs` is state+rgb; ignored otherwise."""

    feature_dim: int = Field(
        768,
        ge=1,
        le=8192,
        description="Width of the image encoder's features of one frame; 768 is that of DINOv2-base. The encoder is "
        "named in the learner's settings.",
    )
    frames: int = Field(1, ge=1, le=8, description="Frames that the agent sees at once, the newest last.")


class CollectSpec(Section):
    """How experience is collected."""

    envs_per_task: int = Field(1, ge=1, le=256, description="Simulator instances per task.")
    lead_limit_steps: int | None = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description="Steps that an instance may be ahead of the slowest one; null: twice the longest episode.",
    )


class EvaluationSpec(Section):
    """Evaluations inside a run."""

    episodes_per_task: int = Field(
        2, ge=0, le=1000, description="Episodes per task in each evaluation; 0: the run evaluates nothing."
    )
    policy_alone: bool = Field(
        False, description="At the end, also play the episodes by the policy alone: what does planning add?"
    )
    videos: bool = Field(False, description="Record one video per task in the final evaluation.")
    periodic_videos: bool = Field(
        False, description="Record them in the periodic evaluations, too: one sees how the agent came to act so."
    )


class ResourcesSpec(Section):
    """What a run's training may use of the learner's machine."""

    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Training processes, each with an equal part of every batch: one per GPU; must divide "
        "replay.batch_size.",
    )
    nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="Machines that the processes are spread over, the learner's included; must divide processes. "
        "On each of the others runs a training node, which you start, or in Kubernetes the learner "
        "(docs/deployment.md).",
    )
    compile: bool | None = Field(
        None,
        # The version before knows no null; without it there it has the default that it had.
        exclude_if=lambda value: value is None,
        description="Compile the updates with torch.compile. The code is made, in minutes, beside updates without it, "
        "and used from a checkpoint on; it needs a C++ compiler. null: on GPUs.",
    )
    graphs: bool = Field(
        False,
        description="Record whole updates and have the GPU repeat them (CUDA graphs), which spares it waiting for "
        "Python. Not measured yet. One process only; on a CPU it brings nothing.",
    )
