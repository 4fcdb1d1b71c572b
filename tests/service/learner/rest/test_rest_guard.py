"""What is not asked for by its own pages, is too large or says nothing is refused; nothing is echoed at length."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from api_server import Api
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learner_stack import LearnerStack

from services.learner.rest.errors import MAX_MESSAGE
from services.learner.rest.guard import MAX_JSON_BYTES

CHANGES = [
    ("POST", "/runs"),
    ("POST", "/runs/x/cancel"),
    ("DELETE", "/runs/x"),
    ("PUT", "/checkpoints/x"),
    ("PATCH", "/runs/x"),
]


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:8000", "localhost.evil.com", "learner.evil.com", "example.org.evil"]
)
def test_a_name_that_is_not_its_own_is_refused(api: Api, host: str) -> None:
    for method, path in [("GET", "/runs"), ("GET", "/docs"), ("GET", "/openapi.json"), *CHANGES]:
        reply = api.http.request(method, path, headers={"host": host})
        assert (reply.status_code, reply.json()["error"]) == (421, "ForeignHost"), path
        assert "NEWT_LEARNER_ALLOWED_HOSTS" in reply.json()["message"]
    assert api.http.get("/healthz", headers={"host": host}).status_code == 200  # who starts containers knows no name
    assert api.http.get("/readyz", headers={"host": host}).status_code == 503


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]:8000",
        "learner:8000",
        "newt.example.org",
        "x.localhost",
    ],
)
def test_its_own_names_and_all_addresses_are_answered(api: Api, host: str) -> None:
    assert api.http.get("/runs", headers={"host": host}).status_code == 200
    own = api.http.post("/runs/x/cancel", headers={"host": host, "origin": f"http://{host}"})
    assert own.status_code == 404


@pytest.mark.parametrize("host", ["a b", "x" * 300, "localhost:port", "[::1", "user@localhost", "localhost/runs"])
def test_what_is_no_host_is_refused(api: Api, host: str) -> None:
    assert api.http.get("/healthz", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.com", "https://evil.com", "null", "http://localhost:3000", "http://[::1", "file://"]
)
def test_foreign_pages_change_nothing_and_read_nothing(api: Api, origin: str) -> None:
    for method, path in CHANGES:
        reply = api.http.request(method, path, headers={"origin": origin})
        assert (reply.status_code, reply.json()["error"]) == (403, "ForeignOrigin"), path
    for method in ("GET", "OPTIONS"):  # no preflight succeeds, and the browser keeps what is read from the page
        reply = api.http.request(method, "/runs", headers={"origin": origin, "access-control-request-method": "POST"})
        assert reply.status_code == (200 if method == "GET" else 405)
        assert not [name for name in reply.headers if name.startswith("access-control")]


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"a" * (1 << 16)


def test_a_large_body_is_neither_taken_nor_repeated_and_stops_nobody(alone: LearnerStack) -> None:
    slowest = 0.0
    done = threading.Event()

    def probe() -> None:
        nonlocal slowest
        with httpx.Client(base_url=alone.http.base_url, timeout=60) as http:
            while not done.is_set():
                start = time.monotonic()
                assert http.get("/healthz").status_code == 200
                slowest = max(slowest, time.monotonic() - start)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        body = json.dumps({"tasks": ["x" * 50_000_000]}).encode()
        for content in (body, chunks(800)):
            reply = alone.http.post("/runs", content=content, headers={"content-type": "application/json"})
            assert (reply.status_code, reply.json()["error"]) in ((413, "TooLarge"), (413, "Http"))
            assert f"{MAX_JSON_BYTES:,}" in reply.json()["message"]
    finally:
        done.set()
        thread.join()
    assert slowest < 1


def test_uploads_have_a_limit_of_their_own(api: Api) -> None:
    for content in (b"a" * (3 << 20), chunks(40)):
        reply = api.http.put("/checkpoints/big", content=content)
        assert reply.status_code == 413
        assert "NEWT_LEARNER_MAX_CHECKPOINT_BYTES" in reply.json()["message"]
    assert api.http.put("/checkpoints/big", content=b"a" * (3 << 19)).status_code == 422  # beyond what JSON may have
    assert api.http.get("/checkpoints").json() == {"checkpoints": []}


BIG = "ü" * 100_000
BODIES = st.sampled_from(
    [
        {"tasks": [BIG]},
        {"tasks": [["a"] * 50_000]},
        {"tasks": ["a"] * 50_000},
        {BIG: 1},
        {"tasks": ["mujoco-reacher"], "model": {BIG: 1}},
        {"tasks": ["mujoco-reacher"], "name": BIG},
        {"tasks": ["mujoco-reacher"], "init_from": BIG},
        {"tasks": ["mujoco-reacher"], "demos": {"sets": ["/" + BIG]}},
        {"tasks": ["mujoco-reacher"], "train": {"lr": BIG}},
        {"tasks": ["mujoco-reacher"], "plan": {BIG: 1}},
        {"checkpoint": BIG, "tasks": [BIG], "instructions": {BIG: BIG}},
        {"name": BIG, "tasks": [BIG], "episodes": BIG},
        {"name": "a", "source": BIG},
        [BIG],
        BIG,
        {str(number): number for number in range(20_000)},
    ]
)
ROUTES = ["/runs", "/evaluations", "/demos", "/demos/features", "/runs/x/evaluate", "/runs/x/demos"]


@given(body=BODIES, path=st.sampled_from(ROUTES))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_reply_repeats_a_large_input(api: Api, body: object, path: str) -> None:
    start = time.monotonic()
    reply = api.http.post(path, content=json.dumps(body, ensure_ascii=False).encode())
    assert 400 <= reply.status_code < 500, reply.text
    assert len(reply.content) < 20 * MAX_MESSAGE
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "path", [f"/runs/{'x' * 5000}", f"/{'x' * 5000}", f"/checkpoints/{'x' * 5000}", "/evaluations/%FF%00"]
)
def test_long_and_odd_names(api: Api, path: str) -> None:
    for method in ("GET", "DELETE", "POST"):
        reply = api.http.request(method, path)
        assert 400 <= reply.status_code < 500
        assert len(reply.content) < 2 * MAX_MESSAGE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "body: not JSON"),
        (b"", "body"),
        (b"[" * 100_000, "body"),
        (b'{"tasks": ["mujoco-reacher"], "seed": ' + b"1" * 5000 + b"}", "body"),
    ],
)
def test_what_is_no_json_says_so(api: Api, content: bytes, words: str) -> None:
    reply = api.http.post("/runs", content=content, headers={"content-type": "application/json"})
    assert reply.status_code in (400, 422)
    assert words in reply.json()["message"]


def test_other_methods_are_told_which_there_are(api: Api) -> None:
    reply = api.http.put("/runs", content=b"{}")
    assert reply.status_code == 405
    assert set(reply.headers["allow"].split(", ")) & {"GET", "POST"}


@pytest.mark.parametrize("after", ["٣-١", "99999999999999999999-0", "1-99999999999999999999", "1", "-1-1", "0-0\n"])
def test_positions_are_what_they_are(api: Api, after: str) -> None:
    for path in ("metrics", "events"):
        reply = api.http.get(f"/runs/x/{path}", params={"after": after})
        assert reply.status_code == 422
        assert reply.json()["fields"][0]["field"] == "after"


@pytest.mark.parametrize("name", ["%00", "a" * 300, "..%2F..%2Fetc", "%2e%2e", "ü"])
def test_names_of_files_are_looked_up_and_nothing_else(api: Api, name: str) -> None:
    run_id = api.http.post("/runs", json={"tasks": ["mujoco-reacher"]}).json()["id"]
    for path in (
        f"/runs/{run_id}/videos/{name}",
        f"/runs/{run_id}/checkpoints/{name}",
        f"/evaluations/x/videos/{name}",
    ):
        for method in ("GET", "DELETE"):
            reply = api.http.request(method, path)
            assert 400 <= reply.status_code < 500, (path, reply.text)
            assert reply.json()["message"]


def test_a_resume_with_settings_is_refused(api: Api) -> None:
    run_id = api.http.post("/runs", json={"tasks": ["mujoco-reacher"]}).json()["id"]
    assert api.http.post(f"/runs/{run_id}/cancel").status_code == 200
    refused = api.http.post(f"/runs/{run_id}/resume", json={"schedule": {"total_env_steps": 5}})
    assert refused.status_code == 422
    assert "start a new one" in refused.json()["message"]
    assert api.http.post(f"/runs/{run_id}/resume").json()["state"] == "queued"


def test_weights_that_are_not_there_are_missed_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for changes, field, words in (
        ({"algorithm": {"text_encoder": "clip-vit-b32"}}, "algorithm.text_encoder", "hf download openai/clip"),
        ({"obs": "state+rgb"}, "obs", "hf download facebook/dinov2"),
    ):
        reply = api.http.post("/runs", json={"tasks": ["mujoco-reacher"], **changes})
        assert reply.status_code == 422
        assert [error["field"] for error in reply.json()["fields"]] == [field]
        assert words in reply.json()["message"]


def test_the_pages_need_no_other_host(api: Api) -> None:
    root = api.http.get("/")
    policy = root.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    script = api.http.get("/page/main.js")
    assert (script.status_code, script.headers["x-content-type-options"]) == (200, "nosniff")
    page = api.http.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "http" not in page.text
    links = [part.split('"')[0] for mark in ('href="', 'src="') for part in page.text.split(mark)[1:]]
    assert len(links) == 3
    for link in links:
        file = api.http.get(f"/{link}")
        assert file.status_code == 200
        assert len(file.content) > 500
    assert '"validatorUrl": null' in page.text
    assert api.http.get("/redoc").status_code == 404
