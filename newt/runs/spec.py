"""The one schema of a run's settings.

    spec = RunSpec.model_validate({"tasks": ["mw-*", "walker-walk"], "preset": "laptop"})
    spec.task_list()          # the tasks, in the order of the model's task table
    spec.plan_settings()       # settings of the planner, switches applied

Anything that makes no sense raises pydantic's ValidationError, whose location names the field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from newt.agent.config import SIZES, ModelConfig, PlanConfig, TrainConfig
from newt.runs import presets
from newt.tasks.registry import Task, select_tasks

SAMPLERS = Literal["episode_uniform", "transition_uniform", "task_balanced"]
SET_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
SCRIPTED_SET_NAME = r"^scripted-\d+(-rgb\d+)?$"
"""Sets that runs fill by themselves, as far as they need them."""


def _strictly(settings: type[Any]) -> Callable[[Any], Any]:
    """Refuses what pydantic lets pass into a dataclass: unknown keys, and numbers given as strings or switches."""

    def check(value: Any) -> Any:
        if isinstance(value, Mapping):
            known = {field.name: field.default for field in fields(settings)}
            for name, given in value.items():
                if name not in known:
                    raise ValueError(f"unknown setting {name!r}; known are {', '.join(known)}")
                if isinstance(given, bool | str) and type(given) is not type(known[name]):
                    raise ValueError(f"{name}: got {given!r}, expected a value like {known[name]!r}")
        return value

    return check


class _Section(BaseModel):
    # Strict: a string is no number, a number is no switch.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSpec(_Section):
    """Size of the world model: a named size, each dimension of which can be overridden."""

    size: Literal["XS", "S", "B", "L", "XL"] = Field("L", description="Named size that the numbers start from.")
    latent_dim: int | None = Field(None, ge=1, description="Width of the latent state, a multiple of simnorm_dim.")
    encoder_dim: int | None = Field(None, ge=1, description="Width of the encoder's hidden layers.")
    encoder_layers: int | None = Field(None, ge=1, description="Layers of the encoder, output layer included.")
    mlp_dim: int | None = Field(None, ge=1, description="Width of the hidden layers of all other networks.")
    num_critics: int | None = Field(None, ge=2, description="Members of the critic ensemble.")
    simnorm_dim: int | None = Field(None, ge=1, description="Entries per softmax group of the latent state.")
    num_bins: int | None = Field(None, ge=2, description="Bins of the discrete regression of rewards and values.")

    def config(self, *, language: bool = True) -> ModelConfig:
        """The agent's settings. Raises ConfigError if the dimensions do not fit together."""
        overrides = self.model_dump(exclude={"size"}, exclude_none=True)
        if overrides:
            overrides = {**overrides, "size": "custom"}
        base = ModelConfig.from_size(self.size)
        return replace(base, language_dim=base.language_dim if language else 0, **overrides)

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


class AlgorithmSpec(_Section):
    """Switches of whole parts of the algorithm. Others: plan.constrained, train.target_critic, train.bc_coef."""

    language: bool = Field(True, description="Condition every network on the task's instruction.")
    pretraining: bool | None = Field(
        None,
        description="Pretrain on demonstrations before the first online step; null: if there are any and the run "
        "does not fine-tune a checkpoint.",
    )
    text_encoder: Literal["minilm-l6-v2", "clip-vit-b32"] = Field(
        "minilm-l6-v2", description="What embeds the instructions; CLIP is the published one and needs its weights."
    )
    planning: bool = Field(True, description="Act with the planner; false: with the policy alone.")


