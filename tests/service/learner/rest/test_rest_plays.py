"""Plays through the API, with a real simulator in this process; without a model, so that no torch is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import Api, build, serving
from play_watcher import Watcher

from newt.local.redis_server import RedisServer
from newt.recordings.formats import open_recording
from newt.recordings.importing import Recordings
from newt.tasks.registry import get_task
from services.learner.processes import plays
from services.sim.service import SimService
from services.sim.settings import SimSettings

TASK = "pygame-bird-attack"
BEGIN = {"task": TASK, "actor": "keys", "paused": True}


@pytest.fixture(scope="module")
def arcade() -> Iterator[SimService]:
    service = SimService(SimSettings(port=0, domains=("miniarcade",), workers=1, log_level="ERROR"))
    service.server.start()
    service.server.set_ready(True)
    yield service
    service.server.stop(0)
    service.close()


@pytest.fixture(scope="module")
def api(arcade: SimService, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    sims = {"miniarcade": arcade.server.address, "mujoco": "127.0.0.1:9"}
    with serving(build(shared_redis.url, tmp_path_factory.mktemp("plays"), sims=sims, max_plays=1)) as served:
        yield served


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def metric(api: Api, name: str) -> float:
    shown = dict(line.rsplit(" ", 1) for line in api.http.get("/metrics").text.splitlines())
    return float(shown[f"newt_learner_{name}"])


@pytest.mark.parametrize(
    ("request_", "status", "field", "words"),
    [
        ({"task": "pygame-bird-atack"}, 422, "task", "did you mean pygame-bird-attack"),
        ({"task": "walker-walk"}, 422, "task", "NEWT_LEARNER_SIMS"),
        ({"task": "mujoco-reacher"}, 503, None, "does not answer"),
        ({"task": TASK, "checkpoint": "run-of-nobody"}, 404, None, "run-of-nobody"),
        ({"task": TASK, "checkpoint": "../../etc"}, 422, "checkpoint", "expected RUN"),
        ({"task": TASK, "actor": "planner"}, 422, "actor", "expected one of expert, random, keys"),
        ({"task": TASK, "instruction": "win"}, 422, "instruction", "no model"),
        ({"task": TASK, "instruction": "x" * 1001}, 422, "instruction", "1000"),
        ({"task": TASK, "seed": -1}, 422, "seed", "0"),
    ],
)
def test_what_cannot_be_played_is_refused(
    api: Api, request_: dict[str, Any], status: int, field: str | None, words: str
) -> None:
    reply = api.http.post("/plays", json=request_)
    assert (reply.status_code, [found["field"] for found in reply.json()["fields"]]) == (
        status,
        [field] if field else [],
    )
    assert words in reply.json()["message"]
    assert api.http.get(f"/plays/{'0' * 32}").status_code == 404


def test_a_game_is_played_by_keys_kept_and_given_back(api: Api, arcade: SimService, tmp_path: Path) -> None:
    play = api.http.post("/plays", json=BEGIN).json()
    path = f"/plays/{play['id']}"
    assert (play["keys"]["space"], play["idle"], play["checkpoint"]) == ([0, 2], [0, -1], None)
    assert play["steps_per_s"] == get_task(TASK).steps_per_s
    told = metric(api, 'plays_ended_total{reason="told"}')
    assert metric(api, "plays") == 1
    refused = api.http.post("/plays", json=BEGIN)
    assert (refused.status_code, "NEWT_LEARNER_MAX_PLAYS" in refused.text) == (429, True)
    with api.http.stream("GET", f"{path}/events") as stream:
        watcher = Watcher(stream.iter_lines())
        first = watcher.next("step")
        assert (first["step"], first["paused"], first["value"]) == (0, True, None)
        assert first["picture"].startswith("/9j/")  # a JPEG
        assert api.http.get(f"{path}/recording").status_code == 409  # nothing yet
        for wrong, words in (({"action": [1]}, "expected 2 numbers"), ({"instruction": "win"}, "no model")):
            reply = api.http.patch(path, json=wrong)
            assert (reply.status_code, words in reply.text) == (422, True), reply.text
        assert api.http.post(f"{path}/imagine", json={"steps": 5}).status_code == 422
        api.http.patch(path, json={"action": [1, -1]}).raise_for_status()
        for _ in range(3):
            api.http.post(f"{path}/step").raise_for_status()
        assert watcher.next("step", lambda facts: facts["step"] == 3)["reward"] is not None
        file = tmp_path / "kept.npz"
        file.write_bytes(api.http.get(f"{path}/recording").content)
        api.http.patch(path, json={"actor": "expert", "paused": False, "steps_per_s": 60}).raise_for_status()
        watcher.next("step", lambda facts: facts["step"] >= 5 and facts["actor"] == "expert")
        api.http.post(f"{path}/reset", json={"seed": 2**53 + 1}).raise_for_status()
        assert watcher.next("step", lambda facts: facts["seed"] == str(2**53 + 1))["step"] == 0
        with api.http.stream("GET", f"{path}/events") as other:
            Watcher(other.iter_lines()).next("step")
            watcher.next("taken")  # whoever comes last has it
            assert arcade.sessions.used_instances == 1
            assert api.http.delete(path).status_code == 204
            assert arcade.sessions.used_instances == 0
    assert (metric(api, 'plays_ended_total{reason="told"}'), metric(api, "plays")) == (told + 1, 0)
    assert "it was ended" in api.http.patch(path, json={"paused": True}).text
    assert list(api.learner.settings.folder.plays.iterdir()) == []
    recordings = Recordings([open_recording(str(file))], get_task)
    recordings.judge()
    [(_, episode)] = recordings.episodes()
    assert (episode.task, episode.action.tolist(), episode.obs.shape[0]) == (TASK, [[1, -1]] * 3, 4)


@pytest.mark.parametrize("who", ["viewer", "simulator", "process"])
def test_whoever_goes_ends_it(api: Api, arcade: SimService, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plays, "LEASE_S", 0.5 if who == "viewer" else 60.0)
    play = api.http.post("/plays", json=BEGIN).json()
    path = f"/plays/{play['id']}"
    with api.http.stream("GET", f"{path}/events") as stream:
        watcher = Watcher(stream.iter_lines())
        watcher.next("step")
        if who == "simulator":
            arcade.sessions.close_all()
            api.http.patch(path, json={"paused": False}).raise_for_status()
            assert "session" in watcher.next("ended")["reason"]
        elif who == "process":
            api.learner.plays._running[play["id"]].child.kill()
            assert "SIGKILL" in watcher.next("ended")["reason"]
    if who == "viewer":
        until(lambda: api.http.get(path).status_code == 404)
        assert "nobody watched" in api.http.get(path).text
        until(lambda: arcade.sessions.used_instances == 0)
    until(lambda: not api.learner.plays._running)
    arcade.sessions.close_all()  # what was killed would be given back with its lease
