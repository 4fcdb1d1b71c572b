"""The two optimiser states of a published checkpoint, to and from the learner's.

`optim` has five groups (encoder, dynamics, reward, online critics, policy), `pi_optim` one (policy). Parameters
are numbered through in the order of `published_order`. A parameter has an entry in `state` once it was stepped:
the policy's in `optim` only if there was pretraining.

The published way keeps one set of moments per critic, the updater stacks them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from newt.agent.config import ConfigError, ModelConfig, TrainConfig
from newt.errors import InvalidInputError
from newt.official.layout import expected_shapes, published_order
from newt.official.names import official_names

MAIN, POLICY = "optim", "pi_optim"
WARMUP_UPDATES = 5000
_NETWORKS = {
    MAIN: ("encoder", "dynamics", "reward_head", "critics", "policy_head"),
    POLICY: ("policy_head",),
}
_OWN_PREFIX = {MAIN: "optim.main", POLICY: "optim.policy"}
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# What Adam computes, besides rates and eps; the learner's optimisers have the same.
_MATHS = {"betas": (0.9, 0.999), "weight_decay": 0, "amsgrad": False, "maximize": False}
# How Adam computes it: kept for the way back.
_EXECUTION = {
    "foreach": None,
    "capturable": True,
    "differentiable": False,
    "fused": True,
    "decoupled_weight_decay": False,
}

State = dict[str, Tensor]


@dataclass(frozen=True)
class GroupStyle:
    """What a published optimiser's groups hold besides numbers that training uses.

    Attributes:
        execution: Switches of torch's Adam, the same in all groups.
        initial_lr: Whether groups carry `initial_lr`, as they do where the warm-up was set up.
    """

    execution: Mapping[str, Any] = field(default_factory=lambda: dict(_EXECUTION))
    initial_lr: bool = False


@dataclass(frozen=True)
class OfficialOptimizers:
    """Both optimisers, checked.

    Attributes:
        state: The moments by the updater's names.
        train_config: Rates, eps and warm-up of the file; published defaults elsewhere.
        updates: Steps that the main optimiser has made.
        style: What else the groups hold.
    """

    state: State
    train_config: TrainConfig
    updates: int
    style: GroupStyle


def parse_optimizers(optim: Any, pi_optim: Any, config: ModelConfig, source: str) -> OfficialOptimizers:
    """Checks both optimisers against the model and converts them.

    Raises:
        InvalidInputError: Groups, numbering, shapes or settings are not those of a published checkpoint.
    """
    groups: dict[str, Sequence[Mapping[str, Any]]] = {}
    state: State = {}
    for name, value in ((MAIN, optim), (POLICY, pi_optim)):
        groups[name] = _groups(name, value, config, source)
        state |= _moments(name, value["state"], config, source)
    step = state.get(f"{_OWN_PREFIX[MAIN]}.encoder.layers.0.weight.step")
    updates = 0 if step is None else int(step)
    everything = [*groups[MAIN], *groups[POLICY]]
    for group in everything:
        other = {key: group.get(key) for key, value in _MATHS.items() if group.get(key) != value}
        if other:
            raise InvalidInputError(source, f"Adam settings {other} cannot be continued here; expected {_MATHS}")
    styles = [{key: group[key] for key in _EXECUTION if key in group} for group in everything]
    if any(style != styles[0] for style in styles):
        raise InvalidInputError(source, "expected the same execution switches in all groups of both optimisers")
    style = GroupStyle(styles[0], all("initial_lr" in group for group in everything))
    return OfficialOptimizers(state, _train_config(groups, updates, source), updates, style)


def write_optimizers(
    state: Mapping[str, Tensor], model_config: ModelConfig, train_config: TrainConfig, updates: int, style: GroupStyle
) -> dict[str, Any]:
    """Composes `optim` and `pi_optim` from `Updater.state_dict`'s tensors: the inverse of `parse_optimizers`."""
    base = train_config.lr
    factor = warmup_factor(train_config, updates)
    rates = {MAIN: [base * train_config.encoder_lr_factor, base, base, base, base], POLICY: [base]}
    eps = {MAIN: train_config.adam_eps, POLICY: train_config.policy_adam_eps}
    execution = {key: style.execution[key] for key in _EXECUTION if key in style.execution}  # in torch's order
    result = {}
    for name in (MAIN, POLICY):
        ids = _numbering(name, model_config)
        groups, first = [], 0
        for network, lr in zip(_NETWORKS[name], rates[name], strict=True):
            count = len(published_order(model_config, network))
            group = {"lr": factor * lr, "betas": _MATHS["betas"], "eps": eps[name], **_without_betas(_MATHS)}
            group |= execution | ({"initial_lr": lr} if style.initial_lr else {})
            groups.append(group | {"params": list(range(first, first + count))})
            first += count
        entries: dict[int, dict[str, Tensor]] = {}
        for own, published in _trained(name, model_config).items():
            keys = {moment: f"{_OWN_PREFIX[name]}.{own}.{moment}" for moment in _MOMENTS}
            if keys["step"] not in state:
                continue
            stacked = own.startswith("critics.")
            for member, target in enumerate(published):
                entries[ids[target]] = {
                    moment: (state[key][member] if stacked and moment != "step" else state[key]).clone()
                    for moment, key in keys.items()
                }
        result[name] = {"state": dict(sorted(entries.items())), "param_groups": groups}
    return result


def warmup_factor(config: TrainConfig, updates: int) -> float:
    """Share of the full learning rate that was in effect at the last of `updates` updates."""
    return min(1.0, (updates + 1) / config.warmup_updates) if config.warmup_updates else 1.0


