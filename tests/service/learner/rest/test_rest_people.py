"""Several people at one learner: who may change what, how much of it, and what the log says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import httpx
import pytest
from api_server import Api, build, serving
from starlette.routing import BaseRoute, Mount, Route
from typer.testing import CliRunner

from newt.cli.main import app
from newt.local.redis_server import RedisServer
from newt.runs.base import now
from newt.runs.demos import DemoCollection, ScriptedDemosRequest
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.record import RunState
from services.learner.people import People
from services.learner.processes.learner import Learner
from services.learner.records import keys
from services.learner.rest.app import create_app
from services.learner.rest.guard import SAFE_METHODS
from services.learner.rest.permissions import MAKING, OPERATING, OWNING

TOKENS = {name: f"{name}-0123456789abcdef" for name in ("rita", "ada", "bob", "olga")}
QUOTAS = {"runs": 2, "sim_instances": 3, "replay_rows": 4_000, "jobs": 2}


@pytest.fixture(scope="module")
def learner(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return build(shared_redis.url, tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def api(learner: Learner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    path = tmp_path_factory.mktemp("tokens") / "people.toml"
    roles = {"rita": "reader", "ada": "user", "bob": "user", "olga": "operator"}
    tables = [f'[{name}]\nrole = "{role}"\ntoken = "{TOKENS[name]}"\n' for name, role in roles.items()]
    quotas = ", ".join(f"{name} = {most}" for name, most in QUOTAS.items())
    path.write_text("".join(tables).replace("[bob]\n", f"[bob]\nquotas = {{{quotas}}}\n"))
    with serving(learner, People(path, learner.records.broken)) as served:
        yield served


def ask(api: Api, name: str, method: str, path: str, body: object = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {TOKENS[name]}"}
    return api.http.request(method, path, headers=headers, json=body)


def start(api: Api, name: str, **spec: object) -> httpx.Response:
    body = {"tasks": ["mujoco-reacher"], "preset": "laptop", "schedule": {"total_env_steps": 1_000}, **spec}
    return ask(api, name, "POST", "/runs", body)


def changing(learner: Learner) -> list[str]:
    """Every route of the API that changes something, as the rules name them."""
    routes = walk(create_app(learner).routes)
    return sorted(f"{method} {route.path}" for route in routes for method in (route.methods or set()) - SAFE_METHODS)


def walk(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    """The routes of an application and of the routers in it."""
    for route in routes:
        if isinstance(route, Route):
            yield route
        elif not isinstance(route, Mount):  # files, which answer GET alone
            yield from walk(route.original_router.routes)  # type: ignore[attr-defined]


def at(route: str, **parameters: str) -> tuple[str, str]:
    """Method and path of a route, with ids in it."""
    method, path = route.split()
    return method, re.sub(r"{(\w+)}", lambda match: parameters.get(match[1], "x"), path)


def test_every_route_that_changes_something_has_a_rule(learner: Learner) -> None:
    named = MAKING | OPERATING | {route for route in OWNING if not route.startswith("GET ")}
    assert changing(learner) == sorted(named)
    assert not MAKING & OPERATING


def test_a_reader_is_refused_by_every_route_that_changes_something(api: Api, learner: Learner) -> None:
    routes = changing(learner)
    assert len(routes) > 20
    for route in routes:
        method, path = at(route)
        reply = ask(api, "rita", method, path, {})
        assert (reply.status_code, reply.json()["error"]) == (403, "Forbidden"), route
        assert "rita is a reader" in reply.json()["message"]
    for path in ("/runs", "/overview", "/evaluations", "/checkpoints"):
        assert ask(api, "rita", "GET", path).status_code == 200


def test_users_change_their_own_and_operators_all(api: Api, learner: Learner) -> None:
    reply = start(api, "ada")
    assert reply.status_code == 201, reply.text
    run = reply.json()
    records = learner.records
    evaluation = EvaluationJob(
        id="e-of-ada",
        state="failed",
        owner="ada",
        request=CheckpointEvaluationRequest(checkpoint="x"),
        checkpoint_sha256="",
        created_at=now(),
    )
    demos = DemoCollection(
        name="d-of-ada",
        state="failed",
        owner="ada",
        source="scripted",
        request=ScriptedDemosRequest(name="d-of-ada", tasks=["mujoco-reacher"]),
        tasks=["mujoco-reacher"],
        created_at=now(),
    )
    records.evaluations.put(evaluation)
    records.demos.put(demos)
    ids = {"run": run["id"], "evaluation": "e-of-ada", "demonstrations": "d-of-ada"}

    assert run["owner"] == "ada"
    for route, (kind, parameter) in OWNING.items():
        method, path = at(route, **{parameter: ids.get(kind, "x")})
        reply = ask(api, "bob", method, path, {})
        if kind == "play":  # none is under way here
            assert reply.status_code == 404
            continue
        assert reply.status_code == 403, route
        assert f"{kind} {ids[kind]} belongs to ada; you are bob" in reply.json()["message"]
    assert records.runs.get(run["id"]).state is RunState.QUEUED  # nothing was lost

    assert ask(api, "bob", "GET", f"/runs/{run['id']}").json()["owner"] == "ada"
    assert ask(api, "ada", "PATCH", f"/runs/{run['id']}", {"tags": ["mine"]}).json()["tags"] == ["mine"]
    assert ask(api, "olga", "POST", f"/runs/{run['id']}/cancel").json()["owner"] == "ada"
    assert ask(api, "ada", "DELETE", "/checkpoints/x").status_code == 403
    assert ask(api, "olga", "DELETE", "/checkpoints/x").status_code == 404
    assert ask(api, "ada", "POST", "/runs/no-such-run/cancel").status_code == 404
    assert ask(api, "ada", "DELETE", "/evaluations/e-of-ada").status_code == 204


def test_what_is_older_than_names_has_no_owner_and_is_for_operators(api: Api, learner: Learner) -> None:
    run_id = start(api, "ada").json()["id"]
    learner.records.client.hdel(keys.run(run_id), "owner")
    assert ask(api, "ada", "GET", f"/runs/{run_id}").json()["owner"] is None
    refused = ask(api, "ada", "POST", f"/runs/{run_id}/cancel")
    assert refused.status_code == 403
    assert "has no owner that is known; you are ada, and only operators" in refused.json()["message"]
    assert ask(api, "olga", "POST", f"/runs/{run_id}/cancel").status_code == 200


def test_a_quota_that_is_reached_is_told_and_room_comes_back(api: Api) -> None:
    many = start(api, "bob", tasks=["mujoco-reacher", "mujoco-hopper"], collect={"envs_per_task": 2})
    assert many.status_code == 429
    assert "bob may have 3 simulator instances and has 0; this run would add 4" in many.json()["message"]
    large = start(api, "bob", schedule={"total_env_steps": 4_001})
    assert large.status_code == 429
    assert "bob may have 4,000 rows in replay and has 0; this run would add 4,001" in large.json()["message"]
    first, second = start(api, "bob").json()["id"], start(api, "bob").json()["id"]
    third = start(api, "bob")
    assert (third.status_code, third.json()["error"]) == (429, "Exhausted")
    assert "bob may have 2 runs that have not ended and has 2" in third.json()["message"]
    listed = ask(api, "rita", "GET", "/runs?owner=bob").json()["runs"]
    assert [run["id"] for run in listed] == [first, second]
    assert start(api, "ada").status_code == 201  # quotas are each one's own
    assert ask(api, "bob", "POST", f"/runs/{first}/resume").status_code == 409  # no matter of quotas
    assert ask(api, "bob", "POST", f"/runs/{first}/cancel").status_code == 200
    # What the ended one has left there, replay alone knows, which is not here.
    assert (start(api, "bob").status_code, len(ask(api, "bob", "GET", "/runs?owner=bob").json()["runs"])) == (503, 2)


def test_a_quota_of_jobs_counts_evaluations_and_collections_under_way(api: Api, learner: Learner) -> None:
    asked = {"checkpoint": "imported/none"}
    scripted = {"name": "more", "tasks": ["mujoco-reacher"]}
    assert ask(api, "bob", "POST", "/evaluations", asked).status_code == 404  # there is room, but no such checkpoint
    evaluation = EvaluationJob(
        id="bobs",
        state="running",
        owner="bob",
        request=CheckpointEvaluationRequest(checkpoint="imported/none", tasks=["mujoco-reacher"]),
        checkpoint_sha256="0",
        created_at=now(),
    )
    collection = DemoCollection(
        name="bobs",
        state="collecting",
        source="scripted",
        owner="bob",
        request=ScriptedDemosRequest(name="bobs", tasks=["mujoco-reacher"]),
        tasks=["mujoco-reacher"],
        created_at=now(),
    )
    learner.records.evaluations.put(evaluation)
    learner.records.demos.put(collection)
    try:
        for path, body in (("/evaluations", asked), ("/demos", scripted)):
            full = ask(api, "bob", "POST", path, body)
            assert full.status_code == 429
            message = full.json()["message"]
            assert "bob may have 2 evaluations and collections under way and has 2; this one would add 1" in message
            assert ask(api, "ada", "POST", path, body).status_code != 429  # quotas are each one's own
        again = ask(api, "bob", "POST", "/demos", {"name": "bobs", "tasks": ["mujoco-reacher"]})
        assert again.status_code != 429  # it is under way already
        learner.records.evaluations.put(evaluation.model_copy(update={"state": "failed"}))
        assert ask(api, "bob", "POST", "/evaluations", asked).status_code == 404
    finally:
        learner.records.evaluations.delete("bobs")
        learner.records.demos.delete("bobs")


def test_the_command_tells_who_one_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_URL", str(api.http.base_url))
    monkeypatch.setenv("NEWT_API_TOKEN", TOKENS["bob"])
    told = CliRunner().invoke(app, ["whoami"])
    assert told.exit_code == 0, told.output
    assert told.output.startswith("bob, user at http")
    assert "at most 4,000 replay rows" in told.output
    assert json.loads(CliRunner().invoke(app, ["whoami", "--json"]).output)["quotas"] == QUOTAS
    monkeypatch.setenv("NEWT_API_TOKEN", "nobodys-0123456789abcdef")
    assert CliRunner().invoke(app, ["whoami"]).exit_code != 0


def test_everybody_learns_who_they_are(api: Api, learner: Learner) -> None:
    assert ask(api, "bob", "GET", "/whoami").json() == {"name": "bob", "role": "user", "quotas": QUOTAS}
    with serving(learner) as unnamed:
        told = unnamed.http.get("/whoami").json()
    assert (told["name"], told["role"]) == (None, "operator")


def test_the_log_has_a_line_for_every_change(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    run_id = start(api, "ada").json()["id"]
    ask(api, "rita", "POST", f"/runs/{run_id}/cancel")
    ask(api, "olga", "GET", f"/runs/{run_id}")
    api.http.delete(f"/plays/{'0123456789abcdef' * 2}")
    told = capfd.readouterr()
    text = told.out + told.err
    assert not any(token in text for token in TOKENS.values())
    lines = [line for line in text.splitlines() if "change_asked" in line]
    assert len(lines) == 3
    for line, wanted in zip(
        lines,
        (
            {"who": "ada", "role": "user", "method": "POST", "path": "/runs", "id": run_id, "status": 201},
            {"who": "rita", "role": "reader", "path": f"/runs/{run_id}/cancel", "status": 403, "outcome": "refused"},
            {"who": None, "method": "DELETE", "path": "/plays/01234567", "status": 401},
        ),
        strict=True,
    ):
        for name, value in wanted.items():
            assert f"{name}={value}" in plain(line) or f'"{name}": {json.dumps(value)}' in line, (name, line)


def plain(line: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)
