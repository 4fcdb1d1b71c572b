"""A world model's weights arranged for planning: no gradients, little memory traffic, optional bfloat16.

What is arranged, and why it is faster than running the modules:

- The language embedding's share of each first layer, W_g g + b, is computed per task when weights are loaded.
- At the first step all samples of a row share one latent: its share of a first layer is computed per row.
- Latents are kept with their SimNorm groups strided (entry j of every group, then entry j + 1, ...): a
  softmax over a strided axis is vectorised by PyTorch, one over an innermost axis of 8 is not. Rows and
  columns of the neighbouring weights are permuted to match, so nothing is ever reordered at run time.
- bfloat16 is used in matrix products only; norms, activations, softmax and decoded values are float32.

`InferenceModel` mirrors `WorldModel`: `encode` is its `encode`, `step` its `next` and decoded `reward`,
`policy` the action of its `policy`, `value` its `value` in mode "avg" with a pair of critics per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from newt.agent.layers import MLP, mish_forward
from newt.agent.regression import symexp
from newt.agent.world_model import WorldModel, bound_log_std, scale_obs


def fastest_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """Returns bfloat16 where the hardware multiplies it natively, float32 elsewhere (emulation is slower)."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


@dataclass(frozen=True)
class _Affine:
    """One layer: weight [out, in] and bias [out] in the inference type, norm [out] in float32."""

    weight: Tensor
    bias: Tensor | None  # absent in a first layer: the task's shift contains it
    norm_weight: Tensor | None
    norm_bias: Tensor | None


class PreparedMLP:
    """One network arranged for inference; members of an ensemble become one `PreparedMLP` each.

    Args:
        mlp: The module the weights come from.
        table: float32[K, G] language embeddings.
        dtype: Type of the matrix products.
        device: Device to run on.
        latent_in: Order of the first input columns, if the input starts with a latent.
        latent_out: Order of the output rows, if the output is a latent.
        member: Which member of an ensemble.
    """

    def __init__(
        self,
        mlp: MLP,
        table: Tensor,
        dtype: torch.dtype,
        device: torch.device,
        *,
        latent_in: Tensor | None = None,
        latent_out: Tensor | None = None,
        member: int | None = None,
    ) -> None:
        def pick(parameter: Tensor) -> Tensor:
            return (parameter if member is None else parameter[member]).detach()

        def keep(tensor: Tensor, kind: torch.dtype) -> Tensor:
            return tensor.to(device, kind, copy=True).contiguous()

        self.dtype = dtype
        self.group = mlp.simnorm_dim if mlp.output == "simnorm" else 0
        self.layers: list[_Affine] = []
        for i in range(len(mlp.layers)):
            layer = mlp.layer(i)
            weight, bias = pick(layer.weight), pick(layer.bias)
            norm = [None if p is None else pick(p) for p in (layer.norm_weight, layer.norm_bias)]
            if latent_out is not None and i == len(mlp.layers) - 1:
                weight, bias = weight[latent_out], bias[latent_out]
                norm = [None if p is None else p[latent_out] for p in norm]
            if i == 0:
                end = mlp.split + mlp.language_dim
                shift = table @ weight[:, mlp.split : end].T + bias
                self.task_shift = keep(shift, torch.float32)  # [K, out]
                weight = torch.cat([weight[:, : mlp.split], weight[:, end:]], -1)
                if latent_in is not None:
                    weight = torch.cat([weight[:, latent_in], weight[:, len(latent_in) :]], -1)
            norm_weight, norm_bias = (None if p is None else keep(p, torch.float32) for p in norm)
            self.layers.append(_Affine(keep(weight, dtype), keep(bias, dtype) if i else None, norm_weight, norm_bias))

    def tensors(self) -> Iterator[Tensor]:
        """Yields every tensor."""
        yield self.task_shift
        for layer in self.layers:
            yield from (t for t in vars(layer).values() if t is not None)

    def __call__(self, x: Tensor, shift: Tensor, common: Tensor | None = None) -> Tensor:
        """Evaluates B rows of S samples.

        Args:
            x: [B, S, in], or only the last input columns if `common` holds the first ones.
            shift: float32[B, 1, M], `task_shift` of each row.
            common: [B, 1, Z], first input columns where all samples of a row have the same.

        Returns:
            float32[B, S, out].
        """
        first = self.layers[0]
        weight = first.weight
        if common is not None:
            split = common.shape[-1]
            shift = self._product(common, weight[:, :split]).add_(shift)
            weight = weight[:, split:]
        h = self._product(x, weight).add_(shift)
        previous = first
        for layer in self.layers[1:]:
            assert previous.norm_weight is not None
            h = F.layer_norm(h, h.shape[-1:], previous.norm_weight, previous.norm_bias)
            h = self._product(mish_forward(h), layer.weight, layer.bias)
            previous = layer
        if self.group:
            assert previous.norm_weight is not None
            h = F.layer_norm(h, h.shape[-1:], previous.norm_weight, previous.norm_bias)
            h = h.view(*h.shape[:-1], self.group, -1).softmax(-2).flatten(-2)
        return h

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x.to(self.dtype), weight, bias).float()


