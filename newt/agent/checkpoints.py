"""Storing agents: whole training states in files, bare weights as bytes for planners.

Both are one safetensors blob: named tensors, and in the header a JSON document with the settings, the task
table and whatever the caller adds, plus a digest of everything. A reader needs nothing else, unpickles
nothing, and refuses a blob that is truncated, altered or of another kind before using any of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as unpack_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from newt.agent.config import ConfigError, ModelConfig, TrainConfig
from newt.agent.distributed import SOLO, Ranks
from newt.agent.learner import Learner
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel

FORMAT_VERSION = 1
_TABLE = "table.embeddings"
_MODEL = "model."

Json = dict[str, Any]


class CheckpointError(ValueError):
    """A blob is not a readable checkpoint of the expected kind; the message says what was found."""


@dataclass(frozen=True)
class Weights:
    """A model rebuilt from ``weights_to_bytes``, and the caller's ``info`` that travelled with it."""

    model: WorldModel
    info: Json


@dataclass(frozen=True)
class Checkpoint:
    """A training state read from a file.

    Attributes:
        model_config: sizes of the model.
        train_config: constants of its training.
        table: its tasks.
        state: ``Learner.state_dict``'s tensors.
        info: what the writer added: counters, run id, versions.
    """

    model_config: ModelConfig
    train_config: TrainConfig
    table: TaskTable
    state: dict[str, Tensor]
    info: Json

    def model(self, table: TaskTable | None = None) -> WorldModel:
        """Build the model on the CPU, for evaluation or as the start of fine-tuning on another ``table``."""
        model = WorldModel(self.model_config, table or self.table)
        weights = {n[len(_MODEL) :]: v for n, v in self.state.items() if n.startswith(_MODEL)}
        _load_weights(model, weights)
        return model

    def learner(
        self, device: torch.device | str = "cpu", ranks: Ranks = SOLO, compile_with: str | None = None
    ) -> Learner:
        """Build a learner that continues where the stored one stopped: to the bit, given the same type of device."""
        model = WorldModel(self.model_config, self.table).to(device)
        learner = Learner(model, self.train_config, ranks=ranks, compile_with=compile_with)
        learner.load_state_dict(self.state)
        return learner


@dataclass(frozen=True)
class Header:
    """What a checkpoint file says about itself, read without its tensors.

    Attributes:
        model_config: sizes of the model.
        tasks: names, in the order of its task table.
        info: what the writer added.
        sha256: digest of the whole content, as hex; names this very training state.
    """

    model_config: ModelConfig
    tasks: tuple[str, ...]
    info: Json
    sha256: str


