"""Garbage in any record of the learner, generated: it is shown with its reason, can be deleted, and stops nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learner_stack import wait_until

from newt.errors import InvalidInputError, NotFoundError
from newt.local import redis_server
from newt.runs.demos import DemoCollection, ScriptedDemosRequest
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.migrations import FIELD
from newt.runs.record import EpisodeStats, Evaluation, RunState
from newt.runs.spec import RunSpec
from services.learner.processes.runs import RunKeeper
from services.learner.processes.sim_containers import needed_services
from services.learner.records import keys
from services.learner.records.broken import BrokenRecordError, Listing
from services.learner.records.runs import new_id
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings

pytestmark = pytest.mark.timeout(120)

TASK = "mujoco-reacher"
SPEC = RunSpec.model_validate({"tasks": [TASK], "preset": "laptop"})
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
EVALUATION = EvaluationJob(
    id="good",
    state="running",
    request=CheckpointEvaluationRequest(checkpoint="imported/x", tasks=[TASK]),
    checkpoint_sha256="0",
    created_at=CREATED,
)
DEMOS = DemoCollection(
    name="good",
    state="collecting",
    source="scripted",
    request=ScriptedDemosRequest(name="good", tasks=[TASK]),
    tasks=[TASK],
    created_at=CREATED,
)
FIELDS = (
    "state", "attempt", "spec", "tasks", "created_at", "started_at", "directory", "trainer", "collector", "restarts",
    "weights_version",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    JSON.map(lambda value: json.dumps(value).encode("utf-8", "replace")),
    st.sampled_from([b"[" * 100_000, b"9" * 5000, b"1e999", b'"' + b"x" * 2_000_000 + b'"', b"NaN", b"0001-01-01"]),
)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Records, Any]]:
    """Records, and the bare client beside them that writes garbage."""
    server = redis_server.start(tmp_path_factory.mktemp("redis"))
    yield Records.connect(server.url), redis.Redis.from_url(server.url)
    server.stop()


def looked_at(records: Records) -> None:
    """All that loops do with records."""
    records.runs.repair()
    records.runs.states()
    records.runs.list_unfinished()
    needed_services(records)
    for store in (records.evaluations, records.demos):
        store.repair()
        store.list_open()


def told(listing: Listing[Any], record_id: str) -> bool:
    """Whether a record is shown, whole or broken; a broken one with its reason and the way out."""
    for broken in listing.broken:
        assert len(broken.error) < 1000
        assert f"DELETE /{'runs' if broken.kind == 'run' else ''}" in broken.error
    whole = [getattr(record, "id", None) or getattr(record, "name", None) for record in listing.records]
    return record_id in whole or record_id in [broken.id for broken in listing.broken]


@MANY
@given(field=st.sampled_from(FIELDS), garbage=GARBAGE, absent=st.booleans())
def test_a_broken_run_stands_alone(own: tuple[Records, Any], field: str, garbage: bytes, absent: bool) -> None:
    records, client = own
    good = records.runs.create(new_id(SPEC), SPEC, Path("/data")).id
    bad = records.runs.create("bad", SPEC, Path("/data")).id
    client.hset(keys.run(bad), field, garbage)
    if absent:
        client.hdel(keys.run(bad), field)
    try:
        looked_at(records)
        listing = records.runs.list_all()
        assert good in [run.id for run in listing.records]
        assert told(listing, bad)
        if bad in [broken.id for broken in listing.broken]:
            assert bad in [broken.id for broken in records.broken.all()]
            with pytest.raises(BrokenRecordError, match="cannot be read"):
                records.runs.get(bad)
        for run in listing.records:  # what passes for whole can be answered with
            run.model_dump_json()
        assert records.runs.begin(good) == 1
    finally:
        records.runs.delete(bad)
        records.runs.delete(good)
    with pytest.raises(NotFoundError):
        records.runs.get(bad)
    assert not records.broken.all()


def test_a_run_of_another_type_stands_alone(own: tuple[Records, Any]) -> None:
    records, client = own
    bad = records.runs.create("bad", SPEC, Path("/data")).id
    for place in (keys.run(bad), *(keys.part(bad, name) for name in keys.PARTS)):
        client.delete(place)
        client.set(place, "a string")
    client.zadd(keys.RUNS, {"gone": 0, b"\xff\x00": 0})
    looked_at(records)
    assert {broken.id for broken in records.runs.list_all().broken} >= {bad, "gone"}
    for run_id in (bad, "gone", "\\xff\x00"):
        records.runs.delete(run_id)
    client.delete(keys.RUNS)


@MANY
@given(garbage=GARBAGE)
def test_a_broken_job_stands_alone(own: tuple[Records, Any], garbage: bytes) -> None:
    records, client = own
    for store, key, job in (
        (records.evaluations, keys.EVALUATIONS, EVALUATION),
        (records.demos, keys.DEMOS, DEMOS),
    ):
        store.put(job)  # type: ignore[arg-type]
        client.hset(key, "bad", garbage)
        client.sadd(keys.open_jobs(key), "bad")
        looked_at(records)
        listing = store.list_all()
        assert [record.job_id for record in listing.records] == ["good"]
        assert [broken.id for broken in listing.broken] == ["bad"]
        assert [broken.id for broken in records.broken.all()] == ["bad"]
        with pytest.raises(BrokenRecordError):
            store.get("bad")
        assert store.delete("bad")
        assert not records.broken.all()
        store.delete("good")


@MANY
@given(garbage=GARBAGE)
def test_broken_history_hides_nothing(own: tuple[Records, Any], garbage: bytes) -> None:
    records, client = own
    run_id, history = records.runs.create("storied", SPEC, Path("/data")).id, records.history
    attempt = records.runs.begin(run_id)
    assert attempt is not None
    client.xadd(keys.part(run_id, "events"), {"event": garbage})
    client.xadd(keys.part(run_id, "metrics"), {"values": garbage, "source": "trainer", "env_steps": 1, "updates": 1})
    client.rpush(keys.part(run_id, "evaluations"), garbage)
    history.add_metrics(run_id, {"source": "trainer", "env_steps": 1, "updates": 1, "values": '{"loss": 1}'})
    stats = EpisodeStats(score=0.5, return_=3, success=None, length=10, episodes=1)
    evaluation = Evaluation(kind="final", mode="planner", env_steps=1, tasks={TASK: stats})
    records.runs.add_evaluation(run_id, attempt, evaluation)
    try:
        events = history.events(run_id)
        assert [event.kind for event in events] == ["state", "state", "warning", "evaluation"]
        assert "cannot be read" in events[2].message
        assert {"loss": 1.0} in [row.values for row in history.metrics(run_id)]
        assert [found.kind for found in history.evaluations(run_id)] == ["final"]
        assert history.count_evaluations(run_id) == 2
        assert history.last_evaluation(run_id) == evaluation
    finally:
        records.runs.delete(run_id)


@pytest.mark.parametrize(
    ("name", "value"), [("publish_every_s", math.inf), ("publish_every_s", math.nan), ("total_env_steps", 10**401)]
)
def test_what_would_not_read_back_is_not_stored(own: tuple[Records, Any], name: str, value: float) -> None:
    """Checks of the settings, which this goes round, may forget one."""
    records, _ = own
    schedule = SPEC.schedule.model_copy(update={name: value})
    with pytest.raises(InvalidInputError, match=r"schedule|spec"):
        records.runs.create("odd", SPEC.model_copy(update={"schedule": schedule}), Path("/data"))
    with pytest.raises(NotFoundError):
        records.runs.get("odd")


def test_records_of_an_older_learner_are_found_and_keep_their_tasks(own: tuple[Records, Any]) -> None:
    """It kept no list of unfinished runs, and stored globs beside what they stood for, and no number."""
    records, client = own
    run_id = records.runs.create("older", SPEC, Path("/data")).id
    globs = {**json.loads(SPEC.model_dump_json()), "tasks": ["mujoco-*"]}
    client.hset(keys.run(run_id), "spec", json.dumps(globs))
    client.hdel(keys.run(run_id), FIELD)
    client.delete(keys.UNFINISHED)
    assert not records.runs.list_unfinished().records
    records.runs.repair()
    (run,) = records.runs.list_unfinished().records
    assert (run.spec.tasks, run.tasks) == ([TASK], [TASK])
    records.runs.delete(run_id)


def test_a_run_that_cannot_start_says_why_and_keeps_no_other_from_starting(
    own: tuple[Records, Any], tmp_path: Path
) -> None:
    records, client = own
    (tmp_path / "runs").mkdir()
    blocked = records.runs.create("blocked", SPEC, tmp_path).id
    (tmp_path / "runs" / blocked).write_text("a file where its folder should be")
    poisoned = records.runs.create("poisoned", SPEC, tmp_path).id
    client.hset(keys.run(poisoned), "spec", "{}")
    other = records.runs.create("other", SPEC, tmp_path).id
    keeper = RunKeeper(records, LearnerSettings(data_dir=tmp_path, sims={"mujoco": "127.0.0.1:9"}, stop_grace_s=1.0))
    keeper.start()
    try:
        wait_until(lambda: len(keeper.pids(other)) == 2, "the other run starts")
        run = records.runs.get(blocked)
        assert run.state is RunState.QUEUED
        assert "cannot go on" in (run.progress.waiting_on or "")
        assert str(tmp_path / "runs" / blocked) in (run.progress.waiting_on or "")
        wait_until(lambda: [broken.id for broken in records.broken.all()] == [poisoned], "the broken one is known")
        records.runs.cancel(other)
        keeper.wake()
        wait_until(lambda: not keeper.pids(other), "room")
        (tmp_path / "runs" / blocked).unlink()
        wait_until(lambda: len(keeper.pids(blocked)) == 2, "what was in the way is gone")
        assert records.runs.get(blocked).progress.waiting_on in (None, "")
        records.runs.cancel(blocked)
    finally:
        keeper.stop()
        for run_id in (blocked, poisoned, other):
            records.runs.delete(run_id)
