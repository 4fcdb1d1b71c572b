"""Deployments of the tests here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployments import BUFFER, DEMOS, PASSWORD, ROWS, Deployment, append, run_of

from newt.local import redis_server
from services.learner.data_folder import DataFolder
from services.learner.records import keys
from services.learner.records.store import Records
from services.replay.store import Store


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("source")
    server = redis_server.start(home / "redis", password=PASSWORD)
    data = DataFolder((home / "data").resolve())
    records = Records.connect(server.url)
    run_of(records, "run-1", data.root)
    run_of(records, "run-2", data.root).succeed()
    job = {"id": "ev-1", "run_id": "run-2", "state": "succeeded", "request": {}, "created_at": "2026-01-01T00:00:00Z"}
    records.client.hset(keys.EVALUATIONS, "ev-1", json.dumps(job))
    for path in (
        data.run("run-1") / "checkpoints" / "0.safetensors",
        data.run("run-2") / "checkpoints" / "1_000.safetensors",
        data.evaluation_report("ev-1"),
        data.imported / "mine.safetensors",
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(3_000))
    store = Store(server.url, 5, remembered_ids=3)
    store.create(DEMOS, b"", capacity_rows=0)
    store.create(BUFFER, b"its configuration", capacity_rows=5 * ROWS)
    for number in range(12):
        append(store, DEMOS, number)
        append(store, BUFFER, number)
    yield Deployment(server, data.root)
    server.stop()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Deployment]:
    server = redis_server.start(tmp_path / "redis", password=PASSWORD)
    yield Deployment(server, tmp_path / "data")
    server.stop()


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Nothing may ever get into it."""
    home = tmp_path_factory.mktemp("unused")
    server = redis_server.start(home / "redis", password=PASSWORD)
    yield Deployment(server, home / "data")
    server.stop()
