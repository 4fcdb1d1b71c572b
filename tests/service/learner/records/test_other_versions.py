"""Records of an earlier and of a later version: read, shown, written again, and none of them loses anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from earlier_version import restore

from newt.errors import LaterVersionError
from newt.local import redis_server
from newt.runs.demos import DemoCollection, ScriptedDemosRequest
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.migrations import FIELD, SCHEMA_VERSION
from newt.runs.record import EpisodeStats, Evaluation, RunChanges, RunState
from newt.runs.spec import RunSpec
from services.learner.records import keys
from services.learner.records.broken import BrokenRecordError
from services.learner.records.store import Records

pytestmark = pytest.mark.timeout(120)

TASK = "mujoco-reacher"
SPEC = RunSpec.model_validate({"tasks": [TASK], "preset": "laptop"})
LATER = SCHEMA_VERSION + 1
STATS = EpisodeStats(score=0.5, return_=3, success=None, length=10, episodes=1)
Client = Any


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Records, Client]]:
    """Records, and the bare client beside them."""
    server = redis_server.start(tmp_path / "redis")
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        yield Records.connect(server.url), client
    server.stop()


def url_of(client: Client) -> str:
    place = client.connection_pool.connection_kwargs
    return f"redis://{place['host']}:{place['port']}/{place.get('db', 0)}"


def collection(name: str) -> DemoCollection:
    return DemoCollection.model_validate(
        {
            "name": name,
            "state": "collecting",
            "source": "scripted",
            "request": ScriptedDemosRequest(name=name, tasks=[TASK]),
            "tasks": [TASK],
            "created_at": "2026-01-01T00:00:00Z",
        }
    )


def evaluation(job_id: str) -> EvaluationJob:
    return EvaluationJob.model_validate(
        {
            "id": job_id,
            "state": "running",
            "request": CheckpointEvaluationRequest(checkpoint="imported/x", tasks=[TASK]),
            "checkpoint_sha256": "0",
            "created_at": "2026-01-01T00:00:00Z",
        }
    )


def everything(client: Client) -> dict[str, Any]:
    """All that the learner has stored, but for the stream of changes."""
    found = [key for key in client.keys(f"{keys.PREFIX}*") if key != keys.CHANGES]
    # The bytes of a hash depend on where it is in its growth.
    return {key: client.hgetall(key) if client.type(key) == "hash" else client.dump(key) for key in found}


def grown(text: str) -> str:
    """A stored text with a field of a later version, where it is an object."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if not isinstance(value, dict) or not value or all(isinstance(item, dict) for item in value.values()):
        return text
    return json.dumps({**value, "later": {"a": 1}})


def test_what_the_version_before_stored_is_read_and_stays_as_it_was(
    own: tuple[Records, Client], tmp_path: Path
) -> None:
    records, client = own
    restore(url_of(client), tmp_path / "data")
    before = everything(client)
    runs = records.runs.list_all()
    assert (len(runs.records), runs.broken) == (2, [])
    assert [len(store.list_all().records) for store in (records.evaluations, records.demos)] == [1, 1]
    for run in runs.records:
        assert len(records.history.evaluations(run.id)) == records.history.count_evaluations(run.id) > 0
    assert everything(client) == before


def test_fields_that_a_later_version_adds_hide_nothing(own: tuple[Records, Client], tmp_path: Path) -> None:
    """The same data, every record and every entry of a history with a field more."""
    records, client = own
    restore(url_of(client), tmp_path / "data", change=grown)
    runs = records.runs.list_all()
    assert [(run.ignored, run.progress.updates > 0) for run in runs.records] == [(["later"], True)] * 2
    for run in runs.records:
        assert len(records.history.evaluations(run.id)) == records.history.count_evaluations(run.id) > 0
        assert "warning" not in {event.kind for event in records.history.events(run.id)}
    assert [len(store.list_all().records) for store in (records.evaluations, records.demos)] == [1, 1]
    assert not records.broken.all()


def test_a_job_is_written_again_with_the_fields_of_a_later_version(own: tuple[Records, Client]) -> None:
    records, client = own
    for store, key, job in (
        (records.evaluations, keys.EVALUATIONS, evaluation("one")),
        (records.demos, keys.DEMOS, collection("one")),
    ):
        store.put(job)  # type: ignore[arg-type]
        stored = json.loads(client.hget(key, "one"))
        assert stored[FIELD] == SCHEMA_VERSION
        stored = {**stored, "later": 1, "request": {**stored["request"], "speed": {"unit": "m/s"}}}
        client.hset(key, "one", json.dumps(stored))
        read = store.get("one")
        assert store.replace(read.model_copy(update={"progress": 0.5}), attempt=1)  # type: ignore[arg-type]
        assert json.loads(client.hget(key, "one")) == {**stored, "progress": 0.5}


