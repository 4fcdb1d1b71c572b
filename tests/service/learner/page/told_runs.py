"""Runs whose processes are played by the tests."""

from __future__ import annotations

import json
from typing import Any

from api_server import Api

from newt.runs.record import Computing, TaskProgress
from services.learner.records import keys
from services.learner.records.progress import CollectorProgress, TrainerProgress
from services.learner.records.writer import RunWriter


def start(api: Api, **request: Any) -> RunWriter:
    """A run whose processes are played by the test."""
    reply = api.http.post("/runs", json={"preset": "laptop", "tasks": ["mujoco-reacher"], **request})
    assert reply.status_code == 201, reply.text
    return attempt_of(api, reply.json()["id"])


def attempt_of(api: Api, run_id: str) -> RunWriter:
    attempt = api.learner.records.runs.begin(run_id)
    assert attempt is not None
    return RunWriter(api.learner.records, run_id, attempt)


def tell(writer: RunWriter, stage: str, env_steps: int, score: float = 0.5) -> None:
    """Reports progress as both processes do."""
    done = TaskProgress(last_score=score, last_return=9.0, last_success=1.0, episodes=env_steps // 500)
    tasks = dict.fromkeys(writer.get().tasks, done)
    collected = CollectorProgress(stage=stage, env_steps=env_steps, env_steps_per_s=100, tasks=tasks)
    on = Computing(device="cpu", precision="float32", warning="1 GPU of this machine is not used")
    updates, losses = env_steps // 5, {"value_loss": 2.0}
    trained = TrainerProgress(attempt=writer.attempt, updates=updates, losses=losses, computing=on)
    writer.progress("trainer", trained)
    writer.progress("collector", collected)


def store(api: Api, writer: RunWriter, rows: list[tuple[str, int, int, dict[str, float]]]) -> None:
    """Stores rows of source, env steps, updates and values."""
    client: Any = api.learner.records.runs._redis
    for begin in range(0, len(rows), 2_000):
        pipe = client.pipeline()
        for source, env_steps, updates, values in rows[begin : begin + 2_000]:
            fields = {"source": source, "env_steps": env_steps, "updates": updates, "values": json.dumps(values)}
            pipe.xadd(keys.part(writer.run_id, "metrics"), fields)
        pipe.execute()
