"""Tasks that only a simulator knows: they can be asked for, and what they were stays with the run."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import Api, build, serving
from PIL import Image
from redis import Redis

from newt.cli.task_names import TaskNames
from newt.errors import InvalidInputError
from newt.local.redis_server import RedisServer
from newt.runs.record import Run
from newt.tasks.pictures import TILE_PX
from newt.tasks.registry import get_task
from services.learner.records import keys, runs
from services.learner.records.store import Records
from services.sim.domains.noop import TASKS
from services.sim.service import SimService
from services.sim.settings import SimSettings

REQUEST = {"tasks": ["noop-short", "mujoco-reacher"], "preset": "laptop"}

LONG = replace(TASKS[1], name="noop-long", goal="Choose a large number. " * 20)


@pytest.fixture(scope="module")
def lab() -> Iterator[SimService]:
    """A simulator of tasks that are not in our table."""
    service = SimService(SimSettings(port=0, domains=("noop",), workers=1, log_level="ERROR"))
    service._catalogue.tasks[LONG.name] = LONG
    service.server.start()
    service.server.set_ready(True)
    yield service
    service.server.stop(0)
    service.close()


@pytest.fixture(scope="module")
def api(lab: SimService, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    sims = {"mujoco": "127.0.0.1:9", "lab": lab.server.address}
    with serving(build(shared_redis.url, tmp_path_factory.mktemp("described"), sims=sims)) as served:
        yield served


def test_they_are_listed_and_can_be_trained_on(api: Api, shared_redis: RedisServer) -> None:
    listed = {task["name"]: task for task in api.http.get("/tasks").json()["tasks"]}
    assert listed["noop-short"]["domain"] == "lab"
    assert listed["noop-short"]["instruction"].endswith("Choose a large number.")
    reply = api.http.post("/runs", json=REQUEST)
    assert reply.status_code == 201, reply.text
    run = Run.model_validate_json(reply.text)  # the reader knows no simulator
    assert [(task.name, task.domain) for task in run.spec.task_list()] == [
        ("noop-short", "lab"),
        ("mujoco-reacher", "mujoco"),
    ]
    assert run.spec.longest_episode() == 50
    lines = {line["id"]: line for line in api.http.get("/overview").json()["runs"]}
    assert lines[run.id]["domains"] == ["lab", "mujoco"]
    assert api.http.get("/compare", params={"group": run.id}).json()["groups"][0]["tasks"] == 2
    ours = api.http.post("/runs", json={"tasks": ["mujoco-reacher"]}).json()
    rows = [row for row in api.http.get("/runs").json()["runs"] if row["id"] in (run.id, ours["id"])]
    in_list = [Run.model_validate(row) for row in rows]
    assert [len(row.task_facts) for row in in_list] == [2, 0]  # those that a reader may not know
    assert in_list[0].spec.task_list() == run.spec.task_list()
    # What is stored counts, whatever the name means later, or to others.
    runs._spec.cache_clear()
    with Redis.from_url(shared_redis.url, decode_responses=True) as client:
        facts = json.loads(client.hget(keys.run(run.id), "task_facts") or "")
        facts[1]["episode_length"] = 77
        client.hset(keys.run(run.id), "task_facts", json.dumps(facts))
    read = Records.connect(shared_redis.url).runs.get(run.id)
    assert read.spec.longest_episode() == 77
    assert [task.episode_length for task in read.task_facts] == [5, 77]


def test_their_simulator_draws_them_once(api: Api, lab: SimService) -> None:
    listed = {task["name"]: task for task in api.http.get("/tasks").json()["tasks"]}
    assert listed["noop-short"]["picture"]
    assert listed["mujoco-reacher"]["picture"]
    for name in ("noop-short", "noop-short", "mujoco-reacher"):  # ours needs no simulator
        reply = api.http.get(f"/tasks/{name}/picture")
        assert reply.status_code == 200, reply.text
        assert Image.open(io.BytesIO(reply.content)).size == (TILE_PX, TILE_PX)
    assert len(list(api.learner.settings.folder.task_picture("any").parent.iterdir())) == 1
    reply = api.http.get("/tasks/ms-pick-apple/picture")  # neither packaged nor with a simulator here
    assert reply.status_code == 404
    assert "start sim-maniskill" in reply.json()["message"]
    assert not listed["ms-pick-apple"]["picture"]
    assert api.http.get("/tasks/..%2Fsecret/picture").status_code == 404


def test_the_command_line_asks_for_their_facts(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = TaskNames(f"http://127.0.0.1:{api.port}")
    found = names.get("noop-short")
    facts = next(task for task in TASKS if task.name == "noop-short")
    assert (found.domain, found.obs_dim, found.action_dim) == ("lab", facts.obs_dim, facts.action_dim)
    assert (found.instruction, found.episode_length) == (facts.instruction, facts.episode_length)
    assert names.get("walker-walk") is get_task("walker-walk")
    with pytest.raises(InvalidInputError, match=r"unknown task 'noop-shirt'"):
        names.get("noop-shirt")
    monkeypatch.setenv("NEWT_HOME", str(tmp_path))
    monkeypatch.delenv("NEWT_URL", raising=False)
    with pytest.raises(InvalidInputError, match=r"no learner was asked.*newt up"):
        TaskNames().get("noop-short")


def test_unknown_names_are_refused_as_before(api: Api) -> None:
    reply = api.http.post("/runs", json={**REQUEST, "tasks": ["noop-shirt"]})
    assert reply.status_code == 422
    assert "noop-short" in reply.json()["message"]


def test_an_instruction_that_is_not_read_to_its_end_is_refused(api: Api) -> None:
    clip = {"text_encoder": "clip-vit-b32"}
    reply = api.http.post("/runs", json={**REQUEST, "tasks": ["noop-long"], "algorithm": clip})
    assert reply.status_code == 422
    message = reply.json()["message"]
    assert "tasks: the instruction of noop-long has 11" in message
    assert "clip-vit-b32 reads at most 77" in message
    assert "choose algorithm.text_encoder=minilm-l6-v2" in message


def test_one_learner_knows_nothing_of_anothers_simulators(api: Api, shared_redis: RedisServer, tmp_path: Path) -> None:
    with serving(build(shared_redis.url, tmp_path)) as other:
        assert other.http.post("/runs", json=REQUEST).status_code == 422
    assert api.http.post("/runs", json=REQUEST).status_code == 201
