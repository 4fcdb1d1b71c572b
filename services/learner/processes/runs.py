"""Runs: queued until there is room, then processes for each, restarted, stopped and resumed."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import structlog

from newt.runs.base import now
from newt.runs.record import Run, RunState
from services.learner import metrics
from services.learner.checkpoints.folder import CheckpointFolder
from services.learner.processes.jobs import JobKeeper, Phase
from services.learner.processes.needed_sims import needed_domains, needed_hosts
from services.learner.processes.node_sets import NodeSets
from services.learner.records.broken import BrokenRecordError
from services.learner.records.runs import BLOCKED, TRAINERS_LIFE
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings

MODULES = {
    "trainer": "services.learner.training.trainer",
    "collector": "services.learner.collecting.collector",
    "learning": "services.learner.direct.learning",
}
TWO_PROCESSES = ("trainer", "collector")
ONE_PROCESS = ("learning",)
RATES_EVERY_S = 2.0

log = structlog.get_logger(__name__)


class RunKeeper(JobKeeper):
    """Keeps the processes of runs; a run that is active when the learner stops goes on with the next one.

    Args:
        records: The records, runs among them.
        settings: Settings of the learner; the children inherit them.
        on_ended: Called with the id of a run that has ended, when its processes are gone.
    """

    kind = "run"
    roles = TWO_PROCESSES

    def __init__(
        self,
        records: Records,
        settings: LearnerSettings,
        on_ended: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        super().__init__(
            settings,
            limit=settings.max_concurrent_runs,
            grace_s=settings.stop_grace_s,
            restarts=settings.max_restarts,
            window_s=settings.restart_window_s,
        )
        self._records, self._runs, self._history = records, records.runs, records.history
        self._on_ended = on_ended
        self._nodes: NodeSets | None = None
        if settings.node_template:
            self._nodes = NodeSets(settings, lambda: self._runs.states(unfinished=True), self.wake, self._lost)
        self._shown = 0.0

    def start(self) -> None:
        """Begins, with the runs, and their nodes, that an earlier learner left."""
        super().start()
        if self._nodes is not None:
            self._nodes.start()

    def stop(self) -> None:
        """Stops all processes; nodes wait for the next learner."""
        if self._nodes is not None:
            self._nodes.stop()
        super().stop()

    def open_jobs(self) -> dict[str, Phase]:
        """Phases of the runs that have not ended."""
        return {run_id: _phase(state) for run_id, state in self._runs.states(unfinished=True).items()}

    def phase(self, job_id: str) -> Phase:
        """The present phase of a run; one whose state is none has ended."""
        state = self._runs.field(job_id, "state")
        return _phase(RunState(state)) if state in list(RunState) else Phase.ENDED

    def begin(self, job_id: str) -> int | None:
        """Claims a run for new processes."""
        left = self._runs.measured(job_id)
        attempt = self._runs.begin(job_id)
        if attempt is not None:
            metrics.MEASURED.begin(job_id, left)
        return attempt

    def roles_of(self, job_id: str) -> tuple[str, ...]:
        """One process for an algorithm that learns where the simulators are stepped, else trainer and collector."""
        return ONE_PROCESS if self._runs.get(job_id).spec.model_free() else TWO_PROCESSES

    def waits_for(self, job_id: str, role: str) -> str | None:
        """The further nodes, without which trainers would wait in vain and crash."""
        if self._nodes is None or role != "trainer":
            return None
        nodes = self._runs.get(job_id).spec.resources.nodes
        return self._nodes.waits_for(job_id, nodes - 1) if nodes > 1 else None

    def _lost(self, job_id: str, reason: str) -> None:
        """Ends a run for which no more nodes are made."""
        self._runs.fail(job_id, reason)
        self.wake()

    def request_id(self, job_id: str) -> str | None:
        """The request that started a run, or resumed it last."""
        return self._runs.field(job_id, "request_id") or None

    def log_path(self, job_id: str, role: str) -> Path:
        """Log of a process."""
        return self._settings.folder.run_log(job_id, role)

    def command(self, job_id: str, attempt: int, role: str) -> list[str]:
        """The trainer, or what starts several of them; the collector."""
        arguments = ["--job", job_id, "--attempt", str(attempt)]
        resources = self._runs.get(job_id).spec.resources
        if role == "trainer" and resources.processes > 1:
            life = uuid.uuid4().hex
            self._runs.write(job_id, {TRAINERS_LIFE: life})
            own = ["--processes", str(resources.processes), "--nodes", str(resources.nodes), "--life", life]
            return ["services.learner.training.ranks", *own, *arguments]
        return [MODULES[role], *arguments]

    def fail(self, job_id: str, attempt: int, error: str) -> None:
        """Marks a run as failed."""
        self._runs.fail(job_id, error, attempt=attempt)

    def blocked(self, job_id: str, reason: str) -> None:
        """Says what the run waits for."""
        self._runs.write(job_id, {BLOCKED: reason})

    def restarted(self, job_id: str, role: str, cause: str) -> None:
        """Counts a restart."""
        metrics.RESTARTS.labels(role).inc()
        self._runs.count_restart(job_id, cause)

    def settle(self, job_id: str) -> None:
        """Takes the run's model from the planners."""
        try:
            metrics.MEASURED.add(job_id, self._runs.measured(job_id))
            if self._runs.diverged(job_id):
                metrics.DIVERGED.inc()
        except BrokenRecordError as error:
            log.warning("progress_unreadable", run=job_id, error=str(error))
        self._on_ended(job_id)
        metrics.MEASURED.end(job_id)

    def repair(self) -> None:
        """Finds the runs that have not ended."""
        self._runs.repair()

    def audit(self) -> None:
        """Reads all records."""
        self._runs.list_all()

    def looked(self, *, woken: bool) -> None:
        """Shows counts when something may have changed, and rates now and then."""
        if woken:
            metrics.show_states(self._runs.states().values())
        if time.monotonic() - self._shown > RATES_EVERY_S:
            self._shown = time.monotonic()
            unfinished = self._runs.list_unfinished().records
            active = [run for run in unfinished if run.id in self._held]
            last = [self._history.last_evaluation(run.id) for run in active]
            domains = {task.name: task.domain for run in active for task in run.spec.task_list()}
            found = [evaluation for evaluation in last if evaluation is not None]
            metrics.show_progress([run.progress for run in active], found, domains)
            for run in active:
                metrics.MEASURED.add(run.id, self._runs.measured(run.id))
            metrics.show_needed(needed_hosts(needed_domains(unfinished, self._records), self._settings.sims))
            with contextlib.suppress(OSError):  # a folder that is away is told by what writes there
                volume = shutil.disk_usage(self._settings.data_dir)
                metrics.DATA_USED.set(1 - volume.free / volume.total)
                metrics.CHECKPOINT_AGE.set(max((self._unsaved_s(run) for run in active), default=0.0))

    def _unsaved_s(self, run: Run) -> float:
        """Seconds of a run's work that no checkpoint has."""
        saved = CheckpointFolder(self._settings.folder.run(run.id)).saved_at() or run.started_at or run.created_at
        return (now() - saved).total_seconds()


def _phase(state: RunState) -> Phase:
    if state.active:
        return Phase.ACTIVE
    return Phase.QUEUED if state is RunState.QUEUED else Phase.ENDED
