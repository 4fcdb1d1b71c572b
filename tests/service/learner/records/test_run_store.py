from __future__ import annotations

import math
from pathlib import Path

import pytest
import redis

from newt.errors import NotFoundError, PreconditionError, UnavailableError
from newt.local import redis_server
from newt.runs.record import EpisodeStats, Evaluation, RunState
from newt.runs.spec import RunSpec
from services.learner.records.jobs import SupersededError
from services.learner.records.progress import CollectorProgress, TrainerProgress
from services.learner.records.runs import new_id
from services.learner.records.store import Records
from services.learner.records.writer import RunWriter

SPEC = RunSpec.model_validate({"tasks": ["mw-reach", "walker-walk"], "name": "My first run"})


@pytest.fixture
def run_id(records: Records) -> str:
    return records.runs.create(new_id(SPEC), SPEC, Path("/data/my")).id


def _begin(records: Records, run_id: str) -> RunWriter:
    attempt = records.runs.begin(run_id)
    assert attempt is not None
    return RunWriter(records, run_id, attempt)


def _evaluation(kind: str) -> Evaluation:
    stats = EpisodeStats(score=0.5, return_=3, success=None, length=10, episodes=1)
    values = {"kind": kind, "mode": "planner", "env_steps": 1, "tasks": {"mw-reach": stats}}
    return Evaluation.model_validate(values)


def test_a_new_run_is_queued_with_its_settings(records: Records, run_id: str) -> None:
    run = records.runs.get(run_id)
    assert run_id.startswith("my-first-run-")
    assert (run.state, run.attempt, run.error, run.spec) == (RunState.QUEUED, 0, None, SPEC)
    assert run.tasks == ["mw-reach", "walker-walk"]
    assert run.directory == "/data/my"
    assert records.runs.states()[run_id] is RunState.QUEUED


def test_the_life_of_a_run(records: Records, run_id: str) -> None:
    writer = _begin(records, run_id)
    states = [records.runs.get(run_id).state]
    for state in (RunState.EVALUATING, RunState.TRAINING):
        assert writer.enter(state)
        states.append(records.runs.get(run_id).state)
    assert writer.succeed()
    run = records.runs.get(run_id)
    assert states == [RunState.PRETRAINING, RunState.EVALUATING, RunState.TRAINING]
    assert run.state is RunState.SUCCEEDED
    assert run.created_at <= (run.started_at or run.created_at) <= (run.finished_at or run.created_at)
    kinds = [event.data.get("state") for event in records.history.events(run_id) if event.kind == "state"]
    assert kinds == [None, "pretraining", "evaluating", "training", "succeeded"]


def test_a_late_writer_does_not_revive_a_cancelled_run(records: Records, run_id: str) -> None:
    writer = _begin(records, run_id)
    records.runs.cancel(run_id)
    assert not writer.enter(RunState.TRAINING)
    assert not writer.succeed()
    assert not writer.fail("too late")
    writer.progress("trainer", TrainerProgress(updates=7))  # telling is allowed
    run = records.runs.get(run_id)
    assert (run.state, run.error, run.progress.updates) == (RunState.CANCELLED, None, 7)


def test_a_newer_attempt_shuts_out_the_older(records: Records, run_id: str) -> None:
    old = _begin(records, run_id)
    assert old.next_weights_version() == 1
    new = _begin(records, run_id)
    for write in (
        lambda: old.progress("trainer", TrainerProgress()),
        lambda: old.published(9),
        lambda: old.enter(RunState.TRAINING),
        lambda: old.fail("no"),
        lambda: old.evaluation(_evaluation("random")),
        old.next_weights_version,
    ):
        with pytest.raises(SupersededError):
            write()
    assert records.history.evaluations(run_id) == []
    assert new.next_weights_version() == 2
    assert new.enter(RunState.TRAINING)


def test_only_ended_runs_resume_and_only_others_are_cancelled(records: Records, run_id: str) -> None:
    with pytest.raises(PreconditionError, match="queued"):
        records.runs.resume(run_id)
    records.runs.cancel(run_id)
    with pytest.raises(PreconditionError, match="cancelled"):
        records.runs.cancel(run_id)
    assert records.runs.begin(run_id) is None
    records.runs.resume(run_id)
    run = records.runs.get(run_id)
    assert (run.state, run.finished_at) == (RunState.QUEUED, None)


