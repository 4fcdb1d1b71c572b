"""Submits what an experiment lacks, and waits; whatever dies, it goes on where it was.

Nothing is kept here: which runs there are is read from the learner before each submission, by the labels of the runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from newt.cli.rest import Api, RefusedError
from newt.errors import NotFoundError, PreconditionError, UnavailableError
from newt.runs.evaluations import EvaluationJob, EvaluationJobList
from newt.runs.expansion import EXPERIMENT, Experiment
from newt.runs.record import Run, RunList
from newt.runs.standing import Cell, EvaluationCell, Standing, match, match_evaluations
from newt.runs.stored import read

# How long a learner may be away.
PATIENCE_S = 1800.0


class Runner:
    """Brings an experiment to its end.

    Args:
        api: The learner.
        experiment: What to run.
        seeds: Which seeds.
        variants: Which variants; None for all.
        active: Runs that may be queued or at work at one time.
        resume: Whether failed and cancelled runs are resumed, each once.

    Attributes:
        refused: What the learner did not start, and why: a simulator that it does not have, a set that is not there.
    """

    def __init__(
        self,
        api: Api,
        experiment: Experiment,
        seeds: Sequence[int],
        variants: Sequence[str] | None = None,
        active: int = 1,
        resume: bool = False,
    ) -> None:
        self._api, self._experiment, self._active = api, experiment, active
        self._planned = experiment.runs(seeds, variants)
        for planned in self._planned:
            planned.spec  # noqa: B018 - says what is wrong before anything is started
        self._resume = resume
        self._resumed: set[str] = set()
        self.refused: dict[str, str] = {}

    def look(self) -> Standing:
        """What there is now."""
        runs: list[Run] = []
        for name in dict.fromkeys(planned.key.experiment for planned in self._planned):
            reply = self._api.get("/runs", label=f"{EXPERIMENT}={name}")
            runs += read(RunList, reply).runs
        cells = match(self._planned, runs)
        jobs: list[EvaluationJob] = []
        if self._experiment.file.evaluations and any(cell.done for cell in cells):
            jobs = read(EvaluationJobList, self._api.get("/evaluations")).evaluations
        return Standing(cells, match_evaluations(self._experiment, cells, jobs))

    def advance(self, standing: Standing) -> list[str]:
        """Starts what may start now; returns what was done, in words."""
        done: list[str] = []
        room = self._active - sum(cell.living for cell in standing.cells)
        for cell in (*self._resumable(standing), *self._startable(standing)):
            if room > 0 and (said := self._try(str(cell.key), partial(self._start, standing, cell))):
                done.append(said)
                room -= 1
        room = self._active - sum(item.state == "running" for item in standing.evaluations)
        for item in self._missing(standing):
            if room > 0 and (said := self._try(str(item), partial(self._evaluate, item))):
                done.append(said)
                room -= 1
        return done

    def over(self, standing: Standing) -> bool:
        """Whether nothing is at work, and nothing can be started."""
        at_work = [cell for cell in standing.cells if cell.living]
        evaluating = [item for item in standing.evaluations if item.state == "running"]
        return not (
            at_work or evaluating or self._startable(standing) or self._resumable(standing) or self._missing(standing)
        )

    def follow(self, every_s: float) -> Iterator[tuple[Standing, list[str]]]:
        """Looks and starts until it is over; yields what there is and what was done each time.

        Raises:
            UnavailableError: The learner has been away for half an hour.
        """
        away_since: float | None = None
        while True:
            try:
                standing = self.look()
                done = self.advance(standing)
                away_since = None
            except UnavailableError as error:
                # A submission may have arrived all the same: the next look tells.
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE_S:
                    raise
                yield Standing([]), [f"waiting: {error}"]
            else:
                yield standing, done
                if not done and self.over(standing):
                    return
            time.sleep(every_s)

    def _resumable(self, standing: Standing) -> list[Cell]:
        if not self._resume:
            return []
        ended = [cell for cell in standing.cells if cell.run and cell.state in ("failed", "cancelled")]
        return [cell for cell in ended if cell.run and cell.run.id not in self._resumed]

    def _startable(self, standing: Standing) -> list[Cell]:
        return [cell for cell in standing.startable() if str(cell.key) not in self.refused]

    def _missing(self, standing: Standing) -> list[EvaluationCell]:
        return [item for item in standing.evaluations if item.job is None and str(item) not in self.refused]

    def _try(self, what: str, start: Callable[[], str]) -> str:
        """What was started, in words; empty if the learner refuses, which costs nothing but this."""
        try:
            return start()
        except (RefusedError, NotFoundError) as error:
            self.refused[what] = str(error)
            return ""

    def _start(self, standing: Standing, cell: Cell) -> str:
        if cell.run is not None:
            self._resumed.add(cell.run.id)
            self._api.post(f"/runs/{cell.run.id}/resume")
            return f"resumed {cell.run.id} ({cell.key})"
        start = standing.cell(cell.planned.starts_from) if cell.planned.starts_from else None
        request = cell.planned.request(start.run.id) if start and start.run else cell.planned.request()
        return f"started {read(Run, self._api.post('/runs', request)).id} ({cell.key})"

    def _evaluate(self, item: EvaluationCell) -> str:
        assert item.cell.run is not None
        body = item.request.model_dump(mode="json", exclude_unset=True)
        job = read(EvaluationJob, self._api.post(f"/runs/{item.cell.run.id}/evaluate", body))
        return f"started evaluation {job.id} ({item})"


@contextmanager
def alone(url: str, home: Path) -> Iterator[None]:
    """Keeps a second one on this machine from submitting the same runs.

    Args:
        url: The learner's URL.
        home: Folder for the lock.

    Raises:
        PreconditionError: Another one is at work.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"experiments-{hashlib.sha256(url.encode()).hexdigest()[:12]}.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise PreconditionError(
                f"`newt experiment run` is at work already on {url} (process {lock.read().strip() or 'unknown'}); "
                "`newt experiment status` shows how far it is"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