def test_a_run_goes_on_without_settings_that_only_a_later_version_knows_and_says_so(
    own: tuple[Records, Client],
) -> None:
    records, client = own
    run_id = records.runs.create("r", SPEC, Path("/data")).id
    spec = json.loads(client.hget(keys.run(run_id), "spec"))
    spec["schedule"]["pause_s"] = 3
    client.hset(keys.run(run_id), mapping={"spec": json.dumps(spec), "later": "kept"})
    assert records.runs.get(run_id).ignored == ["schedule.pause_s"]
    assert records.runs.begin(run_id) == 1
    records.runs.annotate(run_id, RunChanges(notes="seen"))
    records.runs.cancel(run_id)
    warnings = [event.message for event in records.history.events(run_id) if event.kind == "warning"]
    assert warnings == ["goes on without settings that only a later version knows: schedule.pause_s"]
    stored = client.hgetall(keys.run(run_id))
    assert (json.loads(stored["spec"]), stored["later"], stored[FIELD]) == (spec, "kept", str(SCHEMA_VERSION))


def test_a_run_that_a_later_version_wrote_is_shown_and_left_alone(own: tuple[Records, Client]) -> None:
    records, client = own
    good, later = (records.runs.create(name, SPEC, Path("/data")).id for name in ("good", "later"))
    client.hset(keys.run(later), mapping={FIELD: LATER, "state": "dreaming", "spec": "[]"})
    before = everything(client)
    found = records.runs.list_all()
    assert [run.id for run in found.records] == [good]
    assert [broken.error for broken in found.broken] == [
        f"run 'later': it was stored by a later version of Newt (schema {LATER}, this version reads up to "
        f"{SCHEMA_VERSION}): update Newt; until then it is left as it is"
    ]
    assert [run.id for run in records.runs.list_unfinished().records] == [good]
    with pytest.raises(BrokenRecordError, match="later version"):
        records.runs.begin(later)
    records.runs.repair()
    with pytest.raises(LaterVersionError, match="run later was stored by a later version"):
        records.runs.annotate(later, RunChanges(notes="x"))
    assert everything(client) == before
    records.runs.delete(later)  # when somebody asks for it
    assert not records.runs.list_all().broken


@pytest.mark.parametrize("state", [RunState.TRAINING, RunState.SUCCEEDED])
def test_a_run_that_a_later_version_wrote_keeps_its_state(own: tuple[Records, Client], state: RunState) -> None:
    records, client = own
    run_id = records.runs.create("later", SPEC, Path("/data")).id
    client.hset(keys.run(run_id), mapping={FIELD: LATER, "state": state})
    change = records.runs.begin_deletion if state.finished else records.runs.cancel
    with pytest.raises(LaterVersionError, match="until then it is left as it is"):
        change(run_id)
    assert client.hget(keys.run(run_id), "state") == state


def test_a_job_that_a_later_version_wrote_is_shown_and_left_alone(own: tuple[Records, Client]) -> None:
    records, client = own
    for store, key, job in (
        (records.evaluations, keys.EVALUATIONS, evaluation("good")),
        (records.demos, keys.DEMOS, collection("good")),
    ):
        store.put(job)  # type: ignore[arg-type]
        text = json.dumps({FIELD: LATER, "id": "bad", "state": "dreaming"})
        client.hset(key, "bad", text)
        client.sadd(keys.open_jobs(key), "bad")
        store.repair()
        assert [found.job_id for found in store.list_open().records] == ["good"]
        (broken,) = store.list_all().broken
        assert f"schema {LATER}" in broken.error
        assert "DELETE" not in broken.error
        assert client.hget(key, "bad") == text
        assert client.sismember(keys.open_jobs(key), "bad")


def test_an_evaluation_that_a_later_version_wrote_is_counted_and_kept(own: tuple[Records, Client]) -> None:
    records, client = own
    run_id = records.runs.create("r", SPEC, Path("/data")).id
    assert records.runs.begin(run_id) == 1
    place = keys.part(run_id, "evaluations")
    client.rpush(place, json.dumps({FIELD: LATER, "kind": "dreamt"}))
    known = Evaluation(kind="final", mode="planner", env_steps=1, tasks={TASK: STATS})
    records.runs.add_evaluation(run_id, 1, known)
    records.runs.add_evaluation(run_id, 1, known)
    assert (records.history.evaluations(run_id), records.history.count_evaluations(run_id)) == ([known], 2)
    assert json.loads(client.lindex(place, 1))[FIELD] == SCHEMA_VERSION
