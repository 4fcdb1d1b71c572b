"""Storing agents: whole training states in files, bare weights as bytes for planners.

Both are one safetensors blob: named tensors, and in the header a JSON document with the settings, the task
table and whatever the caller adds, plus a digest of everything. A reader needs nothing else, unpickles
nothing, and refuses a blob that is truncated, altered or of another kind before using any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newt.agent import blobs, value_scale
from newt.agent.checkpoint_header import FORMAT_VERSION, Document, Json, Kind
from newt.agent.checkpoint_header import CheckpointError as CheckpointError
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.copies import copied
from newt.agent.distributed import SOLO, Ranks
from newt.agent.headers import document_of, read_metadata
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel

_TABLE = "table.embeddings"
_MODEL = "model."
_MOMENTS_OF_OBS = "obs_moments."
_LEARNED = "task_embeddings"  # where they are trained; they are stored in the table as well
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoint:
    """A training state read from a file.

    Attributes:
        model_config: Sizes of the model.
        train_config: Constants of its training.
        table: Its tasks.
        state: `Updater.state_dict`'s tensors.
        info: What the writer added: counters, run id, versions.
    """

    model_config: ModelConfig
    train_config: TrainConfig
    table: TaskTable
    state: dict[str, Tensor]
    info: Json

    def model(self, table: TaskTable | None = None) -> WorldModel:
        """Builds the model on the CPU, for evaluation or as the start of fine-tuning on another `table`."""
        model = WorldModel(self.model_config, table or self.table)
        weights = {n[len(_MODEL) :]: v for n, v in self.state.items() if n.startswith(_MODEL)}
        if _LEARNED in weights:
            weights[_LEARNED] = model.table.embeddings  # rows of the table in use
        weights |= _moments_of(model, weights, self.table)
        _load_weights(model, weights)
        return model

    def updater(
        self,
        device: torch.device | str = "cpu",
        ranks: Ranks = SOLO,
        kind: type[Updater] = Updater,
    ) -> Updater:
        """Builds an updater that continues where the stored one stopped: to the bit, given the same type of device."""
        model = WorldModel(self.model_config, self.table).to(device)
        updater = kind(model, self.train_config, ranks=ranks)
        updater.load_state_dict(self.state)
        return updater


def save_checkpoint(path: Path | str, updater: Updater, info: Mapping[str, Any] | None = None) -> None:
    """Writes an updater's whole state; `path` holds the old content or all of the new, never a part.

    Args:
        path: File to create or replace.
        updater: Its model, optimisers, scale, counters and generator are stored.
        info: JSON-compatible values to store beside it.

    Raises:
        OSError: The file cannot be written; an earlier file of that name is untouched.
    """
    copied_checkpoint(updater, info)(Path(path))


def copied_checkpoint(updater: Updater, info: Mapping[str, Any] | None = None) -> Callable[[Path], None]:
    """Copies what `save_checkpoint` writes, and returns what writes the copy: the slow part, for another thread.

    The copy is on the updater's device and as large as its state; the writer has it until it is dropped itself, and
    takes twice as much of the host's memory while it writes.
    """
    document = {**_model_document(updater.model), "train_config": updater.config.to_dict()}
    state = _table_tensors(updater.model) | updater.state_dict()

    def write(path: Path) -> None:
        blobs.write(path, _pack("checkpoint", document, state, info))

    return write


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint to the CPU.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file is truncated, altered, of another kind or of a newer format.
    """
    document, tensors = _unpack("checkpoint", Path(path).read_bytes(), str(path))
    assert document.train_config is not None  # as in every document of this kind
    table = _read_table(document, tensors, str(path))
    _check_state(_outline(document, table), document.train_config, tensors, str(path))
    return Checkpoint(document.model_config, document.train_config, table, tensors, document.info)


def weights_to_bytes(model: WorldModel, info: Mapping[str, Any] | None = None) -> bytes:
    """Packs a model's weights, sizes and task table, for a planner that knows nothing of the run.

    Target critics are left out: planning does not use them.

    Args:
        model: On any device.
        info: JSON-compatible values to send along, such as run id and `newt.agent.constraint.Guidance`.
    """
    return copied_weights(model, info)()


def copied_weights(model: WorldModel, info: Mapping[str, Any] | None = None) -> Callable[[], bytes]:
    """Copies what `weights_to_bytes` packs, and returns what packs the copy: the slow part, for another thread."""
    tensors = {n: v for n, v in model.state_dict().items() if not n.startswith("target_critics.")}
    tensors[_TABLE] = model.task_embeddings
    return partial(_pack, "weights", _model_document(model), copied(tensors), info)


def weights_from_bytes(data: bytes) -> WorldModel:
    """Rebuilds a model on the CPU from `weights_to_bytes`; its target critics equal the online ones.

    Raises:
        CheckpointError: The bytes are truncated, altered, of another kind or of a newer format.
    """
    document, tensors = _unpack("weights", data, "weights")
    table = _read_table(document, tensors, "weights")
    for name in [name for name in tensors if name.startswith("critics.")]:
        tensors[f"target_{name}"] = tensors[name]
    _check_fit(tensors, _outline(document, table).state_dict(), "weights")
    model = WorldModel(document.model_config, table)
    _load_weights(model, tensors)
    return model


