"""Checkpoints that are written beside the training, with real records."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from newt.agent.checkpoints import copied_checkpoint
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.local import redis_server
from newt.runs.spec import RunSpec
from services.learner.checkpoints.folder import CheckpointFolder
from services.learner.checkpoints.saving import CheckpointSaver, Write
from services.learner.records.store import Records
from services.learner.records.writer import RunWriter
from services.learner.waiting import RunFailedError

pytestmark = pytest.mark.timeout(60)

SIZES = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "num_bins": 11}


class Desk:
    """A run's folder, its record, and a model whose checkpoints are written when they may be."""

    def __init__(self, records: Records, place: Path) -> None:
        run_id = records.runs.create(place.name, RunSpec(tasks=["mujoco-reacher"], preset="laptop"), place).id
        attempt = records.runs.begin(run_id)
        assert attempt is not None
        self._records, self._run_id = records, run_id
        table = TaskTable.build(["reach"], torch.zeros(1, 0), [4], [0.99])
        self.updater = Updater(WorldModel(ModelConfig.from_size("XS", language_dim=0, **SIZES), table), TrainConfig())
        self.place, self.folder = place, CheckpointFolder(place)
        self.saver = CheckpointSaver(self.folder, RunWriter(records, run_id, attempt))
        self.may_write = threading.Event()
        self.copied: list[int] = []

    def save(self, updates: int) -> None:
        self.updater.updates = updates
        self.saver.save(str(updates), updates, self._copy)

    def _copy(self) -> Write:
        updates = self.updater.updates
        self.copied.append(updates)
        write = copied_checkpoint(self.updater, {"env_steps": updates, "updates": updates})

        def when_it_may(path: Path) -> None:
            assert self.may_write.wait(30)
            write(path)

        return when_it_may

    def stored(self) -> list[str]:
        return [checkpoint.name for checkpoint in self.folder.list()]

    def told(self) -> list[str]:
        events = self._records.history.events(self._run_id)
        return [event.message for event in events if event.kind == "checkpoint"]


def check_until_told(saver: CheckpointSaver) -> None:
    while True:
        saver.check()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    server = redis_server.start(tmp_path_factory.mktemp("redis"))
    yield Records.connect(server.url)
    server.stop()


@pytest.fixture
def desk(records: Records, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(records, tmp_path)
    yield desk
    desk.may_write.set()


def test_the_training_goes_on_while_one_is_written_and_the_next_waits_for_it(desk: Desk) -> None:
    with desk.saver:
        desk.save(1)
        desk.saver.check()
        assert (desk.stored(), desk.told()) == ([], [])
        following = threading.Thread(target=desk.save, args=(2,))
        following.start()
        following.join(0.2)
        assert following.is_alive()
        assert desk.copied == [1]  # two copies of a state would be too many
        desk.may_write.set()
        following.join(30)
        assert desk.copied == [1, 2]
    assert desk.stored() == ["1", "2"]  # leaving the block has waited
    assert desk.told() == ["checkpoint 1 after 1 updates", "checkpoint 2 after 2 updates"]
    assert not any(thread.name.startswith("checkpoint") for thread in threading.enumerate())


def test_one_that_cannot_be_written_is_told_with_its_reason(desk: Desk) -> None:
    desk.may_write.set()
    desk.save(1)
    desk.saver.wait()
    checkpoints = desk.place / "checkpoints"
    checkpoints.rename(desk.place / "aside")
    checkpoints.touch()  # a folder cannot be made there, whoever one is
    desk.save(2)
    with pytest.raises(RunFailedError, match=r"cannot write checkpoint 2: .*File exists.*; make room and resume"):
        check_until_told(desk.saver)
    desk.save(3)
    with pytest.raises(RunFailedError, match="cannot write checkpoint 3"):
        desk.save(4)
    with pytest.raises(RunFailedError, match="cannot write checkpoint 5"), desk.saver:
        desk.save(5)
    desk.save(6)
    with pytest.raises(ZeroDivisionError), desk.saver:  # what ends the block is the cause
        raise ZeroDivisionError
    assert desk.copied == [1, 2, 3, 5, 6]
    assert desk.told() == ["checkpoint 1 after 1 updates"]
    checkpoints.unlink()
    (desk.place / "aside").rename(checkpoints)
    assert desk.stored() == ["1"]
