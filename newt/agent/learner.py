"""One update of the agent: losses, two optimisers, target critics, value scale."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from newt.agent.compilation import compiled
from newt.agent.config import ConfigError, TrainConfig
from newt.agent.distributed import SOLO, Ranks
from newt.agent.losses import Batch, UpdateNoise, draw_noise, model_loss, policy_loss
from newt.agent.world_model import WorldModel

Metrics = dict[str, Tensor]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Learner:
    """Trains a world model; everything a resumed run needs is in ``state_dict``.

    An update is: learning-rate warm-up, model loss, backward, clip, main optimiser, target critics; then, online
    only: policy loss on the same latents, backward, clip, policy optimiser, value scale.

    Metrics are detached tensors on the model's device, so that an update never waits for the device; read
    them (``.item()``) only as often as they are logged.

    Example:
        >>> from newt.agent import ModelConfig, TaskTable, TrainConfig
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8), table)
        >>> learner = Learner(model, TrainConfig(), seed=1)
        >>> learner.updates
        0
    """

    def __init__(
        self,
        model: WorldModel,
        config: TrainConfig,
        *,
        seed: int = 1,
        ranks: Ranks = SOLO,
        compile_with: str | None = None,
    ) -> None:
        """Set up fresh optimisers.

        Args:
            model: trained in place.
            config: constants.
            seed: of the noise of all updates.
            ranks: the processes that train together. Each passes its part of a batch; gradients are averaged
                before they are clipped, the value scale looks at the values of all, and the noise is that
                of the whole batch, so W processes make the update that one makes on the parts in order of
                rank, to float tolerance. Their replicas stay equal to the bit.
            compile_with: backend of torch.compile for both losses and their gradients; None: eager.
        """
        self.model, self.config = model, config
        self._model_loss = compiled(model_loss, compile_with) if compile_with else model_loss
        self._policy_loss = compiled(policy_loss, compile_with) if compile_with else policy_loss
        self.ranks = ranks
        self.updates = 0
        self.scale = torch.ones((), device=model.device)
        # Gives each update the seed of its noise. On the CPU, so that a stored state resumes on any device.
        self._seeds = torch.Generator().manual_seed(seed)
        self._noise = torch.Generator(model.device)
        encoder_lr = config.lr * config.encoder_lr_factor
        networks: list[tuple[nn.Module, float]] = [
            (model.encoder, encoder_lr),
            (model.dynamics, config.lr),
            (model.reward_head, config.lr),
            (model.critics, config.lr),
            (model.policy_head, config.lr),
        ]
        self._base_lrs = [lr for _, lr in networks]
        self.optimizer = torch.optim.Adam(
            [{"params": list(network.parameters()), "lr": lr} for network, lr in networks],
            eps=config.adam_eps,
            fused=True,
        )
        self.policy_optimizer = torch.optim.Adam(
            model.policy_head.parameters(), lr=config.lr, eps=config.policy_adam_eps, fused=True
        )
        self._targets: list[Tensor] = list(model.target_critics.parameters())
        self._online: list[Tensor] = list(model.critics.parameters())

    def pretrain_update(self, batch: Batch, noise: UpdateNoise | None = None) -> Metrics:
        """Update on demonstrations: world model and cloned policy together, no policy step.

        Args:
            batch: B sequences on the model's device.
            noise: the random draws; drawn by the learner itself if absent.

        Raises:
            ConfigError: a batch field has another shape or type than the model needs.
        """
        batch.check(self.model, self.config.horizon)
        noise = noise or self._draw(batch, pretrain=True)
        _, metrics = self._model_step(batch, noise)
        return metrics

    def rl_update(self, batch: Batch, noise: UpdateNoise | None = None) -> Metrics:
        """Update in the online phase: world model, then policy, then value scale. As ``pretrain_update``."""
        batch.check(self.model, self.config.horizon)
        noise = noise or self._draw(batch, pretrain=False)
        latents, metrics = self._model_step(batch, noise)
        loss, q_first, policy_metrics = self._policy_loss(self.model, self.config, batch, latents, self.scale, noise)
        policy_metrics["policy_grad_norm"] = self._step(self.policy_optimizer, loss, policy_metrics)
        self._update_scale(q_first)
        return {**metrics, **policy_metrics, "scale": self.scale.clone()}

    def _model_step(self, batch: Batch, noise: UpdateNoise) -> tuple[Tensor, Metrics]:
        self.updates += 1
        self._set_learning_rates()
        loss, latents, metrics = self._model_loss(self.model, self.config, batch, noise)
        metrics["grad_norm"] = self._step(self.optimizer, loss, metrics)
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._online, self.config.ema_rate)
        return latents.detach(), metrics

    def _draw(self, batch: Batch, *, pretrain: bool) -> UpdateNoise:
        """Draw the noise of the whole batch, on every process the same, and take this process's part of it."""
        B = len(batch.task)
        self._noise.manual_seed(int(torch.randint(2**63 - 1, (), generator=self._seeds)))
        noise = draw_noise(self.model, self.ranks.world * B, self.config.horizon, self._noise, pretrain=pretrain)
        return noise.columns(self.ranks.columns(B))

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor, metrics: Metrics) -> Tensor:
        """Backward, average over processes, clip, step. Returns the gradient norm before clipping.

        The metrics, means over this process's part of the batch, are averaged along with the gradients.
        """
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        # The online phase's model loss does not reach the policy: its gradients stay absent and Adam skips it.
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        stacked = torch.stack(list(metrics.values()))
        self.ranks.average([stacked, *(p.grad for p in parameters if p.grad is not None)])
        metrics.update(zip(metrics, stacked.unbind(), strict=True))
        norm = nn.utils.clip_grad_norm_(parameters, self.config.grad_clip_norm)
        optimizer.step()
        return norm

    def _set_learning_rates(self) -> None:
        # Published schedule: the first update already runs at 2/warm-up.
        warmup = self.config.warmup_updates
        factor = min(1.0, (self.updates + 1) / warmup) if warmup else 1.0
        for group, lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = factor * lr
        self.policy_optimizer.param_groups[0]["lr"] = factor * self.config.lr

    @torch.no_grad()
    def _update_scale(self, values: Tensor) -> None:
        """Move S towards the spread of the values of a batch, which counts as at least 1.

        Percentiles are taken over the values of all processes: averaging each one's S, as published, only
        comes near to that.
        """
        values = self.ranks.gather(values)
        low, high = self.config.value_percentiles
        bounds = torch.quantile(values, values.new_tensor([low / 100, high / 100]))
        self.scale.lerp_((bounds[1] - bounds[0]).clamp(min=1.0), self.config.ema_rate)

    def equalise(self) -> None:
        """Give all processes rank 0's whole training state, optimisers included; call before the first update."""
        if self.ranks.world > 1:
            state = self.ranks.broadcast(self.state_dict())
            if not self.ranks.first:
                self.load_state_dict(state)

    def require_equal(self) -> None:
        """Check that all processes hold the same weights. Raises RuntimeError naming those which do not."""
        self.ranks.require_equal(list(self.model.parameters()), "weights")

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the whole training state as named tensors.

        Names: ``model.*`` (parameters incl. target critics), ``optim.<main|policy>.<parameter>.<moment>`` (absent
        before a parameter's first step), ``scale``, ``updates``, ``rng`` (of the CPU, whatever the device).
        """
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter, optimizer, prefix in self._optimised():
            moments = optimizer.state.get(parameter, {})
            state |= {f"{prefix}.{name}.{key}": moments[key] for key in _MOMENTS if key in moments}
        state |= {
            "scale": self.scale,
            "updates": torch.tensor(self.updates),
            "rng": self._seeds.get_state(),
        }
        return {name: value.detach().clone() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore ``state_dict``'s output exactly; nothing is changed if it does not fit.

        The state may come from another type of device: what follows is the same training up to the noise of the
        updates, which each type of device draws in its own way.

        Raises:
            ConfigError: names are missing or unknown, or a shape differs.
        """
        own = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        own |= {"scale": self.scale, "updates": torch.tensor(0), "rng": self._seeds.get_state()}
        allowed = dict(own)
        for name, parameter, _, prefix in self._optimised():
            allowed |= {f"{prefix}.{name}.step": torch.zeros(())}
            allowed |= {f"{prefix}.{name}.{key}": parameter for key in _MOMENTS[1:]}
        missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(allowed))
        wrong = [n for n in state if n in allowed and state[n].shape != allowed[n].shape]
        if missing or unknown or wrong:
            raise ConfigError(
                f"training state does not fit this model: missing {missing[:3]}, unknown {unknown[:3]}, "
                f"other shapes {wrong[:3]} (first three of each)"
            )
        device = self.model.device
        prefix = "model."
        self.model.load_state_dict({n[len(prefix) :]: v for n, v in state.items() if n.startswith(prefix)})
        for name, parameter, optimizer, optim_prefix in self._optimised():
            keys = {key: f"{optim_prefix}.{name}.{key}" for key in _MOMENTS}
            optimizer.state.pop(parameter, None)
            if keys["step"] in state:
                optimizer.state[parameter] = {k: state[n].to(device, copy=True) for k, n in keys.items()}
        self.scale.copy_(state["scale"])
        self.updates = int(state["updates"])
        self._seeds.set_state(state["rng"].cpu())

    def _optimised(self) -> list[tuple[str, nn.Parameter, torch.optim.Optimizer, str]]:
        """List (name, parameter, optimiser, state prefix) of everything that has moments."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        optimizers = ((self.optimizer, "optim.main"), (self.policy_optimizer, "optim.policy"))
        return [
            (names[parameter], parameter, optimizer, prefix)
            for optimizer, prefix in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