class ScheduleSpec(_Section):
    """How long, how often."""

    total_env_steps: int = Field(100_000_000, ge=1, description="Agent steps of the run, over all tasks.")
    seed_env_steps: int | None = Field(
        None,
        ge=0,
        description="Steps before planning and online updates begin; null: five of the longest episodes per env.",
    )
    pretrain_updates: int = Field(200_000, ge=1, description="Updates on demonstrations before the first online step.")
    updates_per_env_step: float = Field(0.075, gt=0, le=100, description="Online updates per env step after seeding.")
    eval_every_env_steps: int | None = Field(
        None, ge=0, description="Steps between evaluations; null: 10,000 per env; 0: only before and after training."
    )
    checkpoint_every_updates: int = Field(20_000, ge=1, description="Updates between checkpoints.")
    keep_checkpoints: int = Field(10, ge=1, description="Newest checkpoints kept, besides the one after pretraining.")
    publish_every_s: float = Field(10.0, gt=0, le=3600, description="Seconds between new weights for the planners.")


class ReplaySpec(_Section):
    """What is kept and how training sequences are drawn."""

    capacity_rows: int = Field(10_000_000, ge=1_000, description="Rows of online episodes kept; oldest go first.")
    batch_size: int = Field(1024, ge=2, le=65_536, description="Sequences per update.")
    sampler: SAMPLERS = Field("episode_uniform", description="How sequences are drawn from the stored episodes.")
    demo_fraction: float = Field(0.5, ge=0, le=1, description="Share of a batch from demonstrations, if there are any.")
    demos_in_online: bool = Field(True, description="Let the online half draw demonstrations until the ring is full.")
    max_lead_updates: int | None = Field(
        None,
        ge=0,
        description="Updates that collection may run ahead of training; null: those of the longest episode of all "
        "envs; 0: no bound.",
    )


class DemosSpec(_Section):
    """Which demonstrations a run learns from."""

    sets: list[Annotated[str, Field(pattern=SET_NAME)]] = Field(
        default_factory=list,
        description="Existing demonstration sets (`newt demos list`); only episodes of the run's tasks are used.",
    )
    scripted_episodes: int = Field(
        20,
        ge=0,
        le=1000,
        description="Good episodes per task from scripted experts, for tasks that have one; kept in the set "
        "scripted-<n> and reused by later runs. A task whose expert cannot bring them trains without.",
    )
    scripted_tasks: list[str] | None = Field(
        None,
        min_length=1,
        description="Task names, globs, domains or sets whose scripted experts are asked; null: all.",
    )

    @field_validator("scripted_tasks")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        if value is not None:
            select_tasks(value)
        return value


class VisionSpec(_Section):
    """What the agent sees, where `obs` is state+rgb; ignored otherwise."""

    feature_dim: int = Field(
        768,
        ge=1,
        le=8192,
        description="Width of the image encoder's features of one frame; 768 is that of DINOv2-base. The encoder is "
        "named in the learner's settings.",
    )
    frames: int = Field(1, ge=1, le=8, description="Frames that the agent sees at once, the newest last.")


class CollectSpec(_Section):
    """How experience is collected."""

    envs_per_task: int = Field(1, ge=1, le=256, description="Simulator instances per task.")
    lead_limit_steps: int | None = Field(
        None,
        ge=1,
        description="Steps that an instance may be ahead of the slowest one; null: twice the longest episode.",
    )


class EvaluationSpec(_Section):
    """Evaluations inside a run."""

    episodes_per_task: int = Field(
        2, ge=0, le=1000, description="Episodes per task in each evaluation; 0: the run evaluates nothing."
    )
    videos: bool = Field(False, description="Record one video per task in the final evaluation.")


class ResourcesSpec(_Section):
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
        "On each of the others a training node must run (docs/deployment.md).",
    )
    compile: bool = Field(
        False, description="Compile the updates with torch.compile: slow to start, faster afterwards on GPUs."
    )


