"""Published checkpoints: `{model, optim, pi_optim, scale}`, or a bare `model`, in a torch zip file.

    checkpoint = read_official("10_000_000.pt")              # 200 tasks, rows in the published order
    save_checkpoint("agent.newt", checkpoint.updater(), checkpoint.info)
    write_official("again.pt", load_checkpoint("agent.newt"))  # equal, tensor by tensor

Conversion is exact both ways: networks, target critics, value scale, moments and steps of both optimisers. The
published format has no place for task names, discounts, the generator's state and the training constants besides
rates; names are given or those of the 200 tasks, discounts are the registry's, the rest starts fresh.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from newt.agent.checkpoints import Checkpoint
from newt.agent.config import TrainConfig
from newt.agent.task_table import TaskTable
from newt.errors import InvalidInputError
from newt.official import pickled
from newt.official.layout import (
    IMAGE_DIM,
    OfficialModel,
    check_exportable,
    parse_model,
    published_order,
    write_model,
)
from newt.official.names import from_official, to_official
from newt.official.optimizers import MAIN, POLICY, GroupStyle, OfficialOptimizers, parse_optimizers, write_optimizers
from newt.tasks.registry import Task, UnknownTaskError, select_tasks

PARTS = ("model", MAIN, POLICY, "scale")
# Rows of a single task's table: copies of the environment in training, or the table of the 200-task agent.
SINGLE_TASK_ROWS, FINETUNED_ROWS = 10, 200
_INFO = "official"


@dataclass(frozen=True, eq=False)
class OfficialCheckpoint:
    """A published checkpoint as it is in the file, checked.

    Attributes:
        model: Networks and task table.
        optimizers: None for a bare model.
        scale: The value scale S; 1 for a bare model.
        percentiles: Between which the spread of values is measured.
    """

    model: OfficialModel
    optimizers: OfficialOptimizers | None
    scale: Tensor
    percentiles: tuple[float, float]

    @property
    def updates(self) -> int:
        """Updates made; 0 for a bare model, which does not tell."""
        return self.optimizers.updates if self.optimizers else 0


def parse_official(path: Path | str) -> OfficialCheckpoint:
    """Reads and checks a published checkpoint; its tasks need not be known.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: The file is damaged.
        InvalidInputError: Not a published checkpoint; says what was expected and found.
    """
    source, content = str(path), pickled.load(path)
    if not isinstance(content, Mapping):
        raise InvalidInputError(source, f"expected a dictionary with {', '.join(PARTS)}, got {type(content).__name__}")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        bare = parse_model(content, source)
        return OfficialCheckpoint(bare, None, torch.ones(()), TrainConfig().value_percentiles)
    if set(content) != set(PARTS):
        raise InvalidInputError(
            source, f"expected {', '.join(PARTS)}, or a model's tensors alone; got {', '.join(map(str, content))[:200]}"
        )
    model = parse_model(content["model"], source)
    optimizers = parse_optimizers(content[MAIN], content[POLICY], model.config, source)
    scale, percentiles = _scale(content["scale"], source)
    return OfficialCheckpoint(model, optimizers, scale, percentiles)


def published_tasks() -> list[Task]:
    """The 200 tasks in the row order of published multitask checkpoints."""
    return select_tasks(["mmbench"])


def read_official(path: Path | str, tasks: Sequence[str] | None = None, *, seed: int = 1) -> Checkpoint:
    """Reads a published checkpoint as one of this project's.

    Args:
        path: The file.
        tasks: Names of its tasks in row order, or anything `select_tasks` resolves to them. Not needed for the
            200 tasks; needed for a single task, which the file does not name.
        seed: Seed of the updater's generator, which the file does not store.

    Returns:
        The checkpoint. `info["official"]` keeps what only the published format knows, for `write_official`.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: The file is damaged.
        InvalidInputError: Not a published checkpoint, or one of other tasks than named.
    """
    official = parse_official(path)
    model, optimizers = official.model, official.optimizers
    table = _task_table(model, tasks, str(path))
    train_config = optimizers.train_config if optimizers else TrainConfig()
    weights = from_official(model.tensors, model.config)
    state = {f"model.{name}": tensor for name, tensor in weights.items()}
    state |= optimizers.state if optimizers else {}
    state |= {
        "scale": official.scale,
        "updates": torch.tensor(official.updates),
        "rng": torch.Generator().manual_seed(seed).get_state(),
    }
    style = optimizers.style if optimizers else GroupStyle()
    kept = {
        "prefix": model.prefix,
        "rows": len(model.masks),
        "constants": str(model.constants_dtype).removeprefix("torch."),
        "execution": dict(style.execution),
        "initial_lr": style.initial_lr,
        "bare": optimizers is None,
    }
    info = {"env_steps": 0, "updates": official.updates, _INFO: kept}
    return Checkpoint(model.config, replace(train_config, value_percentiles=official.percentiles), table, state, info)


def write_official(path: Path | str, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in the published format; `path` holds the old content or all of the new.

    Of scales per task, which that format does not know, it gets the mean.
    The table's rows follow the published task order if its tasks are the 200; any other table keeps its own order.
    A single task's row is repeated as the published format has it.

    Raises:
        InvalidInputError: The agent has sizes that the published format has no place for.
        OSError: The file cannot be written.
    """
    path, state = Path(path), checkpoint.state
    check_exportable(checkpoint.model_config, str(path))
    kept: Mapping[str, Any] = checkpoint.info.get(_INFO, {})
    masks, embeddings = _table_rows(checkpoint.table, kept.get("rows"))
    networks = to_official(
        {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")},
        checkpoint.model_config,
    )
    config = checkpoint.model_config
    order = [
        name
        for network in ("encoder", "dynamics", "reward_head", "policy_head", "critics", "target_critics")
        for name in published_order(config, network)
    ]
    constants = torch.int64 if kept.get("constants") == "int64" else torch.float32
    model = OrderedDict(
        write_model({name: networks[name] for name in order}, masks, embeddings, constants, kept.get("prefix", ""))
    )
    content: dict[str, Any] = {"model": model}
    style = GroupStyle()
    if kept:
        style = GroupStyle(kept["execution"], kept["initial_lr"])
    elif checkpoint.train_config.warmup_updates:
        style = GroupStyle(initial_lr=True)
    updates = int(state["updates"])
    content |= write_optimizers(state, config, checkpoint.train_config, updates, style)
    percentiles = torch.tensor(checkpoint.train_config.value_percentiles, dtype=torch.float32)
    content["scale"] = OrderedDict(value=state["scale"].mean().reshape(1).clone(), _percentiles=percentiles)
    pickled.save(path, model if kept.get("bare") and not updates else content)


def with_images(checkpoint: Checkpoint, image_dim: int = IMAGE_DIM) -> Checkpoint:
    """Widens a state checkpoint to state and image features; its outputs do not change.

    The features are the encoder's last inputs; their weights, and the moments of those, start at zero.

    Raises:
        InvalidInputError: The agent has image inputs already.
    """
    if checkpoint.model_config.image_dim:
        raise InvalidInputError(
            "checkpoint", f"expected an agent without images, got image_dim {checkpoint.model_config.image_dim}"
        )
    first = "encoder.layers.0.weight"
    widened = {
        name: F.pad(tensor, (0, image_dim)) if f".{first}" in name and tensor.ndim == 2 else tensor
        for name, tensor in checkpoint.state.items()
    }
    return replace(checkpoint, model_config=replace(checkpoint.model_config, image_dim=image_dim), state=widened)


def _scale(value: Any, source: str) -> tuple[Tensor, tuple[float, float]]:
    names = ("value", "_percentiles")
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise InvalidInputError(source, f"scale: expected {names}, got {value if value is None else list(value)}")
    for name, shape in zip(names, ((1,), (2,)), strict=True):
        tensor = value[name]
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or tuple(tensor.shape) != shape:
            raise InvalidInputError(source, f"scale.{name}: expected float32{list(shape)}, got {tensor}")
    low, high = value["_percentiles"].tolist()
    if not (0 < float(value["value"]) < math.inf and 0 <= low < high <= 100):
        raise InvalidInputError(
            source, f"scale: expected a positive value and rising percentiles, got {value['value']}, {low}, {high}"
        )
    return value["value"].reshape(()).clone(), (low, high)


def _task_table(model: OfficialModel, specs: Sequence[str] | None, source: str) -> TaskTable:
    masks, embeddings = model.masks, model.embeddings
    if model.single_task:
        masks, embeddings = masks[:1], embeddings[:1]
    K = len(masks)
    published = published_tasks()
    if specs is None and len(published) != K:
        what = f"a single task in {len(model.masks)} equal rows" if K == 1 else f"{K} tasks"
        raise InvalidInputError(source, f"a checkpoint of {what} does not tell their names: name the task (--task)")
    try:
        tasks = published if specs is None else select_tasks(specs)
    except UnknownTaskError as error:
        raise InvalidInputError("task", str(error)) from error
    if len(tasks) != K:
        raise InvalidInputError(source, f"the checkpoint has {K} task{'s' * (K > 1)}, {len(tasks)} were named")
    for row, task in enumerate(tasks):
        valid = int(masks[row].sum())
        if valid != task.action_dim:
            raise InvalidInputError(
                source,
                f"row {row} allows {valid} action entries, but {task.name} has {task.action_dim}: not this task's row",
            )
    return TaskTable.build(
        [task.name for task in tasks],
        embeddings,
        [task.action_dim for task in tasks],
        [task.discount for task in tasks],
    )


def _table_rows(table: TaskTable, rows: int | None) -> tuple[Tensor, Tensor]:
    """Returns masks and embeddings as the published format has them."""
    if len(table) == 1:
        count = rows or (FINETUNED_ROWS if table.language_dim else SINGLE_TASK_ROWS)
        return table.masks.repeat(count, 1), table.embeddings.repeat(count, 1)
    published = [task.name for task in published_tasks()]
    names = published if set(table.names) == set(published) else table.names
    order = torch.tensor([table.index(name) for name in names])
    return table.masks[order], table.embeddings[order]