def weights_info(data: bytes) -> Json:
    """Reads what was sent along with `weights_to_bytes`, without the tensors; damage to those goes unnoticed here.

    Raises:
        CheckpointError: The bytes are of another kind or of a newer format.
    """
    try:
        text = read_metadata(data)["newt"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"weights: expected a safetensors file: {error}") from error
    return document_of("weights", text, "weights").info


def _moments_of(model: WorldModel, weights: Mapping[str, Tensor], stored: TaskTable) -> dict[str, Tensor]:
    """The stored moments of observations of the tasks that the model is for; fresh ones where none are stored."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(_MOMENTS_OF_OBS)}
    rows = [(row, stored.index(name)) for row, name in enumerate(model.table.names) if name in stored.names]
    for name, value in own.items():
        for row, at in rows:
            value[row] = weights[name][at]
    return own


def _load_weights(model: WorldModel, weights: Mapping[str, Tensor]) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the model they name: {error}") from error


def _table_tensors(model: WorldModel) -> dict[str, Tensor]:
    return {_TABLE: model.task_embeddings.detach().clone()}


def _model_document(model: WorldModel) -> Json:
    table = model.table
    return {
        "model_config": model.config.to_dict(),
        "tasks": {
            "names": list(table.names),
            "action_dims": table.action_dims.tolist(),
            "discounts": table.discounts.tolist(),
        },
    }


def _read_table(document: Document, tensors: dict[str, Tensor], source: str) -> TaskTable:
    """Builds the task table; takes its embeddings out of `tensors`."""
    config, rows = document.model_config, document.tasks
    embeddings = tensors.pop(_TABLE, None)
    expected = torch.empty(len(rows.names), config.language_dim, device="meta")
    _check_fit({} if embeddings is None else {_TABLE: embeddings}, {_TABLE: expected}, source)
    try:
        return TaskTable.build(rows.names, embeddings, rows.action_dims, rows.discounts, config.action_dim)
    except ValueError as error:
        raise CheckpointError(f"{source}: tasks: {error}") from error


def _outline(document: Document, table: TaskTable) -> WorldModel:
    """Returns the model that a document describes, without memory for its weights."""
    _ = table.masks  # made here and kept: below it would be made without memory
    with torch.device("meta"):
        return WorldModel(document.model_config, table)


def _check_state(model: WorldModel, config: TrainConfig, state: Mapping[str, Tensor], source: str) -> None:
    """Compares `Updater.state_dict`'s tensors with those of an updater of this model."""
    expected = {f"{_MODEL}{name}": value for name, value in model.state_dict().items()}
    expected |= {
        **value_scale.outline(config, len(model.table.names)),
        "updates": torch.empty((), dtype=torch.int64, device="meta"),
        "rng": torch.Generator().get_state(),
    }
    for name, parameter in model.named_parameters():
        for optimizer, wanted in (("main", parameter.requires_grad), ("policy", name.startswith("policy_head."))):
            moments = {key: f"optim.{optimizer}.{name}.{key}" for key in _MOMENTS}
            if wanted and any(key in state for key in moments.values()):  # absent before a parameter's first step
                expected |= {full: parameter for key, full in moments.items() if key != "step"}
                expected[moments["step"]] = torch.empty((), device="meta")
    _check_fit(state, expected, source)
    if int(state["updates"]) < 0 or not bool(torch.isfinite(state["scale"]).all()):
        raise CheckpointError(f"{source}: updates and scale: got {int(state['updates'])} and {state['scale'].tolist()}")
    try:
        torch.Generator().set_state(state["rng"])
    except RuntimeError as error:
        raise CheckpointError(f"{source}: rng: not the state of a generator: {error}") from error


def _check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Compares names, types and shapes."""
    for what, names in (("lacks", expected.keys() - tensors.keys()), ("has unknown", tensors.keys() - expected.keys())):
        if names:
            shown = ", ".join(name[:80] for name in sorted(names)[:3])
            raise CheckpointError(f"{source}: {what} tensors: {len(names)}, such as {shown}")
    for name, tensor in tensors.items():
        wanted = expected[name]
        if (tensor.dtype, tensor.shape) != (wanted.dtype, wanted.shape):
            raise CheckpointError(
                f"{source}: {name}: got {tensor.dtype}{list(tensor.shape)}, expected {wanted.dtype}"
                f"{list(wanted.shape)} by its model_config and tasks"
            )


def _pack(kind: Kind, document: Json, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None) -> bytes:
    header = {"format": f"newt-{kind}", "version": FORMAT_VERSION, "torch": torch.__version__}
    return blobs.pack({**header, **document, "info": dict(info or {})}, tensors)


def _unpack(kind: Kind, data: bytes, source: str) -> tuple[Document, dict[str, Tensor]]:
    text, tensors = blobs.unpack(data, source)
    return document_of(kind, text, source), tensors
