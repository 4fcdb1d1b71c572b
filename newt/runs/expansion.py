"""The runs and evaluations that an experiment consists of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from pydantic import ValidationError

from newt.errors import InvalidInputError, NotFoundError
from newt.runs import algorithms
from newt.runs.base import problems_of
from newt.runs.evaluations import RunEvaluationRequest
from newt.runs.experiments import ExperimentFile, PlannedEvaluation, Scale, Settings, Variant
from newt.runs.presets import merged
from newt.runs.spec import RunSpec
from newt.tasks.registry import UnknownTaskError, get_task, select_tasks

EXPERIMENT, VARIANT, TASK = "experiment", "variant", "task"
"""Labels that tell which run of which experiment a run is, beside its seed."""
ANY_CHECKPOINT = "RUN"
"""Stands for the checkpoint that a planned run starts from, while it is not there."""
NAME_LENGTH = 64


@dataclass(frozen=True, order=True)
class RunKey:
    """Which run of which experiment: the same key is never run twice.

    Attributes:
        experiment: With the scale: `mini/baselines`.
        variant: Name in the experiment's file.
        task: The task, where a variant has a run for each; empty otherwise.
        seed: The run's seed.
    """

    experiment: str
    variant: str
    task: str
    seed: int

    def labels(self) -> dict[str, str]:
        """Labels of the run."""
        return {EXPERIMENT: self.experiment, VARIANT: self.variant, **({TASK: self.task} if self.task else {})}

    @classmethod
    def of(cls, spec: RunSpec) -> RunKey | None:
        """The key of a run with these settings; None if no experiment started it."""
        labels = spec.labels
        if EXPERIMENT not in labels or VARIANT not in labels:
            return None
        return cls(labels[EXPERIMENT], labels[VARIANT], labels.get(TASK, ""), spec.seed)

    def __str__(self) -> str:
        return " ".join(part for part in (self.experiment, self.variant, self.task, f"seed {self.seed}") if part)


@dataclass(frozen=True)
class PlannedRun:
    """A run that belongs to an experiment.

    Attributes:
        key: Which one.
        settings: Body of POST /runs, without `init_from` where it starts from another run.
        starts_from: The run whose newest checkpoint it is fine-tuned from.
    """

    key: RunKey
    settings: Settings = field(hash=False)
    starts_from: RunKey | None = None

    def request(self, checkpoint: str = ANY_CHECKPOINT) -> dict[str, Any]:
        """Body of POST /runs.

        Args:
            checkpoint: What it starts from, if it does: the id of the other run.
        """
        name = "-".join(filter(None, (*self.key.experiment.split("/"), self.key.variant, self.key.task)))
        own = {
            "name": f"{name[: NAME_LENGTH - 5]}-s{self.key.seed}",
            "seed": self.key.seed,
            "labels": self.key.labels(),
        }
        start = {"init_from": checkpoint} if self.starts_from else {}
        return {**self.settings, **own, **start}

    @cached_property
    def spec(self) -> RunSpec:
        """The run's settings as the learner will read them. Raises InvalidInputError if they make no sense."""
        try:
            return RunSpec.model_validate_json(json.dumps(self.request()))
        except ValidationError as error:
            raise InvalidInputError(str(self.key), problems_of(error)) from error


class Source(Protocol):
    """Where other experiments are."""

    def load(self, name: str) -> Experiment:
        """An experiment by its name."""


