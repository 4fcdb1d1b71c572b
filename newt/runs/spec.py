"""The one schema of a run's settings.

    spec = RunSpec.model_validate({"tasks": ["mw-*", "walker-walk"], "preset": "laptop"})
    spec.task_list()          # the tasks, in the order of the model's task table
    spec.plan_settings()       # settings of the planner, switches applied

Its sections are in `newt.runs.sections`. Anything that makes no sense raises pydantic's ValidationError, whose location
names the field; what must fit together is checked by `newt.runs.consistency`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from newt.agent.config import ModelConfig, PlanConfig, TrainConfig
from newt.runs import algorithms, consistency, presets
from newt.runs.labels import Labels
from newt.runs.sections import (
    AlgorithmSpec,
    CollectSpec,
    DemosSpec,
    EvaluationSpec,
    ModelSpec,
    ReplaySpec,
    ResourcesSpec,
    ScheduleSpec,
    Section,
    TaskSpecs,
    VisionSpec,
    strictly,
)
from newt.tasks.registry import RefusedTaskError, Task, UnknownTaskError, knowing, select_tasks

LEAD_STEPS, LEAD_UPDATES = 4, 8
"""Lead of collection over training, in steps of all envs and at least in updates. The published run alternates: it
leads by one step. A little more lets simulators, planner and trainer work at the same time."""
LABEL_LENGTH = 55
"""Characters of a run's id before the random part: the whole has at most 64."""


_STORED: ContextVar[tuple[Task, ...]] = ContextVar("stored", default=())


@contextmanager
def stored_tasks(tasks: Sequence[Task]) -> Iterator[None]:
    """Within, specs are read as those of a run that was made with these tasks, whatever their names mean by now."""
    token = _STORED.set(tuple(tasks))
    try:
        with knowing(tasks):
            yield
    finally:
        _STORED.reset(token)


