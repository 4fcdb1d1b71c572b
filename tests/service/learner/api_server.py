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

from services.learner.checkpoints.library import CheckpointLibrary
from services.learner.people import People
from services.learner.processes.demo_sets import DemoSets
from services.learner.processes.demos import DemoKeeper
from services.learner.processes.dependencies import Dependencies
from services.learner.processes.evaluations import EvaluationKeeper
from services.learner.processes.learner import Learner
from services.learner.processes.plays import PlayKeeper
from services.learner.processes.runs import RunKeeper
from services.learner.processes.served_tasks import ServedTasks
from services.learner.records.store import Records
from services.learner.rest.app import create_app, server
from services.learner.rest.token import require_token
from services.learner.settings import LearnerSettings


def build(redis_url: str, data_dir: Path, **settings: object) -> Learner:
    """A learner whose keepers are not started."""
    values = {"redis_url": redis_url, "data_dir": data_dir, "sims": {"mujoco": "127.0.0.1:9"}, **settings}
    chosen = LearnerSettings(**{"replay": "127.0.0.1:9", "planner": "127.0.0.1:9", **values})  # type: ignore[arg-type]
    records = Records.connect(redis_url)
    library = CheckpointLibrary(data_dir)
    dependencies = Dependencies(records, chosen)
    demo_sets = DemoSets(chosen.replay, records)
    return Learner(
        chosen,
        redis_url,
        records,
        RunKeeper(records, chosen),
        EvaluationKeeper(records, chosen, library),
        DemoKeeper(records, chosen, demo_sets, dependencies, retire=lambda model: None),
        demo_sets,
        library,
        dependencies,
        ServedTasks(chosen.sims),
        PlayKeeper(chosen, library, dependencies),
    )


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
