"""Published checkpoints and demonstration files, built without any of the code under test.

The agent is written out with torch's own layers under the published names and trained with torch's own Adam, so that
names, parameter order and optimiser states are what torch makes of that layout.
"""

from __future__ import annotations

import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newt.tasks.registry import select_tasks

OBS, ACTION, BINS = 128, 16, 101


@dataclass(frozen=True)
class Sizes:
    latent: int
    encoder: int
    encoder_layers: int
    mlp: int
    critics: int


S = Sizes(384, 128, 2, 256, 3)
B = Sizes(512, 256, 2, 512, 5)
L = Sizes(512, 1024, 3, 1024, 5)
XL = Sizes(704, 2048, 4, 2048, 7)
SMALL = Sizes(16, 12, 3, 20, 5)  # L's depths and number of critics


class NormedLinear(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.ln = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(super().forward(x))


class Head(nn.Sequential):
    def __init__(self, inputs: int, hidden: list[int], outputs: int, *, latent: bool) -> None:
        widths = [inputs, *hidden]
        layers: list[nn.Module] = [NormedLinear(a, b) for a, b in pairwise(widths)]
        layers.append((NormedLinear if latent else nn.Linear)(widths[-1], outputs))
        super().__init__(*layers)
        self.latent = latent

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self
        for layer in hidden:
            x = F.mish(layer(x))
        x = last(x)
        return x.unflatten(-1, (-1, 8)).softmax(-1).flatten(-2) if self.latent else x


class Agent(nn.Module):
    """The published layout; constructing it draws random weights for everything, targets included."""

    def __init__(self, sizes: Sizes, masks: Tensor, embeddings: Tensor | None, images: int = 0) -> None:
        super().__init__()
        self.register_buffer("_action_masks", masks)
        self.register_buffer("log_std_min", torch.tensor(-10.0))
        self.register_buffer("log_std_dif", torch.tensor(12.0))
        language = 0
        if embeddings is not None:
            language = embeddings.shape[1]
            self._task_emb = nn.Embedding.from_pretrained(embeddings, freeze=True)
        D, hidden = sizes.latent, [sizes.mlp] * 2

        def critics() -> nn.Module:
            ensemble = nn.Module()
            ensemble._Qs = nn.ModuleList(
                Head(D + language + ACTION, hidden, BINS, latent=False) for _ in range(sizes.critics)
            )
            return ensemble

        encoder = Head(OBS + language + images, [sizes.encoder] * (sizes.encoder_layers - 1), D, latent=True)
        self._encoder = nn.ModuleDict({"state": encoder})
        self._dynamics = Head(D + language + ACTION, hidden, D, latent=True)
        self._reward = Head(D + language + ACTION, hidden, BINS, latent=False)
        self._pi = Head(D + language, hidden, 2 * ACTION, latent=False)
        self._Qs = nn.Module()
        self._Qs.online, self._Qs.target = critics(), critics()
        with torch.no_grad():  # no tensor may be constant: layer norms start at 1 and 0
            for parameter in filter(lambda p: p.requires_grad, self.parameters()):
                parameter.add_(0.1 * torch.randn(parameter.shape))


@dataclass
class Published:
    agent: Agent
    content: dict[str, Any]


def masks_of(action_dims: list[int]) -> Tensor:
    return (torch.arange(ACTION) < torch.tensor(action_dims)[:, None]).float()


def multitask(sizes: Sizes, **options: Any) -> Published:
    """200 tasks with language."""
    dims = [task.action_dim for task in select_tasks(["mmbench"])]
    torch.manual_seed(options.pop("seed", 0))
    language = options.pop("language", 512)
    agent = Agent(sizes, masks_of(dims), torch.randn(200, language), options.pop("images", 0))
    return published(agent, **options)


def single_task(sizes: Sizes, action_dim: int, **options: Any) -> Published:
    """Ten copies of one task, no language."""
    torch.manual_seed(options.pop("seed", 0))
    agent = Agent(sizes, masks_of([action_dim] * options.pop("copies", 10)), None)
    return published(agent, **options)


def published(
    agent: Agent, *, steps: int = 2, pretrained: bool = True, warmup: int = 5000, prefix: str = ""
) -> Published:
    """Step both optimisers on random gradients, and save as the published trainer does.

    Pretraining steps the policy in the main optimiser; the online phase steps it in its own.
    """
    online = agent._Qs.online
    networks = [agent._encoder, agent._dynamics, agent._reward, online, agent._pi]
    groups = [{"params": list(net.parameters())} for net in networks]
    groups[0]["lr"] = 3e-4 * 0.3
    optim = torch.optim.Adam(groups, lr=3e-4, fused=True)
    pi_optim = torch.optim.Adam(agent._pi.parameters(), lr=3e-4, eps=1e-5, fused=True)
    schedules = []
    if warmup:
        schedules = [
            torch.optim.lr_scheduler.LambdaLR(opt, lambda j: min(1.0, (j + 1) / warmup)) for opt in (optim, pi_optim)
        ]
    for step in range(steps):
        policy_in_main = pretrained and step == 0
        for net in networks:
            for parameter in net.parameters():
                parameter.grad = torch.randn(parameter.shape) if net is not agent._pi or policy_in_main else None
        for opt, schedule in zip((optim, pi_optim), schedules, strict=False):
            opt._opt_called = True  # the published trainer moves the schedule first
            schedule.step()
        optim.step()
        if not policy_in_main:
            for parameter in agent._pi.parameters():
                parameter.grad = torch.randn(parameter.shape)
            pi_optim.step()
    model = OrderedDict((prefix + name, tensor.detach().clone()) for name, tensor in agent.state_dict().items())
    scale = OrderedDict(value=torch.tensor([3.25]), _percentiles=torch.tensor([5.0, 95.0]))
    content = {"model": model, "optim": optim.state_dict(), "pi_optim": pi_optim.state_dict(), "scale": scale}
    return Published(agent, content)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two contents differ: types, keys and their order, element types, shapes, bits, numbers."""
    if type(a) is not type(b):
        return [f"{path}: {type(a)} and {type(b)}"]
    if isinstance(a, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(-1), b.view(-1))
        return [] if same else [path]
    if isinstance(a, dict):
        if list(a) != list(b):
            return [f"{path}: keys {list(a)} and {list(b)}"]
        return [found for key in a for found in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: lengths {len(a)} and {len(b)}"]
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in differences(*pair, f"{path}.{i}")]
    return [] if a == b else [f"{path}: {a} and {b}"]


def rewrite(source: Path, target: Path, **entries: Any) -> None:
    """Copy an archive with the bytes of some entries (by last part of the name) put through functions."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            change = entries.get(entry.filename.rpartition("/")[2].replace(".", "_"), bytes)
            new.writestr(zipfile.ZipInfo(entry.filename), change(old.read(entry)))


def on_cuda(data: bytes) -> bytes:
    """Location tags of a pickle, as written on the first GPU."""
    cpu, cuda = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert cpu in data
    return data.replace(cpu, cuda)


@contextmanager
def tensordict_library() -> Iterator[type]:
    """Modules of the names that tensordict 0.10 pickles its objects by, for torch.save and torch.load to find.

    Yields the class; ``TensorDict(state)`` has the pickled attributes in ``state``.
    """

    class TensorDict:
        def __init__(self, state: dict[str, Any]) -> None:
            self.state = state

        def __reduce__(self) -> Any:
            return make, (TensorDict, self.state)

    def make(cls: type, state: dict[str, Any]) -> Any:
        assert cls is TensorDict
        return cls(state)

    TensorDict.__module__, TensorDict.__qualname__ = "tensordict._td", "TensorDict"
    make.__module__, make.__qualname__, make.__name__ = "tensordict._reductions", "_make_td", "_make_td"
    modules = {name: types.ModuleType(name) for name in ("tensordict", "tensordict._td", "tensordict._reductions")}
    modules["tensordict._td"].TensorDict = TensorDict  # type: ignore[attr-defined]
    modules["tensordict._reductions"]._make_td = make  # type: ignore[attr-defined]
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield TensorDict
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def demo_columns(
    episodes: int, length: int, obs_dim: int, action_dim: int, *, value: bool = True, feat: bool = False
) -> dict[str, Tensor]:
    """Rows of a demonstration file: what the published writer makes of finished episodes."""
    generator = torch.Generator().manual_seed(episodes * length)
    rows = length + 1
    parts: dict[str, list[Tensor]] = {}
    for number in range(episodes):
        obs, action = torch.zeros(rows, OBS), torch.zeros(rows, ACTION)
        obs[:, :obs_dim] = torch.randn(rows, obs_dim, generator=generator)
        action[:, :action_dim] = torch.rand(rows, action_dim, generator=generator) * 2 - 1
        reward = torch.randn(rows, generator=generator)
        action[0], reward[0] = float("nan"), float("nan")
        row = {"obs": obs, "action": action, "reward": reward}
        row |= {"value": reward * 2} if value else {}
        row |= {"terminated": torch.zeros(rows, dtype=torch.bool), "episode": torch.full((rows,), number)}
        row |= {"feat": torch.randn(rows, 768, generator=generator)} if feat else {}
        for name, tensor in row.items():
            parts.setdefault(name, []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def save_demos(path: Path, columns: dict[str, Tensor]) -> None:
    """Save as tensordict 0.10 does."""
    rows = len(columns["episode"])
    state = {
        "_has_mps_val": False,
        "_device": torch.device("cpu"),
        "_tensordict": dict(columns),
        "_batch_size": torch.Size([rows]),
        "_td_dim_names": None,
    }
    with tensordict_library() as TensorDict:
        torch.save(TensorDict(state), path)
