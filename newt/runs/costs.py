"""What runs take: env steps, updates, and hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from newt.runs.expansion import RunKey
from newt.runs.experiments import Speeds
from newt.runs.spec import RunSpec
from newt.runs.standing import Cell


@dataclass(frozen=True)
class Work:
    """What a run has to do.

    Attributes:
        env_steps: Steps that are collected.
        evaluation_steps: Steps of the evaluations inside of the run.
        updates: Updates, pretraining included.
    """

    env_steps: int
    evaluation_steps: int
    updates: int

    @classmethod
    def of(cls, spec: RunSpec) -> Work:
        """The work of a run with these settings."""
        total, every = spec.schedule.total_env_steps, spec.eval_every_env_steps()
        # At random, after pretraining, on the way, at the end.
        evaluations = (
            2 + spec.pretrains() + (total - 1) // every if every else 2 + spec.pretrains()
        ) * spec.evaluates()
        episode = sum(task.episode_length for task in spec.task_list()) * spec.evaluation.episodes_per_task
        return cls(total, evaluations * episode, spec.pretrain_updates() + max(0, spec.online_updates()))

    def seconds(self, speeds: Speeds) -> float:
        """How long it takes."""
        steps, updates = self.env_steps / speeds.env_steps_per_s, self.updates / speeds.updates_per_s
        evaluating = self.evaluation_steps / speeds.env_steps_per_s
        return evaluating + (steps + updates if speeds.together else max(steps, updates))


class Estimates:
    """Seconds that runs take: as those took that have ended, else by given speeds.

    Args:
        cells: Runs of an experiment, some of which may have ended.
        speeds: What is known without records; None for nothing.
    """

    def __init__(self, cells: Sequence[Cell], speeds: Speeds | None) -> None:
        self._speeds = speeds
        self._seconds: dict[RunKey, float] = {}
        for cell in cells:
            if cell.done and cell.run and cell.run.started_at and cell.run.finished_at:
                self._seconds[cell.key] = (cell.run.finished_at - cell.run.started_at).total_seconds()
        self._modelled = {cell.key: Work.of(cell.planned.spec).seconds(speeds) for cell in cells} if speeds else {}

    def seconds(self, cell: Cell) -> float | None:
        """Of a whole run; None if nothing tells."""
        alike = [
            seconds
            for key, seconds in self._seconds.items()
            if (key.experiment, key.variant) == (cell.key.experiment, cell.key.variant)
            and cell.key.task in ("", key.task)
        ]
        if alike:
            return sum(alike) / len(alike)
        if cell.key in self._modelled:
            ratio = (
                sum(self._seconds.values()) / sum(self._modelled[key] for key in self._seconds) if self._seconds else 1
            )
            return ratio * self._modelled[cell.key]
        return sum(self._seconds.values()) / len(self._seconds) if self._seconds else None

    def seconds_left(self, cell: Cell) -> float | None:
        """Until a run has ended: 0 for one that has."""
        if cell.run is None or not cell.living:
            return self.seconds(cell) if cell.run is None else 0.0
        if cell.run.progress.eta_s is not None:
            return cell.run.progress.eta_s
        return self.seconds(cell)