class GatheredMLPs:
    """Some networks of each row, chosen on the device: all shapes are fixed, and nothing is read from it.

    Args:
        networks: Networks of one shape, whose weights become views of this object's.
    """

    def __init__(self, networks: list[PreparedMLP]) -> None:
        self.dtype = networks[0].dtype
        self.layers = [_stacked(layers) for layers in zip(*(network.layers for network in networks), strict=True)]
        for member, network in enumerate(networks):
            network.layers = [_member(layer, member) for layer in self.layers]

    def tensors(self) -> Iterator[Tensor]:
        """Yields every tensor."""
        for layer in self.layers:
            yield from (t for t in vars(layer).values() if t is not None)

    def __call__(self, x: Tensor, shifts: Tensor, chosen: Tensor) -> Tensor:
        """Evaluates n networks of each of B rows of S samples.

        Args:
            x: [B, S, in].
            shifts: float32[B, n, 1, M], `task_shift` of each row in each of its networks.
            chosen: int64[B, n], its networks.

        Returns:
            float32[B, n, S, out].
        """
        (B, n), S = chosen.shape, x.shape[1]
        members = chosen.flatten()
        h = x.to(self.dtype)[:, None].expand(-1, n, -1, -1).reshape(B * n, S, -1)
        h = torch.bmm(h, self.layers[0].weight[members].transpose(1, 2)).float() + shifts.flatten(0, 1)
        previous = self.layers[0]
        for layer in self.layers[1:]:
            assert previous.norm_weight is not None
            assert previous.norm_bias is not None
            assert layer.bias is not None
            h = F.layer_norm(h, h.shape[-1:])
            h = torch.addcmul(previous.norm_bias[members][:, None], h, previous.norm_weight[members][:, None])
            weight = layer.weight[members].transpose(1, 2)
            h = torch.baddbmm(layer.bias[members][:, None], mish_forward(h).to(self.dtype), weight).float()
            previous = layer
        return h.view(B, n, S, -1)


def _stacked(layers: Sequence[_Affine]) -> _Affine:
    """The same layer of several networks, with an axis of networks in front."""

    def stack(tensors: list[Tensor | None]) -> Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.stack(present) if present else None

    weight = stack([layer.weight for layer in layers])
    assert weight is not None
    return _Affine(
        weight,
        stack([layer.bias for layer in layers]),
        stack([layer.norm_weight for layer in layers]),
        stack([layer.norm_bias for layer in layers]),
    )


def _member(layer: _Affine, member: int) -> _Affine:
    """One network's part of stacked layers, without a copy."""
    tensors = (layer.weight, layer.bias, layer.norm_weight, layer.norm_bias)
    weight, bias, norm_weight, norm_bias = (None if tensor is None else tensor[member] for tensor in tensors)
    assert weight is not None
    return _Affine(weight, bias, norm_weight, norm_bias)


@dataclass(frozen=True)
class TaskTerms:
    """What the tasks of B rows add to every network, the same at all steps of a planning pass.

    Attributes:
        mask: float32[B, 1, A].
        discount: float32[B, 1].
        policy: float32[B, 1, M] first-layer share of each row's task.
        dynamics, reward: The same; a model with the policy only has none.
        critics: The same for every critic.
    """

    mask: Tensor
    discount: Tensor
    policy: Tensor
    dynamics: Tensor | None
    reward: Tensor | None
    critics: list[Tensor]


