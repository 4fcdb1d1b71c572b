"""How every child process of the learner starts, owns its record, notices that it must stop, and ends.

    python -m services.learner.training.trainer --job RUN --attempt N
    python -m services.learner.evaluating.evaluator --job ID --attempt N

Exit codes are those of services.learner.waiting. Redis may be away at the start: it is waited for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from newt import logs, spans, trace
from newt.errors import NewtError, NotFoundError
from newt.memory import return_large_blocks
from newt.runs.jobs import Job
from newt.runs.record import Run
from newt.security import redis_address
from services.learner.data_folder import DataFolder
from services.learner.records.jobs import JobStore, SupersededError
from services.learner.records.store import Records
from services.learner.records.writer import JobWriter, RunWriter, Writer
from services.learner.settings import LearnerSettings
from services.learner.waiting import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_PEER_LOST,
    EXIT_STOPPED,
    PeerGoneError,
    RunFailedError,
    StopFlag,
    Stopped,
    lock_file,
    patiently,
)

J = TypeVar("J", bound=Job)
W = TypeVar("W", bound=Writer[Any])

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Context:
    """What a run's process works with."""

    settings: LearnerSettings
    run: Run
    writer: RunWriter
    stop: StopFlag

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.settings.folder.run(self.run.id)


@dataclass(frozen=True)
class JobContext(Generic[J]):
    """What a job's process works with."""

    settings: LearnerSettings
    records: Records
    job: J
    writer: JobWriter[J]
    stop: StopFlag


def run_child(name: str, work: Callable[[Context], None], *, alone: bool = True) -> int:
    """Runs the body of a process of a run.

    An error that is not the run's fault ends the process, and the learner starts it again: only RunFailedError is
    written down as the end of the run.

    Args:
        name: Name of the process.
        work: Its body.
        alone: It must be the only process of its kind that works on the run.

    Returns:
        The exit status.
    """

    def body(settings: LearnerSettings, records: Records, run: Run, writer: RunWriter, stop: StopFlag) -> None:
        work(Context(settings, run, writer, stop))

    return _main(
        name,
        "run",
        body,
        writer=RunWriter,
        lock=(lambda folder, run_id: folder.run(run_id) / f"{name}.lock") if alone else None,
        ends=(RunFailedError,),
    )


def job_child(
    name: str,
    work: Callable[[JobContext[J]], dict[str, Any]],
    store: Callable[[Records], JobStore[J]],
    lock: Callable[[DataFolder, str], Path],
) -> int:
    """Runs the body of a job's process.

    Nobody starts it again, so every error that we know is written down as the end of the job.

    Args:
        name: Name of the process.
        work: Its body; returns the fields of the record that are the result.
        store: Store of the job's record.
        lock: The file that is locked while a process works on a job.

    Returns:
        The exit status.
    """

    def body(settings: LearnerSettings, records: Records, job: J, writer: JobWriter[J], stop: StopFlag) -> None:
        result = work(JobContext(settings, records, job, writer, stop))
        patiently(lambda: writer.succeed(**result), stop)

    def writer(records: Records, job_id: str, attempt: int) -> JobWriter[J]:
        return JobWriter(store(records), job_id, attempt)

    return _main(name, "job", body, writer=writer, lock=lock, ends=(RunFailedError, NewtError))


def _main(
    name: str,
    kind: str,
    body: Callable[[LearnerSettings, Records, Any, W, StopFlag], None],
    *,
    writer: Callable[[Records, str, int], W],
    lock: Callable[[DataFolder, str], Path] | None,
    ends: tuple[type[Exception], ...],
) -> int:
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--job", required=True)
    parser.add_argument("--attempt", required=True, type=int)
    arguments = parser.parse_args()
    settings = LearnerSettings()
    logs.configure(name, settings.log_level)
    spans.export(name)
    return_large_blocks()
    structlog.contextvars.bind_contextvars(**{kind: arguments.job}, attempt=arguments.attempt)
    stop = StopFlag()
    stop.watch()
    records = Records.connect(redis_address(settings.redis_url))
    own = writer(records, arguments.job, arguments.attempt)
    held = None
    try:
        record = patiently(own.get, stop)
        origin = record.origin()
        span = (
            spans.begin(f"{name} starts", "internal", origin, {"newt.attempt": arguments.attempt}) if origin else None
        )
        trace.follow_in_process(span.trace if span else origin)
        log.info("process_started")
        held = lock_file(lock(settings.folder, arguments.job), stop) if lock is not None else None
        if span is not None:
            span.end()  # all that follows is its child; a span of the whole life would be lost with a process that dies
        body(settings, records, record, own, stop)
    except (Stopped, SupersededError) as reason:
        log.info("process_stopped", reason=str(reason) or "asked to stop")
        return EXIT_STOPPED
    except PeerGoneError as error:
        if stop.is_set():  # so were the others, who ended first
            return EXIT_STOPPED
        log.error("peer_lost", error=str(error))
        return EXIT_PEER_LOST
    except ends as error:
        return _fail(own, str(error), stop)
    finally:
        if held is not None:
            held.close()
    return EXIT_DONE


def _fail(own: Writer[Any], cause: str, stop: StopFlag) -> int:
    log.error("work_failed", error=cause)
    try:
        patiently(lambda: own.fail(cause), stop)
    except (Stopped, SupersededError, NotFoundError) as reason:
        log.info("failure_not_recorded", reason=str(reason) or "asked to stop")
    return EXIT_FAILED
