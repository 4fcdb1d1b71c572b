"""One broken file in a folder of checkpoints: the others are listed, it is shown with its reason, and can go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as pack

from newt.agent.checkpoints import save_checkpoint
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.errors import AlreadyExistsError, InvalidInputError, NotFoundError, PreconditionError, TooLargeError
from services.learner.checkpoints.folder import NEWEST, CheckpointFolder
from services.learner.checkpoints.library import CheckpointLibrary

LIMIT = 1 << 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = TaskTable.build(["reach"], torch.zeros(1, 0), [4], [0.99])
    sizes = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "num_bins": 11}
    updater = Updater(WorldModel(ModelConfig.from_size("XS", language_dim=0, **sizes), table), TrainConfig())
    path = tmp_path_factory.mktemp("whole") / "agent.safetensors"
    save_checkpoint(path, updater, {"env_steps": 10, "updates": 3})
    return path


def a_file(newt: object) -> bytes:
    return pack({"a": torch.zeros(2)}, {"newt": json.dumps(newt), "sha256": "0"})


def directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


MAKERS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "noise": lambda path: path.write_bytes(os.urandom(300)),
    "a huge length": lambda path: path.write_bytes(b"\xff" * 8 + b"{}"),
    "another header": lambda path: path.write_bytes(a_file({"format": "newt-checkpoint", "version": 1})),
    "a directory": directory,
    "a link to nowhere": lambda path: path.symlink_to(path.parent / "nowhere"),
    "not readable": lambda path: (path.touch(), path.chmod(0)),
}
NAMES = ["broken", "spaces and ümlauts", b"\xff\xfe", "a" * 200, "%00", "0"]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_broken_file_is_shown_and_can_be_removed(whole: Path, tmp_path: Path, make: str, name: str | bytes) -> None:
    for folder in (tmp_path / "checkpoints", tmp_path / "runs" / "r" / "checkpoints"):
        folder.mkdir(parents=True)
        shutil.copy(whole, folder / "whole.safetensors")
        MAKERS[make](folder / (os.fsdecode(name) + ".safetensors"))
    library, run = CheckpointLibrary(tmp_path), CheckpointFolder(tmp_path / "runs" / "r")
    for listed, remove in ((library.imported, library.remove), (run.list, run.remove)):
        found = {item.name: item for item in listed()}
        assert len(found) == 2
        assert json.loads(json.dumps(list(found)))
        assert found.pop("whole").broken is None
        ((shown, item),) = found.items()
        assert item.broken
        assert item.model_dump_json()
        remove(shown)
        assert [item.name for item in listed()] == ["whole"]
        with pytest.raises(NotFoundError):
            remove(shown)
    assert run.resolve(NEWEST) == "whole"
    assert library.resolve("r").reference == "r/whole"


def test_a_broken_one_is_named_but_not_used(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "mine.safetensors").write_bytes(a_file([]))
    with pytest.raises(PreconditionError, match="imported/mine cannot be used: its newt header"):
        CheckpointLibrary(tmp_path).resolve("imported/mine")


def bring(library: CheckpointLibrary, name: str, content: bytes, limit: int = LIMIT) -> None:
    with library.receive(name, limit) as incoming:
        incoming.write(content)
        incoming.accept()


@given(content=st.binary(max_size=64) | st.builds(a_file, st.dictionaries(st.text(max_size=5), st.integers())))
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_refused_leaves_nothing(whole: Path, tmp_path: Path, content: bytes) -> None:
    library = CheckpointLibrary(tmp_path)
    with pytest.raises(InvalidInputError, match="file"):
        bring(library, "mine", content)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_name_is_given_once_and_sizes_are_bounded(whole: Path, tmp_path: Path) -> None:
    library = CheckpointLibrary(tmp_path)
    content = whole.read_bytes()
    with pytest.raises(TooLargeError, match="NEWT_LEARNER_MAX_CHECKPOINT_BYTES"):
        bring(library, "mine", content, limit=len(content) - 1)
    with library.receive("mine", LIMIT) as late:
        late.write(content)
        bring(library, "mine", content, limit=len(content))
        with pytest.raises(AlreadyExistsError):
            late.accept()
    with pytest.raises(AlreadyExistsError):
        library.receive("mine", LIMIT)
    (tmp_path / "checkpoints" / ".other.0.partial").touch()  # of a learner that was killed
    assert [item.name for item in CheckpointLibrary(tmp_path).imported()] == ["mine"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["mine.safetensors"]


def test_a_run_whose_id_begins_with_a_dash_or_is_long_can_be_named(whole: Path, tmp_path: Path) -> None:
    for run_id in ("--0a1b2c3d", "n" * 64 + "-0a1b2c3d"):
        folder = tmp_path / "runs" / run_id / "checkpoints"
        folder.mkdir(parents=True)
        shutil.copy(whole, folder / "0.safetensors")
        assert CheckpointLibrary(tmp_path).resolve(run_id).reference == f"{run_id}/0"