class InferenceModel:
    """A frozen copy of a world model for acting and planning.

    Latents it returns are in its own order (see the module's docstring): only pass them back to the same
    model.

    Attributes:
        config: Sizes of the model.
        table: Its tasks.
        dtype: Type of the matrix products.
        device: Device it runs on.
    """

    def __init__(self, model: WorldModel, dtype: torch.dtype, device: torch.device, gather: bool) -> None:
        """Uses `from_model`."""
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"inference runs in torch.float32 or torch.bfloat16, got {dtype}")
        self.config, self.table, self.dtype, self.device = model.config, model.table, dtype, device
        D, V = model.config.latent_dim, model.config.simnorm_dim
        order = torch.arange(D, device=model.device).view(D // V, V).T.flatten()
        table = model.task_embeddings

        def prepare(mlp: MLP, member: int | None = None, out: Tensor | None = None) -> PreparedMLP:
            return PreparedMLP(mlp, table, dtype, device, latent_in=order, latent_out=out, member=member)

        # The encoder runs once per plan: not worth reduced precision.
        self._encoder = PreparedMLP(model.encoder, table, torch.float32, device, latent_out=order)
        self._policy = prepare(model.policy_head)
        acts_only = model.config.policy_only
        self._dynamics = None if acts_only else prepare(model.dynamics, out=order)
        self._reward = None if acts_only else prepare(model.reward_head)
        members = 0 if acts_only else model.config.num_critics
        self._critics = [prepare(model.critics, member) for member in range(members)]
        self._gathered = GatheredMLPs(self._critics) if gather and not acts_only else None
        self._masks = model.action_masks.to(device, copy=True)
        self._discounts = model.discounts.to(device, copy=True)
        self._centres = model.codec.centres.to(device, copy=True)
        moments = model.obs_moments if model.config.obs_scaling == "per_task" else None
        self._moments = [] if moments is None else [t.to(device, copy=True) for t in (moments.mean, moments.variance)]

    @classmethod
    @torch.no_grad()
    def from_model(
        cls,
        model: WorldModel,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        gather: bool | None = None,
    ) -> InferenceModel:
        """Copies a model's weights; later training of `model` does not change the copy.

        Args:
            model: Left unchanged.
            dtype: torch.float32, or torch.bfloat16: about four times faster products on CPUs which support
                it.
            device: Device to plan on; the model's own device if absent.
            gather: Whether the critics of a row are looked up on the device, see `value`; absent: not on a CPU.

        Raises:
            ValueError: Another dtype.
        """
        where = torch.device(device) if device is not None else model.device
        return cls(model, dtype, where, where.type != "cpu" if gather is None else gather)

    @property
    def has_code(self) -> bool:
        """Whether its networks are computed by compiled code."""
        return False

    def tensors(self) -> Iterator[Tensor]:
        """Yields every tensor."""
        for network in (self._encoder, self._dynamics, self._reward, self._policy, *self._critics):
            yield from network.tensors() if network is not None else ()
        yield from self._gathered.tensors() if self._gathered is not None else ()
        yield from (self._masks, self._discounts, self._centres, *self._moments)

    def load(self, other: InferenceModel) -> None:
        """Takes over another model's weights and tasks, in place: what was recorded with this one goes on with them.

        Raises:
            ValueError: The other one is of another shape, and nothing is changed.
        """
        own, theirs = list(self.tensors()), list(other.tensors())
        if [tensor.shape for tensor in own] != [tensor.shape for tensor in theirs]:
            raise ValueError("only weights of the same shapes can be loaded in place")
        self.table = other.table
        with torch.inference_mode():
            for tensor, new in zip(own, theirs, strict=True):
                tensor.copy_(new, non_blocking=True)

    def task_terms(self, task: Tensor) -> TaskTerms:
        """Looks up what the rows' tasks, int64[B], add to every network."""
        return TaskTerms(
            mask=self._masks[task][:, None],
            discount=self._discounts[task][:, None],
            policy=self._policy.task_shift[task][:, None],
            dynamics=None if self._dynamics is None else self._dynamics.task_shift[task][:, None],
            reward=None if self._reward is None else self._reward.task_shift[task][:, None],
            critics=[critic.task_shift[task][:, None] for critic in self._critics],
        )

    def encode(self, obs: Tensor, task: Tensor, image: Tensor | None = None) -> Tensor:
        """Returns latents float32[B, 1, Z] of obs [B, O] and image features [B, X]."""
        if self._moments:
            mean, variance = self._moments
            obs = scale_obs(obs, mean[task], variance[task])
        x = obs if image is None else torch.cat([obs, image], -1)
        return self._encoder(x[:, None], self._encoder.task_shift[task][:, None])

    def step(self, terms: TaskTerms, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns next latents float32[B, S, Z] and rewards float32[B, S].

        Args:
            terms: What the tasks of the B rows add.
            z: float32[B, S, Z], or [B, 1, Z] where all samples start alike.
            action: float32[B, S, A], valid entries only.
        """
        # The planner has looked that they are there.
        assert self._dynamics is not None
        assert self._reward is not None
        assert terms.dynamics is not None
        assert terms.reward is not None
        x, common = self._join(z, action)
        reward = self._decode(self._reward(x, terms.reward, common))
        return self._dynamics(x, terms.dynamics, common), reward

    def policy(self, terms: TaskTerms, z: Tensor, noise: Tensor | None) -> Tensor:
        """Returns actions float32[B, S, A] sampled with noise [B, S, A]; tanh(mean) without."""
        mean, raw_log_std = self._policy(z, terms.policy).chunk(2, -1)
        if noise is not None:
            mean = torch.addcmul(mean, bound_log_std(raw_log_std).exp_(), noise)
        return mean.tanh().mul_(terms.mask)

    def value(self, terms: TaskTerms, z: Tensor, action: Tensor, pairs: Tensor) -> Tensor:
        """Returns float32[B, S]: mean of two critics of each row, `pairs` int64[B, 2].

        Two critics per row are computed, not all of them. On a CPU each runs on the rows that drew it; which these are
        would have to be read from a GPU, so there every row brings the weights of its two critics along.
        """
        x, _ = self._join(z, action)
        if self._gathered is None:
            return self._value_by_critic(terms, x, pairs)
        shifts = torch.stack(terms.critics, 1)[torch.arange(len(x), device=x.device)[:, None], pairs]  # [B, 2, 1, M]
        return self.criticise_in_pairs(self._gathered, x, shifts, pairs)

    def _value_by_critic(self, terms: TaskTerms, x: Tensor, pairs: Tensor) -> Tensor:
        B, S = x.shape[:2]
        total = torch.zeros(B, S, device=self.device)
        for member, (critic, shift) in enumerate(zip(self._critics, terms.critics, strict=True)):
            chosen = (pairs == member).any(-1).nonzero().squeeze(-1)
            if len(chosen) == B:
                total += self.criticise(critic, x, shift)
            elif len(chosen):
                total.index_add_(0, chosen, self.criticise(critic, x[chosen], shift[chosen]))
        return total.mul_(0.5)

    def mean_value(self, terms: TaskTerms, z: Tensor, action: Tensor) -> Tensor:
        """Returns float32[B, S]: mean of all critics at latents [B, S, Z] and actions [B, S, A]."""
        x, _ = self._join(z, action)
        critics = zip(self._critics, terms.critics, strict=True)
        return torch.stack([self.criticise(critic, x, shift) for critic, shift in critics]).mean(0)

    def criticise(self, critic: PreparedMLP, x: Tensor, shift: Tensor) -> Tensor:
        """Returns one critic's values float32[B, S] of joined inputs [B, S, Z + A], `shift` of its rows."""
        return self._decode(critic(x, shift))

    def criticise_in_pairs(self, critics: GatheredMLPs, x: Tensor, shifts: Tensor, pairs: Tensor) -> Tensor:
        """Returns the mean values float32[B, S] of each row's two critics, `shifts` float32[B, 2, 1, M] of both."""
        return self._decode(critics(x, shifts, pairs)).mean(1)

    def _join(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns [z, action] in the inference type; a latent common to all samples stays apart."""
        if z.shape[1] != action.shape[1]:
            return action, z
        joined = torch.empty(*z.shape[:2], z.shape[2] + action.shape[2], dtype=self.dtype, device=self.device)
        joined[..., : z.shape[2]] = z
        joined[..., z.shape[2] :] = action
        return joined, None

    def _decode(self, logits: Tensor) -> Tensor:
        return symexp(logits.softmax(-1) @ self._centres)
