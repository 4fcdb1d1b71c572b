"""A run's processes while Redis or replay is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from newt.agent.distributed import SOLO
from newt.errors import UnavailableError
from newt.local import ports, redis_server
from newt.runs.record import Computing
from newt.runs.spec import RunSpec
from services.learner.records.store import Records
from services.learner.records.writer import RunWriter
from services.learner.settings import LearnerSettings
from services.learner.training.trainer import Trainer
from services.learner.waiting import StopFlag, Stopped, patiently
from services.learner.worker.main import Context

pytestmark = pytest.mark.timeout(120)

SPEC = RunSpec.model_validate(
    {
        "tasks": ["mujoco-reacher"],
        "preset": "laptop",
        "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
        "algorithm": {"language": False},
    }
)


def test_a_trainer_saves_without_redis_and_waits_for_replay(tmp_path: Path) -> None:
    redis = redis_server.start(tmp_path / "redis")
    settings = LearnerSettings(data_dir=tmp_path, replay=f"127.0.0.1:{ports.free_port()}")
    try:
        records = Records.connect(redis.url)
        run_id = records.runs.create("patient", SPEC, tmp_path).id
        attempt = records.runs.begin(run_id)
        assert attempt is not None
        context = Context(settings, records.runs.get(run_id), RunWriter(records, run_id, attempt), StopFlag())
        trainer = Trainer(context, SOLO, Computing(device="cpu", precision="float32"))
    finally:
        redis.stop()
    trainer._save()
    trainer._saver.wait()
    assert len(trainer._folder.list()) == 1
    stopper = threading.Timer(3.0, context.stop.set)
    stopper.start()
    with trainer._replay() as replay, pytest.raises(Stopped):
        replay.get_buffer(run_id)
    stopper.join()


def test_a_service_is_waited_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: 3600.0 * next(hours))
    answers = iter([UnavailableError("away"), UnavailableError("away"), None])

    def call() -> str:
        if error := next(answers):
            raise error
        return "there"

    assert patiently(call, StopFlag()) == "there"


def test_a_wait_ends_with_the_process() -> None:
    stop = StopFlag()
    stop.set()

    def call() -> None:
        raise UnavailableError("away")

    with pytest.raises(Stopped):
        patiently(call, stop)
