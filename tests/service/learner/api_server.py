"""A learner's REST API in the process of the tests, over real Redis; no processes are started for its runs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

from services.learner.people import People
from services.learner.processes.learner import Learner
from services.learner.records.store import Records
from services.learner.rest.app import create_app, server
from services.learner.rest.token import require_token
from services.learner.settings import LearnerSettings


def build(redis_url: str, data_dir: Path, **settings: object) -> Learner:
    """A learner whose keepers are not started."""
    values = {"redis_url": redis_url, "data_dir": data_dir, "sims": {"mujoco": "127.0.0.1:9"}, **settings}
    chosen = LearnerSettings(**{"replay": "127.0.0.1:9", "planner": "127.0.0.1:9", **values})  # type: ignore[arg-type]
    return Learner.build(chosen, redis_url, Records.connect(redis_url))


@dataclass(frozen=True)
class Api:
    """A learner's API in this process, on a port of its own."""

    learner: Learner
    port: int
    http: httpx.Client


@contextlib.contextmanager
def serving(learner: Learner, tokens: str | People | None = None) -> Iterator[Api]:
    """Serves on a free port, to everybody or to those who have a token."""
    bound = socket.create_server(("127.0.0.1", 0))
    app = create_app(learner, token=tokens is not None)
    if tokens is not None:
        require_token(app, SecretStr(tokens) if isinstance(tokens, str) else tokens)
    running = server(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = bound.getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            yield Api(learner, port, http)
    finally:
        running.should_exit = True
        learner.plays.stop()
        thread.join()