def save_checkpoint(path: Path | str, learner: Learner, info: Mapping[str, Any] | None = None) -> None:
    """Write a learner's whole state; ``path`` holds the old content or all of the new, never a part.

    Args:
        path: file to create or replace.
        learner: its model, optimisers, scale, counters and generator are stored.
        info: JSON-compatible values to store beside it.

    Raises:
        OSError: the file cannot be written; an earlier file of that name is untouched.
    """
    path = Path(path)
    document = {**_model_document(learner.model), "train_config": learner.config.to_dict()}
    blob = _pack("checkpoint", document, _table_tensors(learner.model) | learner.state_dict(), info)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name itself must survive a power cut
    finally:
        os.close(directory)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint to the CPU.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is truncated, altered, of another kind or of a newer format.
    """
    document, tensors = _unpack("checkpoint", Path(path).read_bytes(), str(path))
    try:
        train_config = TrainConfig.from_dict(document["train_config"])
        model_config, table = _read_model_document(document, tensors)
    except (ConfigError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: settings cannot be used here: {error}") from error
    return Checkpoint(model_config, train_config, table, tensors, document["info"])


def read_header(path: Path | str) -> Header:
    """Read what a checkpoint says about itself. Damage to its tensors goes unnoticed here.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, or one of a newer format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a complete safetensors file: {error}") from error
    try:
        document: Json = _document("checkpoint", metadata, str(path))
        config = ModelConfig.from_dict(document["model_config"])
        return Header(config, tuple(document["tasks"]["names"]), document["info"], metadata["sha256"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: settings cannot be used here: {error}") from error


def weights_to_bytes(model: WorldModel, info: Mapping[str, Any] | None = None) -> bytes:
    """Pack a model's weights, sizes and task table, for a planner that knows nothing of the run.

    Target critics are left out: planning does not use them.

    Args:
        model: on any device.
        info: JSON-compatible values to send along, such as run id and weights version.
    """
    tensors = _table_tensors(model)
    tensors |= {n: v.detach() for n, v in model.state_dict().items() if not n.startswith("target_critics.")}
    return _pack("weights", _model_document(model), tensors, info)


def weights_from_bytes(data: bytes) -> Weights:
    """Rebuild a model on the CPU from ``weights_to_bytes``; its target critics equal the online ones.

    Raises:
        CheckpointError: the bytes are truncated, altered, of another kind or of a newer format.
    """
    document, tensors = _unpack("weights", data, "weights")
    try:
        model_config, table = _read_model_document(document, tensors)
    except (ConfigError, KeyError, ValueError) as error:
        raise CheckpointError(f"weights: settings cannot be used here: {error}") from error
    for name in [name for name in tensors if name.startswith("critics.")]:
        tensors[f"target_{name}"] = tensors[name]
    model = WorldModel(model_config, table)
    _load_weights(model, tensors)
    return Weights(model, document["info"])


def _load_weights(model: WorldModel, weights: Mapping[str, Tensor]) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the model they name: {error}") from error


def _table_tensors(model: WorldModel) -> dict[str, Tensor]:
    return {_TABLE: model.table.embeddings}


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


def _read_model_document(document: Json, tensors: dict[str, Tensor]) -> tuple[ModelConfig, TaskTable]:
    """Return sizes and task table; takes the table's tensors out of ``tensors``."""
    config = ModelConfig.from_dict(document["model_config"])
    tasks = document["tasks"]
    table = TaskTable.build(
        tasks["names"], tensors.pop(_TABLE), tasks["action_dims"], tasks["discounts"], config.action_dim
    )
    return config, table


def _pack(kind: str, document: Json, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None) -> bytes:
    header = {"format": f"newt-{kind}", "version": FORMAT_VERSION, "torch": torch.__version__}
    text = json.dumps({**header, **document, "info": dict(info or {})}, sort_keys=True)
    # Clones give each name its own storage, which the format requires.
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = _digest(text, stored)
    blob: bytes = pack_tensors(stored, {"newt": text, "sha256": digest})
    return blob


def _unpack(kind: str, data: bytes, source: str) -> tuple[Json, dict[str, Tensor]]:
    try:
        tensors: dict[str, Tensor] = unpack_tensors(data)
        metadata = _metadata(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{source}: expected a complete safetensors file, got {len(data)} bytes that are not one: {error}"
        ) from error
    document = _document(kind, metadata, source)
    if _digest(metadata["newt"], tensors) != metadata["sha256"]:
        raise CheckpointError(f"{source}: content does not match its sha256: the file is damaged, use another")
    return document, tensors


def _document(kind: str, metadata: Mapping[str, str], source: str) -> Json:
    if "newt" not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"{source}: a safetensors file, but not written by newt (no newt header)")
    try:
        document: Json = json.loads(metadata["newt"])
    except ValueError as error:
        raise CheckpointError(f"{source}: its newt header is not JSON: the file is damaged, use another") from error
    if document["format"] != f"newt-{kind}":
        raise CheckpointError(f"{source}: expected newt-{kind}, got {document['format']}")
    if document["version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{source}: written in format {document['version']}, this version reads up to {FORMAT_VERSION}: update newt"
        )
    return document


def _metadata(data: bytes) -> dict[str, str]:
    """Read the header's free text: the library gives it only for files on disk."""
    length = int.from_bytes(data[:8], "little")
    header: Json = json.loads(data[8 : 8 + length])
    return dict(header.get("__metadata__", {}))


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash the document and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
