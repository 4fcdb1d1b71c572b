"""The REST API with a token, and what the command line makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from learner_stack import LearnerStack

TOKEN = "8dc8f0be49959174badb3a91a7d97e55"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    """A learner that has Redis alone, with a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWT_API_TOKEN", TOKEN)
        stack = LearnerStack(tmp_path_factory.mktemp("guarded"), ())
    yield stack
    stack.stop()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}0",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xfc\xdf",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/runs"),
        ("POST", "/runs"),
        ("PUT", "/checkpoints/mine"),
        ("GET", "/no-such-route"),
        ("GET", "/healthz/"),
    ],
)
def test_no_token_or_a_wrong_one_is_answered_with_401(
    guarded: LearnerStack, header: str | None, method: str, path: str
) -> None:
    headers = {"authorization": header.encode("latin-1")} if header is not None else {}
    reply = guarded.http.request(method, path, headers=headers, content=b"{")
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith('Bearer realm="newt"')
    assert reply.json()["error"] == "Unauthorized"
    assert TOKEN not in reply.text


def test_a_wrong_token_is_told_from_none(guarded: LearnerStack) -> None:
    assert "error" not in guarded.http.get("/runs").headers["www-authenticate"]
    wrong = guarded.http.get("/runs", headers={"authorization": "Bearer wrong"})
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]


def test_the_token_opens(guarded: LearnerStack) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"authorization": f"{scheme} {TOKEN}"}
        assert guarded.http.get("/runs", headers=headers).json()["runs"] == []
        assert guarded.http.get("/no-such-route", headers=headers).status_code == 404


def test_health_needs_none_and_metrics_have_a_port_that_asks_for_none(guarded: LearnerStack) -> None:
    assert guarded.http.get("/healthz").status_code == 200
    assert guarded.http.get("/readyz").status_code == 503  # no simulators, planner or replay here
    assert guarded.http.get("/runs").status_code == guarded.http.get("/metrics").status_code == 401
    text = httpx.get(f"http://127.0.0.1:{guarded.ports['learner_metrics']}/metrics", timeout=10).text
    assert 'newt_learner_http_request_seconds_count{method="GET",route="none",status="401"}' in text
    assert TOKEN not in text


def test_the_description_names_the_scheme_where_it_applies(guarded: LearnerStack) -> None:
    document = guarded.http.get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"]
    assert document["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            wanted = None if path in ("/healthz", "/readyz") else [{scheme: []}]
            assert operation.get("security") == wanted, path
    assert guarded.http.get("/docs").status_code == 200


def newt(stack: LearnerStack, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "newt.cli.main", "runs", "--url", str(stack.http.base_url)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def test_the_command_line_sends_the_token(guarded: LearnerStack, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert newt(guarded, NEWT_API_TOKEN=TOKEN).returncode == 0
    assert newt(guarded, NEWT_API_TOKEN_FILE=str(file)).returncode == 0
    without = newt(guarded)
    assert without.returncode == 1
    assert without.stderr.startswith("newt: this API wants a token")
    wrong = newt(guarded, NEWT_API_TOKEN=TOKEN[::-1])
    assert wrong.stderr.startswith("newt: the token is wrong")
    assert TOKEN[::-1] not in wrong.stderr


def test_the_token_stays_where_it_belongs(guarded: LearnerStack) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        guarded.http.get("/runs", headers={"authorization": f"Bearer {TOKEN}x"}).raise_for_status()
    written = [path for path in guarded.home.rglob("*") if path.is_file()]
    assert guarded.home / "learner.log" in written
    for path in written:
        assert TOKEN.encode() not in path.read_bytes(), path
