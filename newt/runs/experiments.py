"""The schema of experiments: what a figure or table of the paper takes, as runs, evaluations and drawings.

A file `experiments/NAME.yaml` holds an experiment at all scales; `experiments/scales.yaml` what all experiments of a
scale have in common. Settings are nested like a run's; a later layer wins: scale, experiment, experiment at the scale,
what the variant's algorithm fixes, variant, variant at the scale, and, where a variant has a run for each task, what
`for_tasks` says of the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from newt.runs.record import EvaluationKind

SCALES = ("mini", "paper")
MAX_SEEDS = 100

ScaleName = Literal["mini", "paper"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Settings = dict[str, Any]
Seeds = Annotated[int, Field(ge=1, le=MAX_SEEDS)]


class Part(BaseModel):
    """Anything in a file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Speeds(Part):
    """How fast a run of this scale is; a run's hours follow from them while there are no records."""

    env_steps_per_s: float = Field(gt=0, description="Collection alone.")
    updates_per_s: float = Field(gt=0, description="Training alone.")
    together: bool = Field(description="Whether they share a machine's cores, so that their times add up.")
    machine: Text = Field(description="What they were measured on, or who says so.")


class Scale(Part):
    """What all experiments of a scale have in common."""

    description: Text
    seeds: Seeds = Field(description="Seeds of a variant, from 1 on.")
    run: Settings = Field(description="Settings of every run.")
    speeds: Speeds | None = None


class AtScale(Part):
    """What an experiment has at one scale only."""

    seeds: Seeds | None = None
    run: Settings = Field(default_factory=dict)


class Variant(Part):
    """One line of a figure: settings that are run for every seed."""

    title: Text
    run: Settings = Field(default_factory=dict)
    scales: dict[ScaleName, Settings] = Field(default_factory=dict, description="Settings at one scale only.")
    only: ScaleName | None = Field(None, description="The one scale that has it.")
    each_task: bool = Field(False, description="A run for each of the tasks instead of one for all.")
    for_tasks: dict[str, Settings] = Field(
        default_factory=dict, description="Settings of the runs of some tasks (name, glob, domain or set)."
    )
    same_as: str | None = Field(None, description="EXPERIMENT.VARIANT whose runs these are; nothing is run twice.")
    starts_from: str | None = Field(
        None, description="VARIANT or EXPERIMENT.VARIANT whose run of the same seed is fine-tuned."
    )

    @model_validator(mode="after")
    def _fits(self) -> Variant:
        if self.same_as and (self.run or self.scales or self.each_task or self.starts_from or self.for_tasks):
            raise ValueError("same_as stands alone: the settings are those of the other variant")
        if self.for_tasks and not self.each_task:
            raise ValueError("for_tasks needs each_task")
        return self


class PlannedEvaluation(Part):
    """An evaluation of the finished runs of some variants."""

    title: Text
    variants: list[Name] = Field(min_length=1)
    request: Settings = Field(description="Body of POST /runs/{id}/evaluate.")
    scales: dict[ScaleName, Settings] = Field(default_factory=dict, description="What differs at one scale.")


DrawingKind = Literal[
    "curves", "bars", "domains", "task_curves", "task_table", "evaluations", "open_loop", "losses", "instructions"
]


class Drawing(Part):
    """A figure or table of the report."""

    kind: DrawingKind
    name: Name | None = Field(None, description="Name of its files; default: the kind.")
    title: Text
    variants: list[Name] | None = Field(None, min_length=1, description="Which variants, in order; null: all.")
    statistic: Literal["mean", "iqm"] = Field("mean", description="Aggregate over seeds and tasks.")
    at: EvaluationKind = Field("final", description="Evaluation that bars and tables show.")
    evaluations: list[Name] | None = Field(None, min_length=1, description="For evaluations and open_loop.")
    metrics: list[str] | None = Field(None, min_length=1, description="For losses: metrics of the trainer.")

    @model_validator(mode="after")
    def _fits(self) -> Drawing:
        if (self.kind == "losses") != (self.metrics is not None):
            raise ValueError("metrics belong to kind losses, which needs them")
        if (self.kind in ("evaluations", "open_loop")) != (self.evaluations is not None):
            raise ValueError("evaluations belong to kinds evaluations and open_loop, which need them")
        return self

    @property
    def stem(self) -> str:
        """What its files are called, without ending."""
        return self.name or self.kind.replace("_", "-")


class Published(Part):
    """A number of the paper."""

    variant: Name
    value: float
    what: Text = Field(description="What it is the value of.")
    source: Text
    comparable: bool = Field(True, description="Whether it means the same as our figure at scale paper.")


class PublishedTasks(Part):
    """Published scores of single tasks, beside ours at scale paper."""

    file: Name = Field(description="published/NAME.csv beside the experiments, with columns task and score.")
    title: Text
    source: Text


class ExperimentFile(Part):
    """What a file of experiments/ holds."""

    shows: Text = Field(description="Figures and tables of the paper that it stands for.")
    question: Text
    run: Settings = Field(default_factory=dict, description="Settings of every run.")
    scales: dict[ScaleName, AtScale] = Field(default_factory=dict)
    variants: dict[Name, Variant] = Field(min_length=1)
    evaluations: dict[Name, PlannedEvaluation] = Field(default_factory=dict)
    drawings: list[Drawing] = Field(min_length=1)
    published: list[Published] = Field(default_factory=list)
    published_tasks: list[PublishedTasks] = Field(default_factory=list)
    notes: list[Text] = Field(default_factory=list, description="What a reader must know, or what is not reachable.")

    @model_validator(mode="after")
    def _names_are_known(self) -> ExperimentFile:
        for name, evaluation in self.evaluations.items():
            _known(f"evaluations.{name}.variants", evaluation.variants, self.variants)
        for drawing in self.drawings:
            _known(f"drawing {drawing.stem}: variants", drawing.variants or (), self.variants)
            _known(f"drawing {drawing.stem}: evaluations", drawing.evaluations or (), self.evaluations)
        _known("published", [item.variant for item in self.published], self.variants)
        stems = [drawing.stem for drawing in self.drawings]
        if len(set(stems)) < len(stems):
            raise ValueError("two drawings have one name")
        return self


class ScalesFile(Part):
    """What scales.yaml holds."""

    scales: dict[ScaleName, Scale]


def _known(where: str, names: Iterable[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is unknown; there are {', '.join(known) or 'none'}")
