"""A deployment that is told to compute on a GPU, on a machine that has none."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch

from newt.local import ports
from newt.local.redis_server import RedisServer
from newt.runs.record import RunState
from newt.runs.spec import RunSpec
from services.learner.records.store import Records
from services.learner.waiting import EXIT_FAILED

pytestmark = [pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"), pytest.mark.timeout(300)]

TRAINER, LEARNING = "services.learner.training.trainer", "services.learner.direct.learning"


@pytest.mark.parametrize(("module", "algorithm"), [(TRAINER, "newt"), (LEARNING, "ppo")])
def test_the_run_fails_with_a_sentence_at_once_and_can_be_resumed(
    module: str, algorithm: str, shared_redis: RedisServer, records: Records, tmp_path: Path
) -> None:
    """No crash that is tried again and again: what is wrong stays wrong until somebody changes a setting."""
    asked = {"tasks": ["mujoco-reacher"], "preset": "laptop", "algorithm": {"name": algorithm, "language": False}}
    run_id = records.runs.create(f"gpu-{uuid.uuid4().hex[:8]}", RunSpec.model_validate(asked), tmp_path).id
    attempt = records.runs.begin(run_id)
    settings = {"REDIS_URL": shared_redis.url, "DATA_DIR": str(tmp_path), "DEVICE": "cuda"}
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--job", run_id, "--attempt", str(attempt)],
        env={**os.environ, **{f"NEWT_LEARNER_{name}": value for name, value in settings.items()}},
        stdin=subprocess.PIPE,  # held open, as by the learner: its end would be the process's
    )
    try:
        assert process.wait(200) == EXIT_FAILED
    finally:
        process.kill()
        process.communicate()
    run = records.runs.get(run_id)
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert "NEWT_LEARNER_DEVICE=cuda" in run.error
    assert "expected auto, cpu, or a GPU that torch can use" in run.error
    records.runs.resume(run_id)
    assert records.runs.get(run_id).state is RunState.QUEUED


def test_the_planner_does_not_start_and_says_why() -> None:
    environment = {**os.environ, "NEWT_PLANNER_DEVICE": "cuda", "NEWT_PLANNER_HUB": f"127.0.0.1:{ports.free_port()}"}
    done = subprocess.run(
        [sys.executable, "-m", "services.planner"], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert "planner: cannot start: NEWT_PLANNER_DEVICE=cuda: " in done.stderr.splitlines()[-1]