@dataclass(frozen=True)
class Experiment:
    """An experiment at one scale.

    Attributes:
        name: `mini/baselines`.
        scale_name: `mini`.
        scale: What it shares with all experiments of the scale.
        file: What it is.
        source: Where the experiments are whose runs it uses.
    """

    name: str
    scale_name: str
    scale: Scale
    file: ExperimentFile
    source: Source = field(repr=False, compare=False)

    def variants(self) -> dict[str, Variant]:
        """The variants that this scale has, in order."""
        return {
            name: variant for name, variant in self.file.variants.items() if variant.only in (None, self.scale_name)
        }

    def seeds(self) -> list[int]:
        """The seeds that it is meant to have."""
        here = self.file.scales.get(self.scale_name)  # type: ignore[call-overload]  # a str that is one of the names
        count = here.seeds if here and here.seeds else self.scale.seeds
        return list(range(1, count + 1))

    def runs(self, seeds: Sequence[int] | None = None, variants: Sequence[str] | None = None) -> list[PlannedRun]:
        """All runs, each once, every seed complete before the next; those that others start from come before them.

        Args:
            seeds: Instead of the experiment's own.
            variants: Instead of all.

        Raises:
            InvalidInputError: Settings make no sense, or a variant is unknown; names where.
        """
        found: dict[RunKey, PlannedRun] = {}
        for seed in seeds or self.seeds():
            for variant in variants if variants is not None else self.variants():
                for run in self.runs_of(variant, seed):
                    for needed in (*self._needed(run), run):
                        found.setdefault(needed.key, needed)
        return list(found.values())

    def runs_of(self, name: str, seed: int) -> list[PlannedRun]:
        """The runs of a variant with a seed: one, or one for each task."""
        variant = self._variant(name)
        if variant.same_as:
            other, _, theirs = variant.same_as.rpartition(".")
            return self._other(other, f"variants.{name}.same_as").runs_of(theirs, seed)
        settings = self.settings(name)
        if not variant.each_task:
            start = self._start(name, variant, "", seed)
            return [PlannedRun(RunKey(self.name, name, "", seed), settings, start)]
        runs = []
        for task in self._tasks(name, settings["tasks"]):
            own: Settings = {}
            for specs, values in variant.for_tasks.items():
                if task in self._tasks(name, [specs]):
                    own = merged(own, values)
            key = RunKey(self.name, name, task, seed)
            runs.append(
                PlannedRun(key, {**merged(settings, own), "tasks": [task]}, self._start(name, variant, task, seed))
            )
        return runs

    def settings(self, name: str) -> Settings:
        """All layers of a variant's settings."""
        variant = self._variant(name)
        here = self.file.scales.get(self.scale_name)  # type: ignore[call-overload]
        common = (self.scale.run, self.file.run, here.run if here else {})
        own = (variant.run, variant.scales.get(self.scale_name, {}))  # type: ignore[call-overload]
        fixed = algorithms.overlay(_layered(*common, *own))
        result = _layered(*common, fixed, *own)
        if "tasks" not in result:
            raise InvalidInputError(self.name, f"variants.{name}: no layer names its tasks")
        return result

    def tasks_of(self, name: str) -> list[str]:
        """All tasks of a variant, in the order of its settings."""
        seed = self.seeds()[0]
        return list(dict.fromkeys(task.name for run in self.runs_of(name, seed) for task in run.spec.task_list()))

    def evaluations(self) -> Iterator[tuple[str, PlannedEvaluation, RunEvaluationRequest]]:
        """Name, plan and request of each evaluation of finished runs.

        Raises:
            InvalidInputError: A request makes no sense.
        """
        for name, evaluation in self.file.evaluations.items():
            body = merged(evaluation.request, evaluation.scales.get(self.scale_name, {}))  # type: ignore[call-overload]
            body = {**body, **self._instructions(f"evaluations.{name}", body)}
            try:
                request = RunEvaluationRequest.model_validate(body)
            except ValidationError as error:
                raise InvalidInputError(self.name, f"evaluations.{name}: {problems_of(error)}") from error
            for task in (*(request.tasks or ()), *request.instructions):
                self._tasks(f"evaluations.{name}", [task])
            yield name, evaluation, request

    def _instructions(self, where: str, body: Settings) -> Settings:
        """Replaced instructions, where `$TASK` stands for another task's."""
        given = body.get("instructions")
        if not isinstance(given, Mapping):
            return {}
        texts = {}
        for task, text in given.items():
            other = text.removeprefix("$") if isinstance(text, str) and text.startswith("$") else None
            texts[task] = get_task(self._tasks(where, [other])[0]).instruction if other is not None else text
        return {"instructions": texts}

    def _variant(self, name: str) -> Variant:
        variants = self.variants()
        if name not in variants:
            raise InvalidInputError(self.name, f"unknown variant {name!r}; there are {', '.join(variants)}")
        return variants[name]

    def _other(self, stem: str, where: str) -> Experiment:
        if not stem or f"{self.scale_name}/{stem}" == self.name:
            return self
        name = f"{self.scale_name}/{stem}"
        try:
            return self.source.load(name)
        except NotFoundError as error:
            raise InvalidInputError(self.name, f"{where}: {error}") from error

    def _start(self, name: str, variant: Variant, task: str, seed: int) -> RunKey | None:
        if not variant.starts_from:
            return None
        other, _, theirs = variant.starts_from.rpartition(".")
        starts = self._other(other, f"variants.{name}.starts_from").runs_of(theirs, seed)
        for run in starts:
            if run.key.task in ("", task):
                return run.key
        raise InvalidInputError(self.name, f"variants.{name}.starts_from: {variant.starts_from} has no run for {task}")

    def _needed(self, run: PlannedRun) -> list[PlannedRun]:
        if run.starts_from is None:
            return []
        key = run.starts_from
        owner = self if key.experiment == self.name else self.source.load(key.experiment)
        found = next(other for other in owner.runs_of(key.variant, key.seed) if other.key == key)
        return [*owner._needed(found), found]

    def _tasks(self, where: str, specs: Sequence[str]) -> list[str]:
        try:
            return [task.name for task in select_tasks(specs)]
        except (UnknownTaskError, ValueError) as error:
            raise InvalidInputError(self.name, f"{where}: {error}") from error


def differing(planned: RunSpec, stored: RunSpec) -> list[str]:
    """Settings in which a stored run is not the planned one; empty if it is the same.

    What a run starts from, and takes over from there, is left out, and so is the spelling of its tasks: a record has
    them by name.
    """
    taken_over = {"model", "algorithm", "obs", "vision"} if planned.init_from else set()
    left_out = {"name", "init_from", "tasks", *taken_over}
    ours, theirs = (flat(spec.model_dump(mode="json", exclude=left_out)) for spec in (planned, stored))
    changes = [
        f"{path} {json.dumps(theirs.get(path))} instead of {json.dumps(ours.get(path))}"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]
    names = [[task.name for task in spec.task_list()] for spec in (planned, stored)]
    return changes if names[0] == names[1] else ["tasks", *changes]


def _layered(*layers: Settings) -> Settings:
    result: Settings = {}
    for layer in layers:
        result = merged(result, layer)
    return result


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by path: `schedule.total_env_steps`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            result.update(flat(value, f"{above}{name}."))
        else:
            result[f"{above}{name}"] = value
    return result
