from __future__ import annotations

import math
from pathlib import Path

import pytest

from newt.errors import NotFoundError, PreconditionError, UnavailableError
from newt.local import redis_server
from newt.runs.record import EpisodeStats, Evaluation, RunState
from newt.runs.spec import RunSpec
from services.learner.progress import CollectorProgress, TrainerProgress
from services.learner.store import RunStore, SupersededError
from services.learner.writer import RunWriter

SPEC = RunSpec.model_validate({"tasks": ["mw-reach", "walker-walk"], "name": "My first run"})


@pytest.fixture
def run_id(store: RunStore) -> str:
    return store.create(SPEC, lambda run_id: Path("/data") / run_id).id


def _begin(store: RunStore, run_id: str) -> RunWriter:
    attempt = store.begin(run_id)
    assert attempt is not None
    return RunWriter(store, run_id, attempt)


def _evaluation(kind: str) -> Evaluation:
    stats = EpisodeStats(score=0.5, return_=3, success=None, length=10, episodes=1)
    values = {"kind": kind, "mode": "planner", "env_steps": 1, "tasks": {"mw-reach": stats}}
    return Evaluation.model_validate(values)


def test_a_new_run_is_queued_with_its_settings(store: RunStore, run_id: str) -> None:
    run = RunStore.get(store, run_id)
    assert run_id.startswith("my-first-run-")
    assert (run.state, run.attempt, run.error, run.spec) == (RunState.QUEUED, 0, None, SPEC)
    assert run.tasks == ["mw-reach", "walker-walk"]
    assert run.directory == f"/data/{run_id}"
    assert store.states()[run_id] is RunState.QUEUED


def test_the_life_of_a_run(store: RunStore, run_id: str) -> None:
    writer = _begin(store, run_id)
    states = [store.get(run_id).state]
    for state in (RunState.EVALUATING, RunState.TRAINING):
        assert writer.enter(state)
        states.append(store.get(run_id).state)
    assert writer.succeed()
    run = store.get(run_id)
    assert states == [RunState.PRETRAINING, RunState.EVALUATING, RunState.TRAINING]
    assert run.state is RunState.SUCCEEDED
    assert run.created_at <= (run.started_at or run.created_at) <= (run.finished_at or run.created_at)
    kinds = [event.data.get("state") for event in store.events(run_id) if event.kind == "state"]
    assert kinds == [None, "pretraining", "evaluating", "training", "succeeded"]


def test_a_late_writer_does_not_revive_a_cancelled_run(store: RunStore, run_id: str) -> None:
    writer = _begin(store, run_id)
    store.cancel(run_id)
    assert not writer.enter(RunState.TRAINING)
    assert not writer.succeed()
    assert not writer.fail("too late")
    writer.progress("trainer", TrainerProgress(updates=7))  # telling is allowed
    run = store.get(run_id)
    assert (run.state, run.error, run.progress.updates) == (RunState.CANCELLED, None, 7)


def test_a_newer_attempt_shuts_out_the_older(store: RunStore, run_id: str) -> None:
    old = _begin(store, run_id)
    assert old.next_weights_version() == 1
    new = _begin(store, run_id)
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
    assert store.evaluations(run_id) == []
    assert new.next_weights_version() == 2
    assert new.enter(RunState.TRAINING)


def test_only_ended_runs_resume_and_only_others_are_cancelled(store: RunStore, run_id: str) -> None:
    with pytest.raises(PreconditionError, match="queued"):
        store.resume(run_id)
    store.cancel(run_id)
    with pytest.raises(PreconditionError, match="cancelled"):
        store.cancel(run_id)
    assert store.begin(run_id) is None
    store.resume(run_id)
    run = store.get(run_id)
    assert (run.state, run.finished_at) == (RunState.QUEUED, None)


def test_a_failure_tells_its_cause_until_the_run_resumes(store: RunStore, run_id: str) -> None:
    assert _begin(store, run_id).fail("the disk is full")
    assert store.get(run_id).error == "the disk is full"
    store.resume(run_id)
    assert store.get(run_id).error is None


def test_unknown_runs_are_not_found(store: RunStore) -> None:
    for call in (store.get, store.cancel, store.resume, store.begin):
        with pytest.raises(NotFoundError, match="run-x"):
            call("run-x")
    with pytest.raises(NotFoundError, match="job"):
        store.job("job")


def test_both_processes_write_beside_each_other(store: RunStore, run_id: str) -> None:
    writer = _begin(store, run_id)
    writer.progress("trainer", TrainerProgress(stage="training", updates=5))
    writer.progress("collector", CollectorProgress(stage="collecting", env_steps=70))
    writer.published(3)
    progress = store.get(run_id).progress
    assert (progress.updates, progress.env_steps, progress.weights_version) == (5, 70, 3)


def test_metrics_can_be_filtered_and_read_on(store: RunStore, run_id: str) -> None:
    writer = _begin(store, run_id)
    for i in range(5):
        writer.metrics("trainer", i, 10 * i, {"loss": i / 2, "bad": math.nan})
    writer.metrics("collector", 5, 50, {"score/mw-reach": 0.5})
    rows = store.metrics(run_id)
    assert [row.values for row in rows[:2]] == [{"loss": 0.0}, {"loss": 0.5}]
    assert [row.updates for row in store.metrics(run_id, source="trainer")] == [0, 10, 20, 30, 40]
    assert [row.source for row in store.metrics(run_id, names={"score/mw-reach"})] == ["collector"]
    first = store.metrics(run_id, limit=2)
    rest = store.metrics(run_id, after=first[-1].id)
    assert [row.id for row in first + rest] == [row.id for row in rows]


def test_evaluations_are_kept_in_order(store: RunStore, run_id: str) -> None:
    writer = _begin(store, run_id)
    for kind in ("random", "final"):
        evaluation = _evaluation(kind)
        writer.evaluation(evaluation)
        writer.evaluation(evaluation)  # as after a lost answer
    assert [evaluation.kind for evaluation in store.evaluations(run_id)] == ["random", "final"]
    assert store.evaluations(run_id)[0].tasks["mw-reach"].return_ == 3
    told = [event.message for event in store.events(run_id) if event.kind == "evaluation"]
    assert told == ["random: mean score 0.500", "final: mean score 0.500"]


def test_records_survive_redis_and_its_absence_is_named(tmp_path: Path) -> None:
    server = redis_server.start(tmp_path / "redis")
    store = RunStore.connect(server.url)
    run_id = store.create(SPEC, lambda run_id: tmp_path / run_id).id
    server.stop()
    with pytest.raises(UnavailableError, match="Redis with the run records does not answer"):
        store.get(run_id)
    server = redis_server.start(tmp_path / "redis", server.port)
    try:
        assert store.get(run_id).spec == SPEC
    finally:
        server.stop()
