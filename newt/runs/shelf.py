"""Reads experiments from their folder.

experiment = Shelf(Path("experiments")).load("mini/baselines")
[run.key for run in experiment.runs(seeds=[1])]
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from newt.errors import InvalidInputError, NotFoundError
from newt.runs.base import problems_of
from newt.runs.expansion import Experiment
from newt.runs.experiments import SCALES, ExperimentFile, Part, Scale, ScalesFile
from newt.tasks.registry import get_task

SCALES_FILE = "scales.yaml"

File = TypeVar("File", bound=Part)


class Shelf:
    """A folder of experiments.

    Args:
        folder: With `scales.yaml` and a file for each experiment.

    Raises:
        NotFoundError: It is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / SCALES_FILE).is_file():
            raise NotFoundError(f"no experiments in {folder}: it has no {SCALES_FILE}; name the folder with --folder")
        self.folder = folder
        self._read = cache(self._load)  # reads each file once

    def names(self) -> list[str]:
        """All experiments at all scales: `mini/baselines`, ..."""
        stems = sorted(path.stem for path in self.folder.glob("*.yaml") if path.name != SCALES_FILE)
        return [f"{scale}/{stem}" for scale in SCALES for stem in stems]

    def load(self, name: str) -> Experiment:
        """An experiment by its name.

        Raises:
            NotFoundError: There is none; names those that are.
            InvalidInputError: The file makes no sense; names the field.
        """
        scale, _, stem = name.partition("/")
        if name not in self.names():
            raise NotFoundError(f"unknown experiment {name!r}; there are {', '.join(self.names())}")
        return Experiment(name, scale, self.scale(scale), self.file(stem), self)

    def published(self, name: str) -> dict[str, float]:
        """Published scores in [0, 1] by task. Raises InvalidInputError for a file that makes no sense."""
        path = self.folder / "published" / f"{name}.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return {get_task(row["task"]).name: float(row["score"]) for row in csv.DictReader(file)}
        except (OSError, KeyError, ValueError) as error:
            raise InvalidInputError(str(path), f"cannot be read: {error}") from error

    def scale(self, name: str) -> Scale:
        """A scale by its name."""
        path = self.folder / SCALES_FILE
        scales = _parsed(path, _yaml(path), ScalesFile).scales
        if name not in scales:
            raise InvalidInputError(str(path), f"scales: {name} is missing")
        return scales[name]

    def file(self, stem: str) -> ExperimentFile:
        """The content of an experiment's file. Raises InvalidInputError for one that makes no sense."""
        return self._read(stem)

    def _load(self, stem: str) -> ExperimentFile:
        path = self.folder / f"{stem}.yaml"
        return _parsed(path, _yaml(path), ExperimentFile)


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(str(path), f"cannot be read as YAML: {error}") from error


def _parsed(path: Path, content: Any, kind: type[File]) -> File:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(str(path), problems_of(error)) from error