def _without_betas(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "betas"}


def _trained(name: str, config: ModelConfig) -> dict[str, list[str]]:
    """Published names of an optimiser's parameters by the learner's name."""
    return {own: names for own, names in official_names(config).items() if own.split(".")[0] in _NETWORKS[name]}


def _numbering(name: str, config: ModelConfig) -> dict[str, int]:
    names = [published for network in _NETWORKS[name] for published in published_order(config, network)]
    return {published: i for i, published in enumerate(names)}


def _groups(name: str, value: Any, config: ModelConfig, source: str) -> Sequence[Mapping[str, Any]]:
    counts = [len(published_order(config, network)) for network in _NETWORKS[name]]
    if not isinstance(value, Mapping) or set(value) != {"state", "param_groups"}:
        raise InvalidInputError(source, f"{name}: expected an optimiser's state and param_groups, got {_kind(value)}")
    groups = value["param_groups"]
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise InvalidInputError(source, f"{name}: expected a list of parameter groups, got {_kind(groups)}")
    params = [group.get("params") for group in groups]
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    expected = [list(range(end - count, end)) for end, count in zip(ends, counts, strict=True)]
    if params != expected:
        got = [len(ids) if isinstance(ids, list) else ids for ids in params]
        raise InvalidInputError(
            source, f"{name}: expected groups of {counts} parameters, numbered through; got groups of {got}"
        )
    if not isinstance(value["state"], Mapping) or not set(value["state"]) <= set(range(ends[-1])):
        raise InvalidInputError(source, f"{name}: expected states of parameters 0 to {ends[-1] - 1}")
    return groups


def _moments(name: str, entries: Mapping[int, Any], config: ModelConfig, source: str) -> State:
    ids, shapes = _numbering(name, config), expected_shapes(config)
    state: State = {}
    for own, published in _trained(name, config).items():
        present = [target for target in published if ids[target] in entries]
        if not present:
            continue
        if present != published:
            raise InvalidInputError(source, f"{name}: {own} has moments for {len(present)} of {len(published)} critics")
        for target in published:
            _check_entry(f"{name}: {target}", entries[ids[target]], shapes[target], source)
        parts = [entries[ids[target]] for target in published]
        if any(float(part["step"]) != float(parts[0]["step"]) for part in parts):
            raise InvalidInputError(source, f"{name}: the critics' {own} were not stepped equally often")
        prefix = f"{_OWN_PREFIX[name]}.{own}"
        state[f"{prefix}.step"] = parts[0]["step"].clone()
        for moment in _MOMENTS[1:]:
            tensors = [part[moment] for part in parts]
            state[f"{prefix}.{moment}"] = torch.stack(tensors) if own.startswith("critics.") else tensors[0].clone()
    return state


def _check_entry(what: str, entry: Any, shape: tuple[int, ...], source: str) -> None:
    if not isinstance(entry, Mapping) or set(entry) != set(_MOMENTS):
        raise InvalidInputError(source, f"{what}: expected {list(_MOMENTS)}, got {_kind(entry)}")
    for moment, expected in zip(_MOMENTS, ((), shape, shape), strict=True):
        tensor = entry[moment]
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or tuple(tensor.shape) != expected:
            got = f"{tensor.dtype}{list(tensor.shape)}" if isinstance(tensor, Tensor) else _kind(tensor)
            raise InvalidInputError(source, f"{what}.{moment}: expected float32{list(expected)}, got {got}")
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidInputError(source, f"{what}.{moment}: expected finite numbers, got NaN or infinity")


def _train_config(groups: Mapping[str, Sequence[Mapping[str, Any]]], updates: int, source: str) -> TrainConfig:
    """Recover rates, eps and warm-up from the groups."""
    everything = [*groups[MAIN], *groups[POLICY]]
    rates: list[tuple[Any, Any, Any]] = [
        (group.get("lr"), group.get("initial_lr", group.get("lr")), group.get("eps")) for group in everything
    ]
    if not all(isinstance(number, float) and number > 0 for row in rates for number in row):
        raise InvalidInputError(source, f"expected positive lr, initial_lr and eps in all groups, got {rates}")
    (now, encoder, eps), (_, lr, _) = rates[0], rates[1]
    factor = now / encoder
    same_lr = all(row[1] == lr for row in rates[1:])
    same_eps = all(row[2] == eps for row in rates[:-1])
    if not (same_lr and same_eps and all(math.isclose(row[0], factor * row[1]) for row in rates)):
        raise InvalidInputError(source, f"expected one rate for all networks but the encoder, and one eps; got {rates}")
    planned = all("initial_lr" in group for group in everything)
    if math.isclose(factor, 1.0):
        # Complete, or set up but never in effect.
        warmup = WARMUP_UPDATES if planned and updates + 1 >= WARMUP_UPDATES else 0
    else:
        warmup = round((updates + 1) / factor)
    default = TrainConfig()
    encoder_factor = default.encoder_lr_factor if lr * default.encoder_lr_factor == encoder else encoder / lr
    try:
        return TrainConfig(
            lr=lr,
            encoder_lr_factor=encoder_factor,
            adam_eps=eps,
            policy_adam_eps=rates[-1][2],
            warmup_updates=warmup,
        )
    except ConfigError as error:
        raise InvalidInputError(source, f"impossible optimiser settings: {error}") from error


def _kind(value: object) -> str:
    return f"keys {list(value)[:8]}" if isinstance(value, Mapping) else type(value).__name__