def test_a_failure_tells_its_cause_until_the_run_resumes(records: Records, run_id: str) -> None:
    assert _begin(records, run_id).fail("the disk is full")
    assert records.runs.get(run_id).error == "the disk is full"
    records.runs.resume(run_id)
    assert records.runs.get(run_id).error is None


def test_unknown_runs_are_not_found(records: Records) -> None:
    for call in (records.runs.get, records.runs.cancel, records.runs.resume, records.runs.begin):
        with pytest.raises(NotFoundError, match="run-x"):
            call("run-x")
    with pytest.raises(NotFoundError, match="job"):
        records.evaluations.get("job")


def test_both_processes_write_beside_each_other(records: Records, run_id: str) -> None:
    writer = _begin(records, run_id)
    writer.progress("trainer", TrainerProgress(stage="training", updates=5))
    writer.progress("collector", CollectorProgress(stage="collecting", env_steps=70))
    writer.published(3)
    progress = records.runs.get(run_id).progress
    assert (progress.updates, progress.env_steps, progress.weights_version) == (5, 70, 3)


def test_metrics_can_be_filtered_and_read_on(records: Records, run_id: str) -> None:
    writer = _begin(records, run_id)
    for i in range(5):
        writer.metrics("trainer", i, 10 * i, {"loss": i / 2, "bad": math.nan})
    writer.metrics("collector", 5, 50, {"score/mw-reach": 0.5})
    rows = records.history.metrics(run_id)
    assert [row.values for row in rows[:2]] == [{"loss": 0.0}, {"loss": 0.5}]
    assert [row.updates for row in records.history.metrics(run_id, source="trainer")] == [0, 10, 20, 30, 40]
    assert [row.source for row in records.history.metrics(run_id, names={"score/mw-reach"})] == ["collector"]
    first = records.history.metrics(run_id, limit=2)
    rest = records.history.metrics(run_id, after=first[-1].id)
    assert [row.id for row in first + rest] == [row.id for row in rows]


def test_evaluations_are_kept_in_order(records: Records, run_id: str) -> None:
    writer = _begin(records, run_id)
    for kind in ("random", "final"):
        evaluation = _evaluation(kind)
        writer.evaluation(evaluation)
        writer.evaluation(evaluation)  # as after a lost answer
    assert [evaluation.kind for evaluation in records.history.evaluations(run_id)] == ["random", "final"]
    assert records.history.evaluations(run_id)[0].tasks["mw-reach"].return_ == 3
    told = [event.message for event in records.history.events(run_id) if event.kind == "evaluation"]
    assert told == ["random: mean score 0.500", "final: mean score 0.500"]


def test_records_survive_redis_and_its_absence_is_named(tmp_path: Path) -> None:
    server = redis_server.start(tmp_path / "redis")
    records = Records.connect(server.url)
    run_id = records.runs.create("stored", SPEC, tmp_path).id
    server.stop()
    with pytest.raises(UnavailableError, match="Redis with the run records cannot be reached"):
        records.runs.get(run_id)
    server = redis_server.start(tmp_path / "redis", server.port)
    try:
        assert records.runs.get(run_id).spec == SPEC
    finally:
        server.stop()


def test_a_full_redis_is_a_redis_that_is_away(tmp_path: Path) -> None:
    """Who reports progress goes on when there is room again; scripts meet the limit under another class of errors."""
    server = redis_server.start(tmp_path / "redis")
    try:
        records = Records.connect(server.url)
        run_id = records.runs.create(new_id(SPEC), SPEC, Path("/data")).id
        writer = _begin(records, run_id)
        admin = redis.Redis.from_url(server.url)
        admin.config_set("maxmemory", "100kb")
        writes = (
            lambda: writer.event("progress", "on we go"),
            lambda: writer.enter(RunState.TRAINING),
            lambda: records.runs.create(new_id(SPEC), SPEC, Path("/data")),
        )
        for write in writes:
            with pytest.raises(UnavailableError, match=r"is full \(maxmemory\)"):
                write()
        assert records.runs.get(run_id).state is RunState.PRETRAINING
        admin.config_set("maxmemory", "0")
        assert writer.enter(RunState.TRAINING)
    finally:
        server.stop()
