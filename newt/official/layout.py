"""The `model` part of a published checkpoint: sizes from shapes, and a check of every tensor.

| Entry | Shape |
|---|---|
| `_action_masks` | [rows, A], ones then zeros; a row per task, or equal rows for a single task |
| `log_std_min`, `log_std_dif` | scalars, -10 and 12 |
| `_task_emb.weight` | [rows, G]; absent without language |
| `_encoder.state.<i>`, `_dynamics.<i>`, `_reward.<i>`, `_pi.<i>` | layers |
| `_Qs.online._Qs.<member>.<i>`, `_Qs.target._Qs.<member>.<i>` | layers |

Each layer has `weight` [out, in], `bias` [out] and, if normed, `ln.weight` and `ln.bias`. Every name begins
with `module.` if several processes trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from newt.agent.config import SIZES, ConfigError, ModelConfig
from newt.agent.task_table import TaskTable
from newt.agent.world_model import LOG_STD_MAX, LOG_STD_MIN, WorldModel
from newt.errors import InvalidInputError
from newt.official.names import official_names
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM

IMAGE_DIM = 768
NUM_BINS = 101
PREFIX = "module."
MASKS, EMBEDDINGS = "_action_masks", "_task_emb.weight"
CONSTANTS = {"log_std_min": LOG_STD_MIN, "log_std_dif": LOG_STD_MAX - LOG_STD_MIN}


@dataclass(frozen=True, eq=False)
class OfficialModel:
    """A checked `model` dictionary.

    Attributes:
        config: Sizes, recognised from the shapes.
        tensors: Networks' tensors by published name, without prefix.
        masks: float32[rows, A].
        embeddings: float32[rows, G]; G = 0 without language.
        constants_dtype: Element type of the two log-std constants.
        prefix: `module.` or nothing.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    masks: Tensor
    embeddings: Tensor
    constants_dtype: torch.dtype
    prefix: str

    @property
    def single_task(self) -> bool:
        """Whether all rows are the same: one task, trained in several copies or fine-tuned on."""
        return bool((self.masks == self.masks[0]).all() and (self.embeddings == self.embeddings[0]).all())


def published_order(config: ModelConfig, network: str) -> list[str]:
    """Lists a network's published tensor names in the order of its published parameter list.

    Args:
        config: Sizes.
        network: Attribute of `WorldModel`, for example `critics`: there, one critic follows the other.
    """
    tensors = [names for own, names in official_names(config).items() if own.split(".")[0] == network]
    return [names[member] for member in range(len(tensors[0])) for names in tensors]


