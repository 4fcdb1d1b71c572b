"""How far an experiment is: its runs and evaluations beside the records that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from newt.runs.evaluations import EvaluationJob, RunEvaluationRequest
from newt.runs.expansion import Experiment, PlannedRun, RunKey, differing
from newt.runs.record import Run, RunState

# Which of several records of one run counts: the first of these that one of them has.
_PREFERRED = (
    RunState.SUCCEEDED,
    RunState.EVALUATING,
    RunState.TRAINING,
    RunState.PRETRAINING,
    RunState.QUEUED,
    RunState.CANCELLED,
    RunState.FAILED,
)


@dataclass(frozen=True)
class Cell:
    """A planned run with its record.

    Attributes:
        planned: The run.
        run: Its record; None while it is missing.
        others: More records of the same run, which do not count.
    """

    planned: PlannedRun
    run: Run | None = None
    others: tuple[Run, ...] = ()

    @property
    def key(self) -> RunKey:
        """Which run it is."""
        return self.planned.key

    @property
    def state(self) -> str:
        """State of the record, or `missing`."""
        return self.run.state.value if self.run else "missing"

    @property
    def done(self) -> bool:
        """Whether it has succeeded."""
        return self.run is not None and self.run.state is RunState.SUCCEEDED

    @property
    def living(self) -> bool:
        """Whether it is queued or at work."""
        return self.run is not None and not self.run.state.finished

    def changes(self) -> list[str]:
        """Settings in which the record differs from the plan: the experiment's file, or a default, has changed."""
        return differing(self.planned.spec, self.run.spec) if self.run else []


@dataclass(frozen=True)
class EvaluationCell:
    """A planned evaluation of a run that has succeeded, with its record.

    Attributes:
        name: Name of the evaluation.
        cell: The run.
        request: What is asked for.
        job: Its record; None while it is missing.
    """

    name: str
    cell: Cell
    request: RunEvaluationRequest
    job: EvaluationJob | None = None

    @property
    def state(self) -> str:
        """State of the record, or `missing`."""
        return self.job.state if self.job else "missing"

    def __str__(self) -> str:
        return f"{self.name} of {self.cell.key}"


@dataclass(frozen=True)
class Standing:
    """All of an experiment.

    Attributes:
        cells: The runs, in the order in which they are started.
        evaluations: The evaluations of those that have succeeded.
    """

    cells: list[Cell]
    evaluations: list[EvaluationCell] = field(default_factory=list)

    def cell(self, key: RunKey) -> Cell | None:
        """The run of a key."""
        return next((cell for cell in self.cells if cell.key == key), None)

    def startable(self) -> list[Cell]:
        """Missing runs whose start, if they are fine-tuned, has succeeded."""
        done = {cell.key for cell in self.cells if cell.done}
        missing = [cell for cell in self.cells if cell.run is None]
        return [cell for cell in missing if cell.planned.starts_from is None or cell.planned.starts_from in done]


def match(planned: Sequence[PlannedRun], runs: Iterable[Run]) -> list[Cell]:
    """Each planned run with its record. Runs that are being removed do not count."""
    found: dict[RunKey, list[Run]] = {}
    for run in runs:
        key = RunKey.of(run.spec)
        if key is not None and run.state is not RunState.DELETING:
            found.setdefault(key, []).append(run)
    cells = []
    for item in planned:
        records = sorted(found.get(item.key, ()), key=lambda run: (_PREFERRED.index(run.state), run.created_at))
        cells.append(Cell(item, records[0] if records else None, tuple(records[1:])))
    return cells


def match_evaluations(
    experiment: Experiment, cells: Sequence[Cell], jobs: Iterable[EvaluationJob]
) -> list[EvaluationCell]:
    """Each planned evaluation of the runs that have succeeded, with its record."""
    known = list(jobs)
    result = []
    for name, evaluation, request in experiment.evaluations():
        keys = {
            run.key
            for variant in evaluation.variants
            if variant in experiment.variants()
            for seed in {cell.key.seed for cell in cells}
            for run in experiment.runs_of(variant, seed)
        }
        for cell in cells:
            if cell.key in keys and cell.run is not None and cell.done:
                same = [job for job in known if _is_of(job, cell.run, request)]
                same.sort(key=lambda job: ("succeeded", "running", "failed").index(job.state))
                result.append(EvaluationCell(name, cell, request, same[0] if same else None))
    return result


def _is_of(job: EvaluationJob, run: Run, request: RunEvaluationRequest) -> bool:
    """Whether a job is this evaluation of this run: the request tells, which the job repeats with tasks by name."""
    if job.request.checkpoint.partition("/")[0] != run.id:
        return False
    left_out = {"checkpoint", "tasks"}
    if "mode" not in request.model_fields_set:  # as the agent was trained to act, which the learner fills in
        left_out.add("mode")
    if job.request.model_dump(exclude=left_out) != request.model_dump(exclude=left_out):
        return False
    return list(job.request.tasks or ()) == list(request.tasks or run.tasks)
