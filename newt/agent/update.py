"""One update of the agent, from a batch to new weights; read it from top to bottom.

The letters are those of the paper (arXiv 2511.19584): z = h(s, g) encodes an observation, z' = d(z, a, g) predicts the
next latent, R, Q and p are reward head, critics and policy prior, g is the language embedding of the task, gamma its
discount; CE is the cross-entropy of the discrete regression, sg stops the gradient. A batch is B sequences of H steps.

    (1) rho_t = rho^t / sum_{j<=H} rho^j                                                     weights of the steps
    (2) y_t   = r_t + gamma min Q_target(h(s_{t+1}), a'),  a' ~ p;  r_t alone where the task ended      TD target
    (3) L     = sum_{t<H} rho_t [ c_z |z_{t+1} - sg h(s_{t+1})|^2 + c_r CE(R(z_t, a_t), r_t)
                + c_q mean_i CE(Q_i(z_t, a_t), y_t) ],  z_0 = h(s_0), z_{t+1} = d(z_t, a_t)          model loss
    (4) BC_t  = |p(z_t) - a_t|^2, mean over the entries that the task uses                      behaviour cloning
    (5) L_pi  = sum_{t<H} rho_t c_bc BC_t - sum_{t<=H} rho_t [ Q(z_t, p(z_t)) / S + c_H H(p(z_t)) ]  policy loss
    (6) S    <- S + tau (max(1, P95(Q_0) - P5(Q_0)) - S)                        value scale, shared or per task
    (7) Q_target <- Q_target + tau (Q - Q_target)                                                target critics

Pretraining minimises (3) plus the clone's part of (5): it shapes the latents too. Online training minimises (3), then
(5) on the same latents, detached; BC_t counts in sequences of demonstrations alone where `bc_data` says so. The random
draws come in as `UpdateNoise`, so that an update can be reproduced, compiled, and compared with a recorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn

from newt.agent.batch import UpdateBatch, UpdateNoise, draw_noise
from newt.agent.compilation import compiled
from newt.agent.config import ConfigError, TrainConfig
from newt.agent.copies import copied
from newt.agent.devices import send
from newt.agent.distributed import SOLO, Ranks
from newt.agent.recorded import Recorded, Recorder, Tensors
from newt.agent.value_scale import ValueScale
from newt.agent.world_model import WorldModel

Metrics = dict[str, Tensor]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def read_metrics(metrics: Metrics) -> dict[str, float]:
    """Returns the numbers; waits for the device once."""
    return dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True)) if metrics else {}


def step_weights(config: TrainConfig, like: Tensor) -> Tensor:
    """(1) Returns rho_0..rho_H on the device of `like` (made there: a copy from the host would synchronise)."""
    powers = config.rho ** torch.arange(config.horizon + 1, dtype=like.dtype, device=like.device)
    return powers / powers.sum()


def td_target(model: WorldModel, config: TrainConfig, batch: UpdateBatch, z_next: Tensor, noise: UpdateNoise) -> Tensor:
    """(2) Returns y float32[H, B] = r + gamma * min over a pair of target critics; r alone after a termination."""
    action = model.policy(z_next, batch.task, noise.td_policy).action
    target = config.target_critic == "ema"
    value = model.value(z_next, action, batch.task, noise.td_pair, "min", target=target)
    return batch.reward + model.discounts[batch.task] * value * (~batch.terminated)


def cloning_error(sampled: Tensor, action: Tensor, mask: Tensor) -> Tensor:
    """(4) Returns float32[...]: squared error of a *sampled* policy action, mean over the valid entries."""
    return ((sampled - action).square() * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def model_loss(
    model: WorldModel, config: TrainConfig, batch: UpdateBatch, noise: UpdateNoise
) -> tuple[Tensor, Tensor, Metrics]:
    """(3) World-model loss, with the behaviour-cloning term where `noise.bc_policy` is given (pretraining).

    Returns:
        The scalar loss, the latent rollout float32[H+1, B, Z] (attached) and detached metrics.
    """
    task, H = batch.task, config.horizon
    mask = model.action_masks[task]
    action = batch.action * mask
    weights = step_weights(config, batch.obs)

    image = (None, None) if batch.image is None else (batch.image[0], batch.image[1:])
    with torch.no_grad():
        z_target = model.encode(batch.obs[1:], task, image[1])
        y = td_target(model, config, batch, z_target, noise)

    z = model.encode(batch.obs[0], task, image[0])
    latents = [z]
    for t in range(H):
        z = model.next(z, action[t], task)
        latents.append(z)
    rollout = torch.stack(latents)

    def over_time(loss: Tensor) -> Tensor:  # [H, B] -> scalar
        return weights[:H] @ loss.mean(-1)

    consistency = over_time((rollout[1:] - z_target).square().mean(-1))
    reward_logits = model.reward(rollout[:-1], action, task)
    reward = over_time(model.codec.cross_entropy(reward_logits, batch.reward))
    value_logits = model.Q(rollout[:-1], action, task)
    value = over_time(model.codec.cross_entropy(value_logits, y).mean(0))
    loss = config.consistency_coef * consistency + config.reward_coef * reward + config.value_coef * value
    metrics = {
        "consistency_loss": consistency,
        "reward_loss": reward,
        "value_loss": value,
        "td_target": y.mean(),
    }
    if noise.bc_policy is not None:
        sample = model.policy(rollout[:-1], task, noise.bc_policy)
        bc = cloning_error(sample.action, action, mask)
        # Published runs average over time here and sum in the policy loss; effective values are kept.
        bc_loss = over_time(bc - config.entropy_coef * sample.scaled_entropy) / H
        loss = loss + config.pretrain_bc_coef * bc_loss
        metrics |= {
            "bc_loss": bc_loss,
            "bc": bc.mean(),
            "policy_scaled_entropy": sample.scaled_entropy.mean(),
        }
    metrics["total_loss"] = loss
    return loss, rollout, {name: value.detach() for name, value in metrics.items()}


def policy_loss(
    model: WorldModel, config: TrainConfig, batch: UpdateBatch, latents: Tensor, scale: Tensor, noise: UpdateNoise
) -> tuple[Tensor, Tensor, Metrics]:
    """(5) Policy loss on detached latents float32[H+1, B, Z], critics frozen, values over `scale` float32[] or [B].

    Returns:
        The scalar loss, the undivided values of the first step float32[B] and detached metrics.
    """
    assert noise.pi_policy is not None
    assert noise.pi_pair is not None
    task, H = batch.task, config.horizon
    mask = model.action_masks[task]
    weights = step_weights(config, latents)
    sample = model.policy(latents, task, noise.pi_policy)
    q = model.value(latents, sample.action, task, noise.pi_pair, "avg", frozen=True)
    gain = config.entropy_coef * sample.scaled_entropy + q / scale
    bc = cloning_error(sample.action[:H], batch.action * mask, mask)
    if config.bc_data == "demos":
        assert batch.demo is not None
        bc = bc * batch.demo
    bc_loss = weights[:H] @ bc.mean(-1)
    loss = config.bc_coef * bc_loss - weights @ gain.mean(-1)
    metrics = {
        "policy_loss": loss,
        "policy_bc": bc_loss,
        "policy_scaled_entropy": sample.scaled_entropy.mean(),
        "policy_q": q.mean(),
    }
    return loss, q[0].detach(), {name: value.detach() for name, value in metrics.items()}


class Updater:
    """Trains a world model; everything a resumed run needs is in `state_dict`.

    An update is: learning-rate warm-up, (3), backward, clip, main optimiser, (7); then, online only: (5), backward,
    clip, policy optimiser, (6).

    Metrics are detached tensors on the model's device, so that an update never waits for the device; read
    them (`read_metrics`) only as often as they are logged.

    Example:
        >>> from newt.agent.config import ModelConfig
        >>> from newt.agent.task_table import TaskTable
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8), table)
        >>> updater = Updater(model, TrainConfig(), seed=1)
        >>> updater.updates
        0
    """

    main_loss: ClassVar[Callable[..., tuple[Tensor, Tensor, Metrics]]] = staticmethod(model_loss)
    """What the main optimiser minimises; other ways to train the same networks have another."""

    def __init__(
        self,
        model: WorldModel,
        config: TrainConfig,
        *,
        seed: int = 1,
        ranks: Ranks = SOLO,
    ) -> None:
        """Sets up fresh optimisers.

        Args:
            model: Trained in place; it multiplies in the config's precision from then on.
            config: Constants.
            seed: Seed of the noise of all updates.
            ranks: The processes that train together. Each passes its part of a batch; gradients are averaged
                before they are clipped, the value scale looks at the values of all, and the noise is that
                of the whole batch, so W processes make the update that one makes on the parts in order of
                rank, to float tolerance. Their replicas stay equal to the bit.
        """
        self.model, self.config = model, config
        model.multiply_in(torch.bfloat16 if config.precision == "bfloat16" else None)
        self._recorder: Recorder | None = None
        # By whether it pretrains, and sequences.
        self._recorded: dict[tuple[bool, int], Recorded] = {}
        self.compile_with(None)
        self.ranks = ranks
        self.updates = 0
        self.value_scale = ValueScale(config, len(model.table.names), model.device)
        # Gives each update the seed of its noise. On the CPU, so that a stored state resumes on any device.
        self._seeds = torch.Generator().manual_seed(seed)
        groups = [list(network.parameters()) for network in model.networks().values()]  # the encoder first
        if isinstance(model.task_embeddings, nn.Parameter):  # learned
            groups.append([model.task_embeddings])
        base_lrs = [config.lr * config.encoder_lr_factor] + [config.lr] * (len(groups) - 1)
        self.optimizer = torch.optim.Adam(
            [{"params": group, "lr": lr} for group, lr in zip(groups, base_lrs, strict=True)],
            eps=config.adam_eps,
            fused=True,
        )
        self.policy_optimizer = torch.optim.Adam(
            model.policy_head.parameters(), lr=config.lr, eps=config.policy_adam_eps, fused=True
        )
        policy_group = self.policy_optimizer.param_groups[0]
        self._groups = [*zip(self.optimizer.param_groups, base_lrs, strict=True), (policy_group, config.lr)]
        has_critics = not model.config.policy_only
        self._targets: list[Tensor] = list(model.target_critics.parameters()) if has_critics else []
        self._online: list[Tensor] = list(model.critics.parameters()) if has_critics else []

    def compile_with(self, backend: str | None) -> None:
        """Has the losses and gradients of the updates from now on computed by compiled code; None: eagerly.

        Code that was not made before (`code_for`) is made by the next update.
        """
        loss = type(self).main_loss
        self._model_loss = compiled(loss, backend) if backend else loss
        self._policy_loss = compiled(policy_loss, backend) if backend else policy_loss
        self._recorded.clear()

    def record_with(self, recorder: Recorder | None) -> None:
        """Has the updates from now on, if they draw their own noise, recorded and then replayed; None: not so.

        Learning rates become float32 tensors, which a recording reads them from: updates equal others to float
        tolerance.

        Raises:
            ConfigError: Several processes train together, whose exchange is no part of a recording.
        """
        if recorder is not None and self.ranks.world > 1:
            raise ConfigError("updates of several processes cannot be recorded")
        self._recorder = recorder
        self._recorded.clear()
        on_gpu = self.model.device.type == "cuda"
        for group, _ in self._groups:
            lr = float(group["lr"])
            group["lr"] = lr if recorder is None else torch.tensor(lr, device=self.model.device)
            group["capturable"] = recorder is not None and on_gpu

    def code_for(self, batch: UpdateBatch, backend: str, *, pretraining: bool, online: bool) -> Callable[[], None]:
        """Returns what makes the code of updates, in any thread and beside updates: it works on a copy of the model.

        Args:
            batch: As those of the updates are.
            backend: Backend of torch.compile.
            pretraining: Whether there are updates of pretraining among them.
            online: Whether there are updates of the online phase among them.
        """
        model, batch, scale = deepcopy(self.model), batch.clone(), self.value_scale.of(batch.task).clone()
        model_loss, config, seed = type(self).main_loss, self.config, torch.zeros((), dtype=torch.int64)

        def generate() -> None:
            for pretrain in (True,) * pretraining + (False,) * online:
                noise = self._noise(batch, seed, pretrain=pretrain)
                loss, latents, _ = compiled(model_loss, backend)(model, config, batch, noise)
                loss.backward()
            if online:
                loss, _, _ = compiled(policy_loss, backend)(model, config, batch, latents.detach(), scale, noise)
                loss.backward()

        return generate

    def pretrain_update(self, batch: UpdateBatch, noise: UpdateNoise | None = None) -> Metrics:
        """Updates on demonstrations: world model and cloned policy together, no policy step.

        Args:
            batch: B sequences on the model's device.
            noise: The random draws; drawn by the updater itself if absent.

        Raises:
            ConfigError: A batch field has another shape or type than the model needs, or is missing.
        """
        return self._update(batch, noise, pretrain=True)

    def rl_update(self, batch: UpdateBatch, noise: UpdateNoise | None = None) -> Metrics:
        """Updates in the online phase: world model, then policy, then value scale. As `pretrain_update`."""
        return self._update(batch, noise, pretrain=False)

    def _update(self, batch: UpdateBatch, noise: UpdateNoise | None, *, pretrain: bool) -> Metrics:
        batch.check(self.model, self.config.horizon)
        if batch.demo is None and self.config.bc_data == "demos":
            raise ConfigError('batch.demo: needed where bc_data is "demos", got nothing')
        self.updates += 1
        self._set_learning_rates()
        if noise is not None:
            return self._compute(batch, noise, pretrain=pretrain)
        seed = torch.randint(2**63 - 1, (), generator=self._seeds)
        if self._recorder is None:
            return self._compute(batch, self._noise(batch, seed, pretrain=pretrain), pretrain=pretrain)
        return self._replay(batch, seed, self._recorder, pretrain=pretrain)

    def _replay(self, batch: UpdateBatch, seed: Tensor, recorder: Recorder, *, pretrain: bool) -> Metrics:
        given = {**batch.named(), "seed": send(seed[None], batch.task.device)}
        key = pretrain, len(batch.task)
        if key not in self._recorded:

            def work(given: Tensors) -> Tensors:
                own = UpdateBatch(**{name: value for name, value in given.items() if name != "seed"})
                noise = self._noise(own, given["seed"], pretrain=pretrain)
                return self._compute(own, noise, pretrain=pretrain)

            places = {name: torch.empty_like(value) for name, value in given.items()}
            name = f"{'pretraining' if pretrain else 'online'} update of {key[1]} sequences"
            self._recorded[key] = Recorded(name, work, places, recorder)
        metrics = self._recorded[key](given)
        # Copied: the next update writes over them.
        return dict(zip(metrics, torch.stack(list(metrics.values())).unbind(), strict=True))

    def _compute(self, batch: UpdateBatch, noise: UpdateNoise, *, pretrain: bool) -> Metrics:
        latents, metrics = self._model_step(batch, noise)
        if pretrain:
            return metrics
        scale = self.value_scale.of(batch.task)
        loss, q_first, policy_metrics = self._policy_loss(self.model, self.config, batch, latents, scale, noise)
        policy_metrics["policy_grad_norm"] = self._step(self.policy_optimizer, loss, policy_metrics)
        self._update_scale(q_first, batch.task)
        return {**metrics, **policy_metrics, **self._scale_metrics()}

    def _model_step(self, batch: UpdateBatch, noise: UpdateNoise) -> tuple[Tensor, Metrics]:
        self._observe(batch)
        loss, latents, metrics = self._model_loss(self.model, self.config, batch, noise)
        metrics["grad_norm"] = self._step(self.optimizer, loss, metrics)
        self.model.limit_embeddings()
        if self._targets:
            with torch.no_grad():  # (7)
                torch._foreach_lerp_(self._targets, self._online, self.config.ema_rate)
        return latents.detach(), metrics

    def _observe(self, batch: UpdateBatch) -> None:
        """Takes the observations of all processes into their tasks' moments, where the encoder scales by them."""
        if self.model.config.obs_scaling == "none":
            return
        steps, obs = len(batch.obs), batch.obs.transpose(0, 1).contiguous()  # rows first: parts are joined by rows
        task = self.ranks.gather(batch.task).repeat_interleave(steps)
        self.model.obs_moments.update(self.ranks.gather(obs).flatten(0, 1), task)

    def _noise(self, batch: UpdateBatch, seed: Tensor, *, pretrain: bool) -> UpdateNoise:
        """Draws the noise of the whole batch, on every process the same, and takes this process's part of it."""
        B = len(batch.task)
        noise = draw_noise(self.model, self.ranks.world * B, self.config.horizon, seed, pretrain=pretrain)
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
        for group, base_lr in self._groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(factor * base_lr)
            else:
                group["lr"] = factor * base_lr

    def _update_scale(self, values: Tensor, task: Tensor) -> None:
        """(6) over the values of all processes: averaging each one's S, as published, only comes near to that."""
        self.value_scale.update(self.ranks.gather(values), self.ranks.gather(task))

    def _scale_metrics(self) -> Metrics:
        """S; per task the mean, and the smallest and the largest."""
        value = self.value_scale.value
        if not value.ndim:
            return {"scale": value.clone()}
        return {"scale": value.mean(), "scale_min": value.min(), "scale_max": value.max()}

    def equalise(self) -> None:
        """Gives all processes rank 0's whole training state, optimisers included; call before the first update."""
        if self.ranks.world > 1:
            state = self.ranks.broadcast(self.state_dict())
            if not self.ranks.first:
                self.load_state_dict(state)

    def require_equal(self) -> None:
        """Checks that all processes hold the same weights. Raises RuntimeError naming those which do not."""
        self.ranks.require_equal(list(self.model.parameters()), "weights")

    def state_dict(self) -> dict[str, Tensor]:
        """Returns a copy of the whole training state as named tensors.

        Names: `model.*` (parameters incl. target critics), `optim.<main|policy>.<parameter>.<moment>` (absent
        before a parameter's first step), `scale` (and `scale_recent`, `scale_seen` per task), `updates`, `rng` (of the
        CPU, whatever the device).
        """
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter, optimizer, prefix in self._optimised():
            moments = optimizer.state.get(parameter, {})
            state |= {f"{prefix}.{name}.{key}": moments[key] for key in _MOMENTS if key in moments}
        state |= {
            **self.value_scale.state_dict(),
            "updates": torch.tensor(self.updates),
            "rng": self._seeds.get_state(),
        }
        return copied(state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`'s output exactly; nothing is changed if it does not fit.

        The state may come from another type of device: the noise of the updates that follow is the same to the bit,
        and what it is added to is so to float tolerance.

        Raises:
            ConfigError: Names are missing or unknown, or a shape differs.
        """
        own = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        own |= {**self.value_scale.state_dict(), "updates": torch.tensor(0), "rng": self._seeds.get_state()}
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
        self._recorded.clear()  # the moments become other tensors
        device = self.model.device
        prefix = "model."
        self.model.load_state_dict({n[len(prefix) :]: v for n, v in state.items() if n.startswith(prefix)})
        for name, parameter, optimizer, optim_prefix in self._optimised():
            keys = {key: f"{optim_prefix}.{name}.{key}" for key in _MOMENTS}
            optimizer.state.pop(parameter, None)
            if keys["step"] in state:
                optimizer.state[parameter] = {k: state[n].to(device, copy=True) for k, n in keys.items()}
        self.value_scale.load_state_dict(state)
        self.updates = int(state["updates"])
        self._seeds.set_state(state["rng"].cpu())

    def _optimised(self) -> list[tuple[str, nn.Parameter, torch.optim.Optimizer, str]]:
        """Lists (name, parameter, optimiser, state prefix) of everything that has moments."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        optimizers = ((self.optimizer, "optim.main"), (self.policy_optimizer, "optim.policy"))
        return [
            (names[parameter], parameter, optimizer, prefix)
            for optimizer, prefix in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