class RunSpec(Section):
    """Everything that defines a run. What its tasks are is settled once, when it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)  # strict would refuse the dataclasses' JSON

    tasks: TaskSpecs = Field(description="Task names, globs, domains or task sets.")
    name: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9 ._-]*$", description="Free label; part of the run's id.")
    labels: Labels = Field(
        default_factory=dict,
        description="What the run belongs to, as names and values, for lists and reports: experiment, variant, ... At "
        "most 16. They change nothing in the run.",
    )
    preset: presets.PresetName = Field("default", description="Values that unnamed settings take.")
    seed: int = Field(1, strict=True, ge=0, lt=2**63, description="Source of all randomness of the run.")
    init_from: str | None = Field(
        None,
        strict=True,
        max_length=256,
        description="Fine-tune this checkpoint instead of training from scratch: RUN (its newest), RUN/NAME, RUN/best, "
        "or imported/NAME. The run takes over its model and text encoder; its policy acts during seeding; optimisers "
        "are fresh; no demonstrations are collected unless asked for.",
    )
    obs: Literal["state", "state+rgb"] = Field("state", description="What the agent observes.")
    model: ModelSpec = Field(default_factory=ModelSpec, description="Size of the world model.")
    algorithm: AlgorithmSpec = Field(default_factory=AlgorithmSpec, description="Switches of the algorithm.")
    train: Annotated[TrainConfig, BeforeValidator(strictly(TrainConfig))] = Field(
        default_factory=TrainConfig, description="Constants of losses and optimisation."
    )
    plan: Annotated[PlanConfig, BeforeValidator(strictly(PlanConfig))] = Field(
        default_factory=PlanConfig, description="Budget and constants of planning."
    )
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec, description="How long, how often.")
    replay: ReplaySpec = Field(default_factory=ReplaySpec, description="Storage and sampling.")
    demos: DemosSpec = Field(default_factory=DemosSpec, description="Demonstrations.")
    vision: VisionSpec = Field(default_factory=VisionSpec, description="Image features.")
    collect: CollectSpec = Field(default_factory=CollectSpec, description="Collection.")
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec, description="Evaluations.")
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec, description="Processes and compilation.")

    _tasks: tuple[Task, ...] = PrivateAttr(())
    _asked: frozenset[str] = PrivateAttr(frozenset())  # of these tasks scripted experts are asked

    @model_validator(mode="before")
    @classmethod
    def _apply_names(cls, request: Any) -> Any:
        if not isinstance(request, Mapping):
            return request
        return presets.merged(_values_of_names(request), request)

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, value: list[str]) -> list[str]:
        if not _STORED.get():
            select_tasks(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        self._tasks = _STORED.get() or tuple(select_tasks(self.tasks))
        scripted = self.demos.scripted_tasks
        try:
            asked = self._tasks if scripted is None else _that_are_known(scripted)
        except ValueError as error:
            raise consistency.at(("demos", "scripted_tasks"), str(error)) from error
        self._asked = frozenset(task.name for task in asked)
        consistency.check(self)
        return self

    def label(self) -> str:
        """What a run's id begins with: the name, as a plain word that no command takes for an option."""
        words = "".join(sign if sign.isalnum() else " " for sign in self.name.lower()).split()
        return "-".join(words)[:LABEL_LENGTH].strip("-") or "run"

    def task_list(self) -> list[Task]:
        """The tasks in the order of the model's task table."""
        return list(self._tasks)

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
        return [task for task in self.task_list() if task.has_expert and task.name in self._asked]

    def demo_sets(self) -> list[str]:
        """Names of all demonstration sets of the run, the scripted one included."""
        scripted = [self.scripted_set()] if self.expert_tasks() else []
        return list(dict.fromkeys([*self.demos.sets, *scripted]))

    def scripted_set(self, *, with_features: bool = True) -> str:
        """Name of the set of scripted demonstrations.

        Args:
            with_features: The set that the run learns from, with features where it sees images; False: the set as the
                experts leave it, which that one is made of.
        """
        features = f"-rgb{self.image_dim()}" if with_features and self.image_dim() else ""
        noise = f"-disturbed{self.demos.disturbance:.12g}" if self.demos.disturbance else ""
        return f"scripted-{self.demos.scripted_episodes}{noise}{features}"

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
        if self.model_free():
            steps = math.ceil(self.schedule.total_env_steps / self.num_envs())
            algorithm = self.algorithm
            return (algorithm.fasttd3 if algorithm.name == "fasttd3" else algorithm.ppo).updates(steps)
        steps = self.schedule.total_env_steps - self.seed_env_steps()
        return math.floor(self.schedule.updates_per_env_step * steps)

    def model_free(self) -> bool:
        """Whether the run learns in the process that steps the simulators, without replay service and planner."""
        return algorithms.ALGORITHMS[self.algorithm.name].model_free

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
        steps = LEAD_STEPS * self.num_envs()
        return max(LEAD_UPDATES, math.ceil(self.schedule.updates_per_env_step * steps))

    def all_tasks_until_env_steps(self) -> int:
        """Env steps up to which online updates wait until every task has an episode.

        No wait where seeding brings one, as in the published run; it ends without them if a task brings none in two
        rounds of the longest episode, and with collection.
        """
        rounds = 2 * self.num_envs() * self.longest_episode()
        return min(self.seed_env_steps() + rounds, self.schedule.total_env_steps)

    def lead_limit_steps(self) -> int:
        """Steps that one simulator instance may be ahead of the slowest."""
        return self.collect.lead_limit_steps or 2 * self.longest_episode()

    def demo_fraction(self) -> float:
        """Share of online batches that comes from demonstrations."""
        return self.replay.demo_fraction if self.has_demos() else 0.0

    def task_embedding_dim(self) -> int:
        """Width of the learned task vectors; 0 for none."""
        given = self.algorithm.task_embedding_dim
        if given is not None:
            return given
        several = len(self.task_list()) > 1 and not self.algorithm.language
        return algorithms.ALGORITHMS[self.algorithm.name].task_embedding_dim if several else 0

    def model_settings(self) -> ModelConfig:
        """Shape of the agent's model."""
        config = replace(
            self.model.config(),
            image_dim=self.image_dim(),
            policy_only=algorithms.ALGORITHMS[self.algorithm.name].policy_only,
        )
        if self.algorithm.language:
            return config
        learned = self.task_embedding_dim()
        return replace(config, language_dim=learned, learned_embeddings=learned > 0)

    def image_dim(self) -> int:
        """Columns of image features; 0 without images."""
        return self.vision.feature_dim * self.vision.frames if self.obs == "state+rgb" else 0

    def train_settings(self) -> TrainConfig:
        """Training constants; the warm-up belongs to pretraining and is dropped without it."""
        return self.train if self.pretrains() else replace(self.train, warmup_updates=0)

    def learns_online(self) -> bool:
        """Whether there is an online phase; without one, the run ends after pretraining."""
        return algorithms.ALGORITHMS[self.algorithm.name].online

    def starts_with_policy(self) -> bool:
        """Whether there is a policy worth following before the first online update."""
        return self.pretrains() or self.init_from is not None

    def guided_tasks(self, demo_episodes: Mapping[str, int]) -> list[str]:
        """Tasks that the policy knows before their first online step (`newt.agent.constraint`).

        They are seeded with the policy and planned under its pull; all others are seeded at random and planned freely.
        In a run that starts from a checkpoint, its agent's policy is followed in all tasks, as published.

        Args:
            demo_episodes: Demonstrations that the run holds, by task; absent is none.
        """
        names = [task.name for task in self.task_list()]
        if self.init_from is not None:
            return names
        return [name for name in names if demo_episodes.get(name, 0)] if self.pretrains() else []

    def plan_settings(self) -> PlanConfig:
        """Planning settings; the constraint needs a pretrained policy to pull towards."""
        return replace(self.plan, constrained=self.plan.constrained and self.starts_with_policy())


def unnamed_settings(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings are that a request does not name, nested like a run's, as JSON has them.

    Args:
        request: Of which preset, algorithm.name, schedule.total_env_steps and init_from are read; nothing is checked.

    Returns:
        All settings but the tasks, and but those that a run takes over from a checkpoint where there is one.
    """
    plain = RunSpec.model_construct(tasks=[]).model_dump(mode="json", exclude={"tasks"})
    values = presets.merged(plain, _values_of_names(request))
    if request.get("init_from") is not None:
        taken_over = ("language", "text_encoder", "task_embedding_dim")
        values = {name: value for name, value in values.items() if name not in ("model", "obs", "vision")}
        values["algorithm"] = {name: value for name, value in values["algorithm"].items() if name not in taken_over}
    return values


def _values_of_names(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset and the algorithm that a request names give its unnamed settings."""
    preset = request.get("preset", "default")
    values = presets.overlay(preset, request) if isinstance(preset, str) else {}
    return presets.merged(values, algorithms.overlay(request))


def _that_are_known(specs: Sequence[str]) -> Sequence[Task]:
    """The tasks of specs; those of a stored run may have names that mean nothing any more."""
    found: list[Task] = []
    for spec in specs:
        try:
            found += select_tasks([spec])
        except (UnknownTaskError, RefusedTaskError):
            if not _STORED.get():
                raise
    return found
