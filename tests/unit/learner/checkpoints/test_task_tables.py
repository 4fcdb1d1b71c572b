from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from newt.agent.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.headers import Header, read_header
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.errors import AlreadyExistsError, InvalidInputError, NotFoundError, PreconditionError
from newt.runs.record import ImportedCheckpoint
from newt.runs.sections import ModelSpec
from newt.runs.spec import RunSpec
from newt.tasks.embeddings import embed_tasks
from newt.tasks.registry import get_task
from services.learner.checkpoints.fine_tuning import adopt
from services.learner.checkpoints.library import CheckpointLibrary, Resolved, hold
from services.learner.checkpoints.task_table import task_table
from services.learner.checkpoints.usable import check_usable

SEEN, UNSEEN = get_task("mujoco-reacher"), get_task("walker-walk")
ENCODER = "minilm-l6-v2"


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    embedded = embed_tasks([SEEN], ENCODER)
    # A row of its own, that no encoder makes: what the agent was trained with counts, not what it would be today.
    table = TaskTable.build([SEEN.name], embedded.vectors + 1, [SEEN.action_dim], [SEEN.discount])
    sizes = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "num_bins": 11}
    updater = Updater(WorldModel(ModelConfig.from_size("XS", **sizes), table), TrainConfig())
    path = tmp_path_factory.mktemp("checkpoint") / "agent.safetensors"
    save_checkpoint(path, updater, {"env_steps": 0, "updates": 0, "text_encoder": embedded.encoder})
    return path


@pytest.fixture
def checkpoint(checkpoint_file: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_file)


@pytest.fixture
def header(checkpoint_file: Path) -> Header:
    return read_header(checkpoint_file)


def test_own_rows_stay_and_unseen_tasks_are_embedded(checkpoint: Checkpoint) -> None:
    table, encoder = task_table(checkpoint, [UNSEEN, SEEN])
    assert table.names == (UNSEEN.name, SEEN.name)
    assert torch.equal(table.embeddings[1], checkpoint.table.embeddings[0])
    embedded = embed_tasks([UNSEEN], ENCODER)
    assert torch.equal(table.embeddings[0], torch.from_numpy(embedded.vectors[0]))
    assert encoder == checkpoint.info["text_encoder"] == embedded.encoder
    assert table.action_dims.tolist() == [UNSEEN.action_dim, SEEN.action_dim]


def test_a_changed_instruction_replaces_the_row(checkpoint: Checkpoint) -> None:
    told = embed_tasks([UNSEEN], ENCODER).vectors[0]
    table, _ = task_table(checkpoint, [SEEN], {SEEN.name: UNSEEN.instruction})
    assert torch.equal(table.embeddings[0], torch.from_numpy(told))
    assert table.action_dims.tolist() == [SEEN.action_dim]


def test_encoders_never_mix(checkpoint: Checkpoint) -> None:
    other = replace(checkpoint, info={**checkpoint.info, "text_encoder": f"{ENCODER}@0123456789ab"})
    with pytest.raises(PreconditionError, match="0123456789ab"):
        task_table(other, [UNSEEN])
    table, encoder = task_table(other, [SEEN])  # its own rows need no encoder
    assert encoder == f"{ENCODER}@0123456789ab"
    assert torch.equal(table.embeddings, checkpoint.table.embeddings)


def test_an_agent_without_language_plays_any_task_but_is_told_nothing(checkpoint: Checkpoint, header: Header) -> None:
    config = replace(checkpoint.model_config, language_dim=0)
    own = TaskTable.build([SEEN.name], torch.zeros(1, 0), [SEEN.action_dim], [SEEN.discount])
    table, encoder = task_table(replace(checkpoint, model_config=config, table=own, info={}), [SEEN, UNSEEN])
    assert (table.language_dim, len(table), encoder) == (0, 2, "")
    with pytest.raises(InvalidInputError, match="reads no language"):
        check_usable(replace(header, model_config=config), [SEEN], {SEEN.name: "Reach."})


