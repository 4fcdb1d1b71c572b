"""Names and layout of the published checkpoints' tensors, mapped to and from this project's.

The published layout keeps one tensor per critic; here critics are stacked on a leading axis. Column orders
are the same, so the mapping is lossless.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from newt.agent.config import ModelConfig

_NETWORKS = {
    "encoder": "_encoder.state",
    "dynamics": "_dynamics",
    "reward_head": "_reward",
    "policy_head": "_pi",
}
_ENSEMBLES = {"critics": "_Qs.online._Qs", "target_critics": "_Qs.target._Qs"}
_TENSORS = {"weight": "weight", "bias": "bias", "norm_weight": "ln.weight", "norm_bias": "ln.bias"}


def official_names(config: ModelConfig) -> dict[str, list[str]]:
    """Maps each parameter name of `WorldModel` to its published names: one, or one per stacked critic.

    The order of the published names is that of the published parameter list.
    """
    names: dict[str, list[str]] = {}
    depth = {"encoder": config.encoder_layers}

    def tensors(network: str, index: int) -> list[str]:
        normed = index < depth.get(network, 3) - 1 or network in ("encoder", "dynamics")
        return list(_TENSORS) if normed else ["weight", "bias"]

    for network, official in _NETWORKS.items():
        for i in range(depth.get(network, 3)):
            for tensor in tensors(network, i):
                names[f"{network}.layers.{i}.{tensor}"] = [f"{official}.{i}.{_TENSORS[tensor]}"]
    for network, official in _ENSEMBLES.items():
        for i in range(3):
            for tensor in tensors(network, i):
                names[f"{network}.layers.{i}.{tensor}"] = [
                    f"{official}.{member}.{i}.{_TENSORS[tensor]}" for member in range(config.num_critics)
                ]
    return names


def from_official(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Returns `WorldModel.load_state_dict`'s input from a published `model` dictionary.

    Raises:
        KeyError: A tensor is missing.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    ours: dict[str, Tensor] = {}
    for name, sources in official_names(config).items():
        missing = [source for source in sources if source not in plain]
        if missing:
            raise KeyError(f"checkpoint lacks {missing[0]!r}, needed for {name!r}")
        tensors = [plain[source].detach().to("cpu", torch.float32) for source in sources]
        ours[name] = torch.stack(tensors) if name.split(".")[0] in _ENSEMBLES else tensors[0].clone()
    return ours


def to_official(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Returns a `WorldModel.state_dict` under its published names: the inverse of `from_official`."""
    official: dict[str, Tensor] = {}
    for name, targets in official_names(config).items():
        parts = state[name].unbind() if name.split(".")[0] in _ENSEMBLES else (state[name],)
        official |= {target: part.clone() for target, part in zip(targets, parts, strict=True)}
    return official