def parse_model(model: Any, source: str) -> OfficialModel:
    """Recognises the sizes of a `model` dictionary and checks each of its tensors.

    Args:
        model: As loaded.
        source: Names the file in errors.

    Raises:
        InvalidInputError: Tensors are missing, unknown, of another shape or type, or not finite.
    """
    if not isinstance(model, Mapping) or not all(isinstance(value, Tensor) for value in model.values()):
        raise InvalidInputError(source, f"expected `model` to map names to tensors, got {_describe(model)}")
    names = [str(name) for name in model]
    prefix = PREFIX if names and all(name.startswith(PREFIX) for name in names) else ""
    tensors: dict[str, Tensor] = {str(name)[len(prefix) :]: value.detach() for name, value in model.items()}
    config = _recognise(tensors, source)
    expected = expected_shapes(config)
    constants = [tensors.get(name) for name in CONSTANTS]
    for (name, value), tensor in zip(CONSTANTS.items(), constants, strict=True):
        if tensor is None or tensor.ndim or float(tensor) != value:
            raise InvalidInputError(source, f"expected a scalar {name!r} of {value}, got {_describe(tensor)}")
    networks = {n: t for n, t in tensors.items() if n not in (MASKS, EMBEDDINGS, *CONSTANTS)}
    missing, unknown = sorted(set(expected) - set(networks)), sorted(set(networks) - set(expected))
    if missing or unknown:
        raise InvalidInputError(
            source,
            f"a model of these sizes (latent {config.latent_dim}, mlp {config.mlp_dim}, {config.num_critics} critics) "
            f"has {len(expected)} network tensors; missing here: {missing[:3]}, unknown: {unknown[:3]}",
        )
    masks = tensors[MASKS]
    shapes = {**expected, MASKS: (len(masks), config.action_dim)}
    if config.language_dim:
        shapes[EMBEDDINGS] = (len(masks), config.language_dim)
    for name, shape in shapes.items():
        _check_tensor(name, tensors.get(name), shape, source)
    _check_masks(masks, source)
    # A table beside networks without language inputs is unused, and dropped.
    embeddings = tensors[EMBEDDINGS] if config.language_dim else masks.new_zeros(len(masks), 0)
    dtype = next(tensor.dtype for tensor in constants if tensor is not None)
    return OfficialModel(config, {n: networks[n] for n in expected}, masks, embeddings, dtype, prefix)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every network tensor by published name."""
    table = TaskTable.build(["any"], torch.zeros(1, config.language_dim), [1], [1.0], config.action_dim)
    assert len(table.masks) == 1  # cached before the default device changes
    with torch.device("meta"):
        own = WorldModel(config, table).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, published in official_names(config).items():
        shape = tuple(own[name].shape)
        shapes |= {target: shape[1:] if "critics" in name.split(".")[0] else shape for target in published}
    return shapes


def write_model(
    networks: Mapping[str, Tensor], masks: Tensor, embeddings: Tensor, constants_dtype: torch.dtype, prefix: str
) -> dict[str, Tensor]:
    """Composes a `model` dictionary: the inverse of `parse_model`.

    Args:
        networks: Tensors by published name, as `newt.official.names.to_official` returns them.
        masks: float32[rows, A].
        embeddings: float32[rows, G]; left out if G = 0.
        constants_dtype: Float32, or int64 as older files have it.
        prefix: `module.` or nothing.
    """
    constants = {name: torch.tensor(value, dtype=constants_dtype) for name, value in CONSTANTS.items()}
    table = {EMBEDDINGS: embeddings} if embeddings.shape[1] else {}
    model = {MASKS: masks, **constants, **table, **networks}
    return {prefix + name: tensor.contiguous() for name, tensor in model.items()}


def check_exportable(config: ModelConfig, source: str) -> None:
    """Refuses sizes that the published format has no place for.

    Raises:
        InvalidInputError: Names the setting.
    """
    plain = ModelConfig()
    sizes = ("obs_dim", "action_dim", "num_bins", "vmin", "vmax", "simnorm_dim", "critic_dim")
    for name in (*sizes, "learned_embeddings", "obs_scaling", "policy_only"):
        if getattr(config, name) != getattr(plain, name):
            raise InvalidInputError(
                source,
                f"the published format needs {name} {getattr(plain, name)}, this agent has {getattr(config, name)}",
            )
    if config.image_dim not in (0, IMAGE_DIM):
        raise InvalidInputError(
            source, f"the published format needs image_dim 0 or {IMAGE_DIM}, got {config.image_dim}"
        )


def _recognise(tensors: Mapping[str, Tensor], source: str) -> ModelConfig:
    def shape(name: str) -> tuple[int, ...]:
        tensor = tensors.get(name)
        rank = 2 if name == MASKS or name.endswith("weight") else 1
        if tensor is None or tensor.ndim != rank or 0 in tensor.shape:
            raise InvalidInputError(
                source,
                f"expected the model of a published checkpoint with a tensor {name!r} of rank {rank}, got "
                f"{_describe(tensor)} among {len(tensors)} tensors ({', '.join(list(tensors)[:3])}, ...)",
            )
        return tuple(tensor.shape)

    if shape(MASKS)[1] != PADDED_ACTION_DIM:
        raise InvalidInputError(source, f"expected {PADDED_ACTION_DIM} columns in {MASKS!r}, got {shape(MASKS)[1]}")
    layers = 1
    while f"_encoder.state.{layers}.weight" in tensors:
        layers += 1
    encoder_in, encoder_dim = shape("_encoder.state.0.weight")[1], shape("_encoder.state.0.weight")[0]
    latent_dim = shape(f"_encoder.state.{layers - 1}.weight")[0]
    mlp_dim, dynamics_in = shape("_dynamics.0.weight")
    num_bins = shape("_reward.2.weight")[0]
    critics = 0
    while f"_Qs.online._Qs.{critics}.0.weight" in tensors:
        critics += 1
    language_dim = dynamics_in - latent_dim - PADDED_ACTION_DIM
    image_dim = encoder_in - PADDED_OBS_DIM - language_dim
    if language_dim < 0 or image_dim not in (0, IMAGE_DIM) or num_bins != NUM_BINS:
        raise InvalidInputError(
            source,
            f"expected encoder inputs of {PADDED_OBS_DIM} + language + 0 or {IMAGE_DIM} image features, dynamics "
            f"inputs of latent + language + {PADDED_ACTION_DIM} and {NUM_BINS} bins; got {encoder_in}, {dynamics_in} "
            f"(latent {latent_dim}) and {num_bins}",
        )
    numbers = {
        "latent_dim": latent_dim,
        "encoder_dim": encoder_dim,
        "encoder_layers": layers,
        "mlp_dim": mlp_dim,
        "num_critics": critics,
    }
    size = next((name for name, known in SIZES.items() if known == numbers), "custom")
    try:
        return ModelConfig.from_dict({"size": size, **numbers, "language_dim": language_dim, "image_dim": image_dim})
    except ConfigError as error:
        raise InvalidInputError(source, f"impossible sizes: {error}") from error


def _check_tensor(name: str, tensor: Tensor | None, shape: tuple[int, ...], source: str) -> None:
    if tensor is None or tensor.dtype != torch.float32 or tuple(tensor.shape) != shape:
        raise InvalidInputError(source, f"{name}: expected float32{list(shape)}, got {_describe(tensor)}")
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidInputError(source, f"{name}: expected finite numbers, got NaN or infinity")


def _check_masks(masks: Tensor, source: str) -> None:
    dims = masks.sum(1)
    regular = (torch.arange(masks.shape[1]) < dims[:, None]).float()
    wrong = ((masks != regular).any(1) | (dims < 1)).nonzero().flatten().tolist()
    if wrong:
        raise InvalidInputError(
            source,
            f"{MASKS}: expected rows of ones followed by zeros, got {masks[wrong[0]].tolist()} in row {wrong[0]}",
        )


def _describe(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}" if value.numel() != 1 else repr(value)
    return type(value).__name__