def test_other_dimensions_than_the_simulators_are_refused(header: Header) -> None:
    with pytest.raises(PreconditionError, match="obs_dim 64"):
        check_usable(replace(header, model_config=replace(header.model_config, obs_dim=64)), [SEEN], {})


def test_a_run_takes_over_the_model_and_may_repeat_it(header: Header) -> None:
    source = Resolved("imported/agent", Path("agent"), header)
    request = {"tasks": [UNSEEN.name], "preset": "laptop", "init_from": "imported/agent"}
    spec = adopt(RunSpec.model_validate(request), source)
    assert replace(spec.model_settings(), size="") == replace(header.model_config, size="")
    assert not spec.pretrains()
    assert not spec.has_demos()
    assert spec.starts_with_policy()
    assert spec.plan_settings().constrained
    assert spec.train_settings().warmup_updates == 0
    stored = RunSpec.model_validate_json(spec.model_dump_json())
    assert stored == spec
    assert adopt(stored, source) == spec  # every setting named
    other = {**request, "model": {"size": "XS"}}
    with pytest.raises(InvalidInputError, match=r"model\.\w+: got \d+, but the checkpoint imported/agent has"):
        adopt(RunSpec.model_validate(other), source)


def test_demonstrations_can_be_asked_for_in_fine_tuning() -> None:
    request = {"tasks": ["mw-reach"], "init_from": "x", "demos": {"scripted_episodes": 3}}
    spec = RunSpec.model_validate(request)
    assert spec.has_demos()
    assert not spec.pretrains()
    forced = RunSpec.model_validate({**request, "algorithm": {"pretraining": True}})
    assert forced.pretrains()


@pytest.mark.parametrize("size", ["XS", "L"])
def test_a_named_size_is_described_by_its_name(size: str) -> None:
    spec = ModelSpec.of(ModelConfig.from_size(size))
    assert spec.model_dump(exclude_none=True) == {"size": size}


def bring(library: CheckpointLibrary, name: str, *pieces: bytes) -> ImportedCheckpoint:
    with library.receive(name, 1 << 24) as incoming:
        for piece in pieces:
            incoming.write(piece)
        return incoming.accept()


def test_the_library_takes_in_finds_and_removes(tmp_path: Path, checkpoint_file: Path) -> None:
    library, content = CheckpointLibrary(tmp_path), checkpoint_file.read_bytes()
    added = bring(library, "mine", content[:1000], content[1000:])
    assert (added.name, added.tasks) == ("mine", [SEEN.name])
    resolved = library.resolve("imported/mine")
    assert (resolved.run_id, resolved.header.tasks) == (None, (SEEN.name,))
    hold(resolved.path, tmp_path / "copy")
    with pytest.raises(AlreadyExistsError):
        bring(library, "mine", content)
    damaged = bytearray(content)
    damaged[-100] ^= 1
    with pytest.raises(InvalidInputError, match="damaged"):
        bring(library, "other", bytes(damaged))
    with pytest.raises(InvalidInputError, match="name"):
        bring(library, "../other", content)
    assert [item.name for item in library.imported()] == ["mine"]
    library.remove("mine")
    assert library.imported() == []
    assert (tmp_path / "copy").read_bytes() == content
    with pytest.raises(NotFoundError):
        library.resolve("imported/mine")


def test_the_library_finds_the_newest_of_a_run(tmp_path: Path, checkpoint_file: Path) -> None:
    folder = tmp_path / "runs" / "run-1" / "checkpoints"
    folder.mkdir(parents=True)
    library = CheckpointLibrary(tmp_path)
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        library.resolve("run-1")
    (folder / "0.safetensors").write_bytes(checkpoint_file.read_bytes())
    assert library.resolve("run-1").reference == library.resolve("run-1/newest").reference == "run-1/0"
    (folder / "0.safetensors").write_bytes(b"nonsense")
    with pytest.raises(PreconditionError, match="run-1/0 cannot be used"):
        library.resolve("run-1/0")
