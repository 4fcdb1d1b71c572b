"""What is in a checkpoint file, of either format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from newt.agent.checkpoints import Checkpoint, CheckpointError, load_checkpoint
from newt.agent.config import ModelConfig
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.official.checkpoints import parse_official, published_tasks
from newt.official.layout import OfficialModel, expected_shapes
from newt.tasks.embeddings import load_cache, text_digest
from newt.tasks.encoders import ENCODERS, identity
from newt.tasks.registry import UnknownTaskError, get_task


@dataclass(frozen=True)
class Summary:
    """One checkpoint file.

    Attributes:
        format: This project's, or the published one.
        config: Sizes of the model.
        parameters: Learnable numbers, target critics not counted.
        tasks: Names in row order; empty if the file does not tell (a published single-task file).
        rows: Rows of the task table as stored.
        updates: Updates made.
        env_steps: Environment steps of the run; None if the file does not tell.
        stepped: Parameters with moments in the main and in the policy optimiser.
        scale: The value scale S; the mean, if tasks have their own.
        text_encoder: Identity of the encoder that made the table's embeddings; None without language, or if they
            are not those of an encoder cached here.
    """

    format: Literal["newt", "published"]
    config: ModelConfig
    parameters: int
    tasks: tuple[str, ...]
    rows: int
    updates: int
    env_steps: int | None
    stepped: tuple[int, int]
    scale: float
    text_encoder: str | None


def summarise(path: Path | str) -> Summary:
    """Reads a checkpoint of either format.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: The file is damaged.
        InvalidInputError: Not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        published = file.read(2) == b"PK"
    if not published:
        return _own(open_checkpoint(path))
    official = parse_official(path)
    tasks = _published_names(official.model)
    state = official.optimizers.state if official.optimizers else {}
    return Summary(
        "published",
        official.model.config,
        _parameters(official.model.config),
        tasks,
        len(official.model.masks),
        official.updates,
        None,
        _stepped(state),
        float(official.scale),
        find_encoder(tasks, official.model.embeddings),
    )


def open_checkpoint(path: Path | str) -> Checkpoint:
    """`load_checkpoint` with this project's errors.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: Damaged.
        InvalidInputError: A published file, which has to be imported first.
    """
    try:
        with Path(path).open("rb") as file:
            if file.read(2) == b"PK":
                raise InvalidInputError(
                    str(path), "expected a newt checkpoint, got a zip file; `newt checkpoints import` converts"
                )
        return load_checkpoint(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file") from error
    except CheckpointError as error:
        raise CorruptDataError(str(error)) from error


def find_encoder(tasks: tuple[str, ...], embeddings: Tensor) -> str | None:
    """Returns the identity of the cached encoder whose vectors for these tasks' instructions these are, if any.

    Args:
        tasks: K names, in row order.
        embeddings: float32[K, G].
    """
    if not embeddings.shape[1] or len(tasks) != len(embeddings):
        return None
    try:
        digests = [text_digest(get_task(name).instruction) for name in tasks]
    except UnknownTaskError:
        return None
    for name in ENCODERS:
        cache = load_cache(name)
        known = cache.by_digest if cache else {}
        if cache and all(
            digest in known and torch.equal(torch.from_numpy(known[digest]), row)
            for digest, row in zip(digests, embeddings, strict=True)
        ):
            return identity(name, cache.fingerprint)
    return None


def _own(checkpoint: Checkpoint) -> Summary:
    table, env_steps = checkpoint.table, checkpoint.info.get("env_steps")
    return Summary(
        "newt",
        checkpoint.model_config,
        _parameters(checkpoint.model_config),
        table.names,
        len(table),
        int(checkpoint.state["updates"]),
        env_steps if isinstance(env_steps, int) else None,
        _stepped(checkpoint.state),
        float(checkpoint.state["scale"].mean()),
        find_encoder(table.names, table.embeddings),
    )


def _published_names(model: OfficialModel) -> tuple[str, ...]:
    tasks = published_tasks()
    dims = torch.tensor([task.action_dim for task in tasks])
    known = len(tasks) == len(model.masks) and bool((model.masks.sum(1) == dims).all())
    return tuple(task.name for task in tasks) if known else ()


def _stepped(state: dict[str, Tensor]) -> tuple[int, int]:
    names = [name for name in state if name.endswith(".step")]
    main = sum(name.startswith("optim.main.") for name in names)
    return main, len(names) - main


def _parameters(config: ModelConfig) -> int:
    shapes = expected_shapes(config)
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if not name.startswith("_Qs.target"))