class RunSpec(_Section):
    """Everything that defines a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)  # strict would refuse the dataclasses' JSON

    tasks: list[Annotated[str, Field(strict=True)]] = Field(
        min_length=1, description="Task names, globs, domains or task sets."
    )
    name: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9 ._-]*$", description="Free label; part of the run's id.")
    preset: Literal["default", "laptop"] = Field("default", description="Values that unnamed settings take.")
    seed: int = Field(1, strict=True, ge=0, lt=2**63, description="Source of all randomness of the run.")
    init_from: str | None = Field(
        None,
        strict=True,
        description="Fine-tune this checkpoint instead of training from scratch: RUN (its newest), RUN/NAME, or "
        "imported/NAME. The run takes over its model and text encoder; its policy acts during seeding; optimisers are "
        "fresh; no demonstrations are collected unless asked for.",
    )
    obs: Literal["state", "state+rgb"] = Field("state", description="What the agent observes.")
    model: ModelSpec = Field(default_factory=ModelSpec, description="Size of the world model.")
    algorithm: AlgorithmSpec = Field(default_factory=AlgorithmSpec, description="Switches of the algorithm.")
    train: Annotated[TrainConfig, BeforeValidator(_strictly(TrainConfig))] = Field(
        default_factory=TrainConfig, description="Constants of losses and optimisation."
    )
    plan: Annotated[PlanConfig, BeforeValidator(_strictly(PlanConfig))] = Field(
        default_factory=PlanConfig, description="Budget and constants of planning."
    )
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec, description="How long, how often.")
    replay: ReplaySpec = Field(default_factory=ReplaySpec, description="Storage and sampling.")
    demos: DemosSpec = Field(default_factory=DemosSpec, description="Demonstrations.")
    vision: VisionSpec = Field(default_factory=VisionSpec, description="Image features.")
    collect: CollectSpec = Field(default_factory=CollectSpec, description="Collection.")
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec, description="Evaluations.")
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec, description="Processes and compilation.")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, request: Any) -> Any:
        if not isinstance(request, Mapping):
            return request
        preset = request.get("preset", "default")
        return presets.merged(presets.overlay(preset, request) if isinstance(preset, str) else {}, request)

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, value: list[str]) -> list[str]:
        select_tasks(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        schedule = self.schedule
        if (self.seed_env_steps() or 0) >= schedule.total_env_steps:
            raise _at(
                ("schedule", "seed_env_steps"),
                f"{self.seed_env_steps()} steps of seeding leave nothing of total_env_steps {schedule.total_env_steps};"
                " raise the total or lower seed_env_steps",
            )
        if self.algorithm.pretraining and not self.has_demos():
            raise _at(
                ("algorithm", "pretraining"),
                "needs demonstrations: name demos.sets, or set demos.scripted_episodes and include a task with a "
                "scripted expert, or switch pretraining off",
            )
        if self.replay.batch_size % self.resources.processes:
            raise _at(
                ("resources", "processes"),
                f"{self.resources.processes} processes cannot have equal parts of replay.batch_size "
                f"{self.replay.batch_size}; choose a divisor of it",
            )
        if self.resources.processes % self.resources.nodes:
            raise _at(
                ("resources", "nodes"),
                f"{self.resources.processes} processes cannot be spread evenly over {self.resources.nodes} nodes; "
                "choose a divisor of resources.processes",
            )
        if self.train.horizon != self.plan.horizon:
            raise _at(
                ("plan", "horizon"), f"got {self.plan.horizon}, expected train.horizon, which is {self.train.horizon}"
            )
        shortest = min(task.episode_length for task in self.task_list())
        if self.train.horizon > shortest:
            raise _at(
                ("train", "horizon"),
                f"{self.train.horizon} is longer than the shortest episode of these tasks, {shortest} steps",
            )
        return self

    def task_list(self) -> list[Task]:
        """The tasks in the order of the model's task table."""
        return select_tasks(self.tasks)

    def num_envs(self) -> int:
        """Simulator instances that collect."""
        return len(self.task_list()) * self.collect.envs_per_task

    def longest_episode(self) -> int:
        """Steps of the longest episode among the tasks."""
        return max(task.episode_length for task in self.task_list())

    def expert_tasks(self) -> list[Task]:
        """Tasks that scripted demonstrations are collected for."""
        if not self.demos.scripted_episodes:
            return []
        asked = None if self.demos.scripted_tasks is None else set(select_tasks(self.demos.scripted_tasks))
        return [task for task in self.task_list() if task.has_expert and (asked is None or task in asked)]

    def demo_sets(self) -> list[str]:
        """Names of all demonstration sets of the run, the scripted one included."""
        scripted = [self.scripted_set()] if self.expert_tasks() else []
        return list(dict.fromkeys([*self.demos.sets, *scripted]))

    def expert_set(self) -> str:
        """Name of the set of scripted demonstrations, as the experts leave it: without image features."""
        return f"scripted-{self.demos.scripted_episodes}"

    def scripted_set(self) -> str:
        """Name of the set of scripted demonstrations that the run learns from."""
        return self.expert_set() + (f"-rgb{self.image_dim()}" if self.image_dim() else "")

    def has_demos(self) -> bool:
        """Whether the run learns from demonstrations."""
        return bool(self.demo_sets())

    def pretrains(self) -> bool:
        """Whether there is a pretraining phase."""
        wanted = self.algorithm.pretraining
        return self.has_demos() and self.init_from is None if wanted is None else wanted

    def seed_env_steps(self) -> int:
        """Env steps before planning and online updates begin."""
        given = self.schedule.seed_env_steps
        return 5 * self.num_envs() * self.longest_episode() if given is None else given

    def pretrain_updates(self) -> int:
        """Updates of the pretraining phase; 0 without one."""
        return self.schedule.pretrain_updates if self.pretrains() else 0

    def online_updates(self) -> int:
        """Updates of the online phase."""
        steps = self.schedule.total_env_steps - self.seed_env_steps()
        return math.floor(self.schedule.updates_per_env_step * steps)

    def evaluates(self) -> bool:
        """Whether there are evaluations at all."""
        return self.evaluation.episodes_per_task > 0

    def eval_every_env_steps(self) -> int:
        """Env steps between evaluations during training; 0 for none."""
        if not self.evaluates():
            return 0
        given = self.schedule.eval_every_env_steps
        return 10_000 * self.num_envs() if given is None else given

    def max_lead_updates(self) -> int:
        """Updates that collection may be ahead of training; 0 for no bound."""
        given = self.replay.max_lead_updates
        if given is not None:
            return given
        wave = self.num_envs() * self.longest_episode()
        return max(1, math.ceil(self.schedule.updates_per_env_step * wave))

    def lead_limit_steps(self) -> int:
        """Steps that one simulator instance may be ahead of the slowest."""
        return self.collect.lead_limit_steps or 2 * self.longest_episode()

    def demo_fraction(self) -> float:
        """Share of online batches that comes from demonstrations."""
        return self.replay.demo_fraction if self.has_demos() else 0.0

    def model_settings(self) -> ModelConfig:
        """Shape of the world model."""
        return replace(self.model.config(language=self.algorithm.language), image_dim=self.image_dim())

    def image_dim(self) -> int:
        """Columns of image features; 0 without images."""
        return self.vision.feature_dim * self.vision.frames if self.obs == "state+rgb" else 0

    def train_settings(self) -> TrainConfig:
        """Training constants; the warm-up belongs to pretraining and is dropped without it."""
        return self.train if self.pretrains() else replace(self.train, warmup_updates=0)

    def starts_with_policy(self) -> bool:
        """Whether there is a policy worth following before the first online update."""
        return self.pretrains() or self.init_from is not None

    def plan_settings(self) -> PlanConfig:
        """Planning settings; the constraint needs a pretrained policy to pull towards."""
        return replace(self.plan, constrained=self.plan.constrained and self.starts_with_policy())


def _at(path: tuple[str, ...], message: str) -> PydanticCustomError:
    """An error of the whole model that names the field it is about."""
    field = ".".join(path)
    return PydanticCustomError("inconsistent", "{field}: {message}", {"field": field, "message": message})
