"""The JSON document in the header of a checkpoint, read as what it is: a stranger's.

    document = read_document("checkpoint", metadata["newt"])
    document.model_config, document.tasks.names, document.info

A document either has every field in its type and bounds, or CheckpointError names the one that has not. Fields that
this version does not know are left aside: a later version of the same format may add some.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from newt.agent.config import ConfigError, ModelConfig, PlanConfig, TrainConfig

FORMAT_VERSION = 1
MAX_CHARACTERS = 16 << 20
MAX_TASKS = 10_000
# No network of this size exists; building one layer by layer, or allocating it, must not be tried.
MAX_SIZE = 1 << 16
MAX_LAYERS = 64
MAX_COUNT = 1 << 62

Json = dict[str, Any]
Kind = Literal["checkpoint", "weights"]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
_Config = TypeVar("_Config", ModelConfig, TrainConfig, PlanConfig)


class CheckpointError(ValueError):
    """A blob is not a readable checkpoint of the expected kind; the message says what was found."""


class Strict(BaseModel):
    """No value is taken for one of another type, and every number is finite."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class TaskRows(Strict):
    """The task table without its embeddings, one entry per row."""

    names: list[Name] = Field(min_length=1, max_length=MAX_TASKS)
    action_dims: list[Annotated[int, Field(ge=1, le=MAX_SIZE)]] = Field(max_length=MAX_TASKS)
    discounts: list[Annotated[float, Field(gt=0, le=1)]] = Field(max_length=MAX_TASKS)


class Vision(Strict):
    """How the image features are made up that the agent takes."""

    feature_dim: int = Field(ge=1, le=8192)
    frames: int = Field(ge=1, le=8)


class TrainedWith(Strict):
    """What later uses of the agent take over from the settings of its run; the others are kept as they are."""

    model_config = ConfigDict(extra="allow")

    plan: Json | None = None
    vision: Vision | None = None


class Info(Strict):
    """What this project writes beside the agent and reads again; others may add what they like."""

    model_config = ConfigDict(extra="allow")

    env_steps: Count | None = None
    guided_tasks: list[Name] | None = Field(None, max_length=MAX_TASKS)
    updates: Count | None = None
    run_id: str | None = Field(None, max_length=256)
    text_encoder: str | None = Field(None, max_length=256)
    image_encoder: str | None = Field(None, max_length=1024)
    spec: TrainedWith | None = None
    official: Json | None = None
    trained_mode: Literal["planner", "policy"] | None = None
    obs_dims: list[Annotated[int, Field(ge=0, le=MAX_SIZE)]] | None = Field(None, max_length=MAX_TASKS)


class Start(Strict):
    """What a document is, before the rest of it is read."""

    format: str = Field(max_length=64)
    version: int = Field(ge=1, le=MAX_COUNT)


class _Weights(Strict):
    sizes: Json = Field(alias="model_config")
    tasks: TaskRows
    info: Info


class _Checkpoint(_Weights):
    constants: Json = Field(alias="train_config")


@dataclass(frozen=True)
class Document:
    """A header that has been checked.

    Attributes:
        model_config: Sizes of the model.
        train_config: Constants of its training; None in a document of bare weights.
        tasks: Rows of its task table.
        info: What the writer added.
    """

    model_config: ModelConfig
    train_config: TrainConfig | None
    tasks: TaskRows
    info: Json


def read_document(kind: Kind, text: str) -> Document:
    """Reads and checks a document.

    Args:
        kind: What it must be of.
        text: JSON.

    Raises:
        CheckpointError: It is not a document of that kind, or of a newer format; the message names the field.
    """
    if len(text) > MAX_CHARACTERS:
        raise CheckpointError(f"its newt header has {len(text)} characters, expected at most {MAX_CHARACTERS}")
    start = _read(Start, text)
    if start.format != f"newt-{kind}":
        raise CheckpointError(f"expected newt-{kind}, got {start.format!r}")
    require_known(start.version, FORMAT_VERSION, "it")
    read = _read(_Checkpoint if kind == "checkpoint" else _Weights, text)
    info = read.info.model_dump(exclude_unset=True)
    if read.info.spec is not None and read.info.spec.plan is not None:
        _config(PlanConfig, read.info.spec.plan, "info.spec.plan")
    return Document(
        _config(ModelConfig, read.sizes, "model_config"),
        _config(TrainConfig, read.constants, "train_config") if isinstance(read, _Checkpoint) else None,
        read.tasks,
        info,
    )


def require_known(version: int, known: int, source: str) -> None:
    """Raises CheckpointError for the format of a later version; names the source."""
    if version > known:
        raise CheckpointError(
            f"{source} was written in format {version}, this version reads up to {known}: update newt"
        )


_Model = TypeVar("_Model", bound=BaseModel)


def _read(model: type[_Model], text: str) -> _Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(_first(error, "")) from error


def _config(settings: type[_Config], values: Json, field: str) -> _Config:
    """Settings of the agent, checked twice: by type and size, so that their own checks can rely on it."""
    try:
        return settings.from_dict(_SCHEMAS[settings.__name__].model_validate(values).model_dump(exclude_unset=True))
    except ValidationError as error:
        raise CheckpointError(_first(error, field)) from error
    except ConfigError as error:
        raise CheckpointError(f"{field}: {error}") from error


def _schema(settings: type[Any]) -> type[BaseModel]:
    hints: dict[str, Any] = get_type_hints(settings)
    if settings is ModelConfig:
        size = Annotated[int, Field(le=MAX_SIZE)]
        hints = {name: size if hint is int else hint for name, hint in hints.items()}
        hints["encoder_layers"] = hints["num_critics"] = Annotated[int, Field(le=MAX_LAYERS)]
        hints["size"] = Annotated[str, Field(max_length=64)]
    else:
        hints = {name: Annotated[int, Field(le=MAX_COUNT)] if hint is int else hint for name, hint in hints.items()}
    if settings is TrainConfig:
        hints["value_percentiles"] = Annotated[tuple[float, float], Field(strict=False)]  # JSON has lists only
    members: dict[str, Any] = {field.name: (hints[field.name], field.default) for field in fields(settings)}
    config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())
    return create_model(settings.__name__, __config__=config, **members)


_SCHEMAS = {settings.__name__: _schema(settings) for settings in (ModelConfig, TrainConfig, PlanConfig)}


def _first(error: ValidationError, prefix: str) -> str:
    """The first of pydantic's errors as field and reason, without the whole input."""
    found = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in (prefix, *found["loc"]) if part != "")
    if found["type"] == "json_invalid":
        return f"its newt header is not JSON ({str(found['ctx']['error'])[:200]}): the file is damaged, use another"
    got = "" if found["type"] == "missing" else f", got {_short(found['input'])}"
    return f"{field or 'its newt header'}: {found['msg'][:300]}{got}"


def _short(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, int) and not -MAX_COUNT <= value <= MAX_COUNT:
        return "a number beyond 2**62"
    return repr(value[:80] if isinstance(value, str) else value)
