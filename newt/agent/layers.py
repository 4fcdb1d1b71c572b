"""Building blocks of the world model: task-conditioned MLPs and stacked ensembles of them."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02
Output = Literal["plain", "simnorm"]


def simnorm(x: Tensor, group: int) -> Tensor:
    """Softmax inside consecutive groups of `group` entries of the last axis.

    The softmax runs over the middle axis of a transposed copy: PyTorch's CPU kernel for short innermost axes
    is an order of magnitude slower than copy and strided softmax together.
    """
    grouped = x.view(*x.shape[:-1], -1, group).transpose(-1, -2).contiguous()
    return grouped.softmax(-2).transpose(-1, -2).flatten(-2)


def mish_forward(x: Tensor) -> Tensor:
    """Mish, x tanh(softplus(x)), without a gradient.

    On CPU it is computed as 2x / (1 + q^2) - x with q = sigmoid(-x): equal, free of overflow and several
    times faster than the library's kernel, which evaluates two logarithms and exponentials.
    """
    if x.is_cuda or torch.compiler.is_compiling():  # a compiler fuses the plain formula
        return F.mish(x)
    minus = x.neg()
    gate = torch.sigmoid(minus).square_().add_(1)
    return torch.addcdiv(minus, minus, gate, value=-2, out=minus)


class _Mish(torch.autograd.Function):
    """Mish on CPU with the derivative t + 4 x q^2 (1 - q) / (1 + q^2)^2, where t = 2 / (1 + q^2) - 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return mish_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        q = torch.sigmoid(x.neg())
        square = q.square()
        inverse = square.add(1).reciprocal_()
        # square becomes 4 q^2 (1 - q) x / (1 + q^2)^2
        square.mul_(q.sub_(1)).mul_(x).mul_(inverse).mul_(inverse).mul_(-4)
        return square.add_(inverse, alpha=2).sub_(1).mul_(grads[0])


def mish(x: Tensor) -> Tensor:
    """Mish with a gradient: the library's kernel on CUDA, a faster formula on CPU."""
    return F.mish(x) if x.is_cuda or torch.compiler.is_compiling() else _Mish.apply(x)  # type: ignore[no-untyped-call]


class Layer(nn.Module):
    """Parameters of one affine layer and, when `normed`, of the layer norm behind it.

    `members` puts an ensemble's members on a leading axis: weight [N, out, in], everything else [N, out].
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, in_dim: int, out_dim: int, *, normed: bool, members: int | None = None) -> None:
        super().__init__()
        lead = () if members is None else (members,)
        self.weight = nn.Parameter(torch.empty(*lead, out_dim, in_dim))
        self.bias = nn.Parameter(torch.zeros(*lead, out_dim))
        self.norm_weight = nn.Parameter(torch.ones(*lead, out_dim)) if normed else None
        self.norm_bias = nn.Parameter(torch.zeros(*lead, out_dim)) if normed else None


class MLP(nn.Module):
    """Task-conditioned network: (affine, layer norm, Mish)* and a plain or SimNorm output layer.

    The first layer's input columns are [x[:split], g, x[split:]], g being the task's language embedding. As
    g is the same for every sample of a task, its share W_g g is computed per task (or per row) and broadcast.

    Args:
        in_dim: Width of x, without g.
        split: Columns of x that stand before g.
        language_dim: G, 0 for none.
        hidden: Widths of the hidden layers.
        out_dim: Output width.
        output: "plain", or "simnorm" (layer norm and SimNorm instead of Mish).
        simnorm_dim: Entries per SimNorm group.
        members: None, or the number of networks evaluated as one ensemble; outputs then have a leading axis.

    Attributes:
        product_dtype: Type that is multiplied in, None for that of the weights. Norms and activations are not affected.
    """

    product_dtype: torch.dtype | None = None

    def __init__(
        self,
        in_dim: int,
        split: int,
        language_dim: int,
        hidden: tuple[int, ...],
        out_dim: int,
        *,
        output: Output = "plain",
        simnorm_dim: int = 8,
        members: int | None = None,
    ) -> None:
        super().__init__()
        self.split, self.language_dim = split, language_dim
        self.output, self.simnorm_dim, self.members = output, simnorm_dim, members
        widths = (in_dim + language_dim, *hidden, out_dim)
        last = len(hidden)
        self.layers = nn.ModuleList(
            Layer(widths[i], widths[i + 1], normed=i < last or output == "simnorm", members=members)
            for i in range(last + 1)
        )

    def reset_parameters(self, generator: torch.Generator | None, *, zero_output: bool = False) -> None:
        """Draws the initial weights; `zero_output` makes a head's first predictions uniform."""
        for i in range(len(self.layers)):
            nn.init.trunc_normal_(self.layer(i).weight, std=INIT_STD, generator=generator)
        if zero_output:
            nn.init.zeros_(self.layer(len(self.layers) - 1).weight)

    def layer(self, index: int) -> Layer:
        """Returns one layer's parameters."""
        layer = self.layers[index]
        assert isinstance(layer, Layer)
        return layer

    def forward(
        self, x: Tensor, table: Tensor, task: Tensor, members: Tensor | None = None, frozen: bool = False
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: float32[..., in_dim].
            table: float32[K, G] embeddings.
            task: int64, rows of the table, broadcastable to x's leading axes.
            members: int64[n], evaluate only these members of an ensemble.
            frozen: Treat the parameters as constants (gradients reach x only).

        Returns:
            float32[..., out_dim], with a leading member axis for an ensemble.
        """
        layers = [self._layer_tensors(i, members, frozen) for i in range(len(self.layers))]
        weight, bias, norm_weight, norm_bias = layers[0]
        h = self._first(x, weight, bias, table, task)
        for weight, bias, next_norm_weight, next_norm_bias in layers[1:]:
            h = mish(self._norm(h, norm_weight, norm_bias))
            h = self._affine(h, weight, bias)
            norm_weight, norm_bias = next_norm_weight, next_norm_bias
        if self.output == "simnorm":
            h = simnorm(self._norm(h, norm_weight, norm_bias), self.simnorm_dim)
        return h

    def _layer_tensors(
        self, index: int, members: Tensor | None, frozen: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        layer = self.layer(index)

        def pick(parameter: Tensor | None) -> Tensor | None:
            if parameter is None:
                return None
            chosen = parameter.detach() if frozen else parameter
            return chosen if members is None else chosen.index_select(0, members)

        weight, bias = pick(layer.weight), pick(layer.bias)
        assert weight is not None
        assert bias is not None
        return weight, bias, pick(layer.norm_weight), pick(layer.norm_bias)

    def _first(self, x: Tensor, weight: Tensor, bias: Tensor, table: Tensor, task: Tensor) -> Tensor:
        if not self.language_dim:
            return self._affine_shared(x, weight, bias)
        end = self.split + self.language_dim
        language = weight[..., self.split : end]
        own = torch.cat([weight[..., : self.split], weight[..., end:]], -1)
        rows = task.flatten()
        if len(table) <= len(rows):
            of_tasks = self._affine_shared(table, language, bias)
            # The gradient sums over rows: on a GPU, that of an indexed tensor does so in a fixed order.
            shift = of_tasks[..., rows, :] if of_tasks.is_cuda else of_tasks.index_select(-2, rows)
        else:
            shift = self._affine_shared(table[rows], language, bias)
        lead = (1,) * (x.ndim - 1 - task.ndim) + task.shape  # as many axes as x, so that members stay in front
        return self._affine_shared(x, own, None) + shift.reshape(*shift.shape[:-2], *lead, shift.shape[-1])

    def _affine_shared(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Affine map of an input that all members share: one matrix product, members on a leading axis."""
        if weight.ndim == 2:
            return self._linear(x, weight, bias)
        h = self._linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
        return h.view(*h.shape[:-1], *weight.shape[:2]).movedim(-2, 0)

    def _affine(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if weight.ndim == 2:
            return self._linear(h, weight, bias)
        kind = self.product_dtype or h.dtype
        flat = torch.baddbmm(bias.to(kind)[:, None], h.to(kind).flatten(1, -2), weight.to(kind).transpose(1, 2))
        return flat.to(h.dtype).view(*h.shape[:-1], -1)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kind = self.product_dtype or x.dtype
        return F.linear(x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)).to(x.dtype)

    @staticmethod
    def _norm(h: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        assert weight is not None
        assert bias is not None
        if weight.ndim == 1:
            return F.layer_norm(h, h.shape[-1:], weight, bias)
        lead = (len(weight), *(1 for _ in range(h.ndim - 2)), -1)
        normed = F.layer_norm(h, h.shape[-1:])
        return torch.addcmul(bias.view(lead), normed, weight.view(lead))
