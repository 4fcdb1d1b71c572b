from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from newt.agent.batch import UpdateBatch, UpdateNoise, draw_noise
from newt.agent.config import ConfigError, Precision, TrainConfig
from newt.agent.update import Updater, model_loss, policy_loss, td_target
from newt.agent.world_model import WorldModel

MakeModel = Callable[..., WorldModel]
MakeBatch = Callable[..., UpdateBatch]
NETWORKS = ("encoder", "dynamics", "reward_head", "policy_head", "critics", "target_critics")


def noise_for(model: WorldModel, batch: UpdateBatch, *, pretrain: bool) -> UpdateNoise:
    return draw_noise(model, len(batch.task), 3, torch.tensor(5), pretrain=pretrain)


def networks_with_gradient(model: WorldModel) -> set[str]:
    def touched(name: str) -> bool:
        gradients = [p.grad for p in model.get_submodule(name).parameters()]
        return any(g is not None and bool(g.abs().sum() > 0) for g in gradients)

    return {name for name in NETWORKS if touched(name)}


def changed_networks(model: WorldModel, before: dict[str, Tensor]) -> set[str]:
    after = model.state_dict()
    return {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}


def snapshot(model: WorldModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_gradient_routing(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model, config = make_model(), TrainConfig()
    batch = make_batch(model)
    noise = noise_for(model, batch, pretrain=False)
    loss, latents, _ = model_loss(model, config, batch, noise)
    loss.backward()
    assert networks_with_gradient(model) == {"encoder", "dynamics", "reward_head", "critics"}

    model.zero_grad()
    loss, _, _ = policy_loss(model, config, batch, latents.detach(), torch.ones(()), noise)
    loss.backward()
    assert networks_with_gradient(model) == {"policy_head"}

    model.zero_grad()
    cloning_only = TrainConfig(consistency_coef=0, reward_coef=0, value_coef=0)
    loss, _, _ = model_loss(model, cloning_only, batch, noise_for(model, batch, pretrain=True))
    loss.backward()
    assert networks_with_gradient(model) == {"encoder", "dynamics", "policy_head"}


def test_updates_change_what_they_should(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model()
    updater, batch = Updater(model, TrainConfig()), make_batch(model)
    before = snapshot(model)
    updater.pretrain_update(batch)
    assert changed_networks(model, before) == set(NETWORKS)
    assert float(updater.value_scale.value) == 1
    assert not updater.policy_optimizer.state
    policy = model.policy_head.layer(0).weight
    main_step = float(updater.optimizer.state[policy]["step"])
    before = snapshot(model)
    updater.rl_update(batch)
    assert changed_networks(model, before) == set(NETWORKS)
    assert float(updater.optimizer.state[policy]["step"]) == main_step
    assert float(updater.policy_optimizer.state[policy]["step"]) == 1
    assert updater.updates == 2


def test_losses_of_a_fresh_model(make_model: MakeModel, make_batch: MakeBatch) -> None:
    template = make_model()
    model = WorldModel(template.config, template.table)
    metrics = Updater(model, TrainConfig()).rl_update(make_batch(model))
    # (8 + 4 + 2) / 15 of the entropy of 101 equal bins
    assert float(metrics["reward_loss"]) == pytest.approx(4.30745, abs=1e-4)
    assert float(metrics["value_loss"]) == pytest.approx(4.30745, abs=1e-4)


def test_target_critics_are_used_and_are_moving_averages(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model, config = make_model(), TrainConfig()
    batch = make_batch(model)
    noise = noise_for(model, batch, pretrain=False)
    z = model.encode(batch.obs[1:], batch.task)

    def target(kind: TrainConfig) -> Tensor:
        return td_target(model, kind, batch, z, noise).detach()

    ema, online = target(config), target(TrainConfig(target_critic="online"))
    with torch.no_grad():
        for parameter in model.target_critics.parameters():
            parameter.add_(0.1)
    assert not torch.allclose(target(config), ema)
    assert torch.equal(target(TrainConfig(target_critic="online")), online)

    old = [p.clone() for p in model.target_critics.parameters()]
    Updater(model, config).rl_update(batch)
    for before, now, own in zip(old, model.target_critics.parameters(), model.critics.parameters(), strict=True):
        torch.testing.assert_close(now, before + 0.01 * (own.detach() - before))


def test_td_target_by_hand(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model()
    batch = make_batch(model)
    terminated = batch.terminated.clone()
    terminated[1, 3] = True
    batch = replace(batch, terminated=terminated)
    noise = noise_for(model, batch, pretrain=False)
    with torch.no_grad():
        z = model.encode(batch.obs[1:], batch.task)
        y = td_target(model, TrainConfig(), batch, z, noise)
        action = model.policy(z, batch.task, noise.td_policy).action
        members = model.codec.decode(model.Q(z, action, batch.task, target=True))[noise.td_pair]
    expected = batch.reward + model.discounts[batch.task] * members.min(0).values
    assert y[1, 3] == batch.reward[1, 3]
    expected[1, 3] = batch.reward[1, 3]
    torch.testing.assert_close(y, expected)


def test_junk_in_invalid_action_entries_has_no_effect(make_model: MakeModel, make_batch: MakeBatch) -> None:
    states = []
    for junk in (0.0, 100.0):
        model = make_model()
        batch = make_batch(model)
        invalid = 1 - model.action_masks[batch.task]
        batch = replace(batch, action=batch.action * (1 - invalid) + junk * invalid)
        updater = Updater(model, TrainConfig())
        updater.pretrain_update(batch)
        updater.rl_update(batch)
        states.append(updater.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_cloning_weights_differ_between_phases(make_model: MakeModel, make_batch: MakeBatch) -> None:
    """Pretraining averages the cloning error over time, the policy loss sums it: a factor of H."""
    model = make_model()
    batch = make_batch(model)
    config = TrainConfig(entropy_coef=0)
    noise = noise_for(model, batch, pretrain=True)
    assert noise.bc_policy is not None
    _, latents, metrics = model_loss(model, config, batch, noise)
    policy_noise = replace(noise, pi_policy=torch.cat([noise.bc_policy, noise.bc_policy[:1]]), pi_pair=noise.td_pair)
    _, _, policy_metrics = policy_loss(model, config, batch, latents.detach(), torch.ones(()), policy_noise)
    assert float(policy_metrics["policy_bc"]) == pytest.approx(3 * float(metrics["bc_loss"]), rel=1e-5)
    assert float(policy_metrics["policy_bc"]) > 0


def test_demonstrations_alone_are_cloned_where_that_is_asked_for(make_model: MakeModel, make_batch: MakeBatch) -> None:
    """The cloning error of a batch is that of its demos and that of the others; values count in all rows."""
    model = make_model()
    batch = make_batch(model)
    demo = torch.arange(len(batch.task)) % 3 == 0
    noise = noise_for(model, batch, pretrain=False)
    latents = model_loss(model, TrainConfig(), batch, noise)[1].detach()

    def parts(config: TrainConfig, batch: UpdateBatch) -> tuple[float, float]:
        loss, _, metrics = policy_loss(model, config, batch, latents, torch.ones(()), noise)
        return float(metrics["policy_bc"]), float(loss.detach() - metrics["policy_bc"])

    everything, gain = parts(TrainConfig(), replace(batch, demo=demo))
    demos, same = parts(TrainConfig(bc_data="demos"), replace(batch, demo=demo))
    others, also = parts(TrainConfig(bc_data="demos"), replace(batch, demo=~demo))
    assert demos + others == pytest.approx(everything, rel=1e-5)
    assert 0 < demos < others
    assert (same, also) == pytest.approx((gain, gain), rel=1e-4)
    assert parts(TrainConfig(bc_data="demos"), replace(batch, demo=torch.zeros_like(demo)))[0] == 0.0


def test_policy_values_are_divided_by_the_scale(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model()
    batch = make_batch(model)
    config = TrainConfig(bc_coef=0, entropy_coef=0)
    noise = noise_for(model, batch, pretrain=False)
    latents = model_loss(model, config, batch, noise)[1].detach()
    by_one, by_four = (
        policy_loss(model, config, batch, latents, torch.tensor(scale), noise)[0].item() for scale in (1.0, 4.0)
    )
    assert by_one == pytest.approx(4 * by_four, rel=1e-5)
    assert by_one != 0


def test_warmup_and_encoder_rate(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model()
    updater, batch = Updater(model, TrainConfig(warmup_updates=4)), make_batch(model)
    rates = []
    for _ in range(5):
        updater.rl_update(batch)
        groups = [*updater.optimizer.param_groups, *updater.policy_optimizer.param_groups]
        rates.append([group["lr"] for group in groups])
    factors = [row[1] / 3e-4 for row in rates]
    assert factors == pytest.approx([0.5, 0.75, 1, 1, 1])
    assert rates[-1] == pytest.approx([9e-5, 3e-4, 3e-4, 3e-4, 3e-4, 3e-4])


def test_each_row_is_divided_by_the_scale_of_its_task(make_model: MakeModel, make_batch: MakeBatch) -> None:
    """S of 4 for one task: its rows count a quarter, those of the others in full."""
    model = make_model()
    batch = make_batch(model)
    updater = Updater(model, TrainConfig(bc_coef=0, entropy_coef=0, value_scale="per_task"))
    noise = noise_for(model, batch, pretrain=False)
    latents = model_loss(model, updater.config, batch, noise)[1].detach()

    def gain(scale: Tensor) -> float:
        return -policy_loss(model, updater.config, batch, latents, scale, noise)[0].item()

    whole = gain(torch.ones(()))
    one = batch.task == batch.task[0]
    of_task = gain(torch.where(one, 1.0, torch.inf))
    updater.value_scale.value[batch.task[0]] = 4.0
    assert gain(updater.value_scale.of(batch.task)) == pytest.approx(whole - 0.75 * of_task, rel=1e-4)
    assert 0 < int(one.sum()) < len(one)


def test_scales_per_task_resume_to_the_bit(make_model: MakeModel, make_batch: MakeBatch) -> None:
    config = TrainConfig(value_scale="per_task", ema_rate=0.5)
    model = make_model()
    batch = replace(make_batch(model), reward=200 * make_batch(model).reward)
    updater = Updater(model, config, seed=3)
    metrics = updater.rl_update(batch)
    assert {"scale", "scale_min", "scale_max"} <= metrics.keys()
    resumed = Updater(make_model(seed=9), config, seed=4)
    resumed.load_state_dict(updater.state_dict())
    for one in (updater, resumed):
        one.rl_update(batch)
    for name, value in updater.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(ConfigError, match="scale_recent"):
        Updater(model, TrainConfig()).load_state_dict(updater.state_dict())


@pytest.mark.parametrize("phase", ["pretrain", "rl"])
def test_resume_is_bit_exact(make_model: MakeModel, make_batch: MakeBatch, phase: str) -> None:
    model = make_model()
    batch = make_batch(model)
    updater = Updater(model, TrainConfig(warmup_updates=10), seed=3)
    updater.pretrain_update(batch)
    if phase == "rl":
        updater.rl_update(batch)
    resumed = Updater(make_model(seed=9), TrainConfig(warmup_updates=10), seed=4)
    resumed.load_state_dict(updater.state_dict())
    for step in (Updater.pretrain_update, Updater.rl_update, Updater.rl_update):
        step(updater, batch)
        step(resumed, batch)
    first, second = updater.state_dict(), resumed.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_stored_randomness_belongs_to_no_device(make_model: MakeModel, make_batch: MakeBatch) -> None:
    """It is the CPU generator's whatever drew the noise, and however much: any device can take it over."""
    small, large = Updater(make_model(), TrainConfig(), seed=3), Updater(make_model(), TrainConfig(), seed=3)
    fresh = small.state_dict()["rng"]
    for updater, rows in ((small, 4), (large, 12)):
        updater.pretrain_update(make_batch(updater.model, rows=rows))
        updater.rl_update(make_batch(updater.model, rows=rows))
    rng = small.state_dict()["rng"]
    assert torch.equal(rng, large.state_dict()["rng"])
    assert not torch.equal(rng, fresh)
    assert rng.device.type == "cpu"
    torch.Generator().set_state(rng)  # raises if it is not a CPU generator's


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("before", "after"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_training_resumes_on_another_device(
    make_model: MakeModel, make_batch: MakeBatch, before: str, after: str
) -> None:
    first, second = (Updater(make_model().to(device), TrainConfig(), seed=3) for device in (before, after))
    first.rl_update(make_batch(first.model).to(before))
    second.load_state_dict(first.state_dict())
    losses = [
        float(updater.rl_update(make_batch(updater.model).to(device))["total_loss"])
        for updater, device in ((first, before), (second, after))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert second.updates == 2


def test_foreign_state_is_refused_and_changes_nothing(make_model: MakeModel) -> None:
    updater = Updater(make_model(), TrainConfig())
    before = updater.state_dict()
    foreign = Updater(make_model(mlp_dim=48), TrainConfig()).state_dict()
    with pytest.raises(ConfigError, match="does not fit"):
        updater.load_state_dict(foreign)
    after = updater.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batches_are_checked(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model()
    updater, batch = Updater(model, TrainConfig()), make_batch(model)
    with pytest.raises(ConfigError, match=r"batch\.reward: expected torch\.float32 \(3, 12\)"):
        updater.rl_update(replace(batch, reward=batch.reward[..., None]))
    with pytest.raises(ConfigError, match=r"batch\.terminated"):
        updater.rl_update(replace(batch, terminated=batch.terminated.float()))
    with pytest.raises(ConfigError, match=r"batch\.obs"):
        updater.rl_update(make_batch(model, horizon=2))
    with pytest.raises(ConfigError, match=r"batch\.demo: expected torch\.bool"):
        updater.rl_update(replace(batch, demo=torch.zeros(len(batch.task))))
    with pytest.raises(ConfigError, match=r"batch\.demo: needed"):
        Updater(model, TrainConfig(bc_data="demos")).rl_update(batch)


def test_images_and_single_task_models_train(make_model: MakeModel, make_batch: MakeBatch) -> None:
    for overrides in ({"image_dim": 5}, {"language_dim": 0}):
        model = make_model(**overrides)
        updater, batch = Updater(model, TrainConfig()), make_batch(model)
        metrics = {**updater.pretrain_update(batch), **updater.rl_update(batch)}
        assert all(bool(torch.isfinite(value).all()) for value in metrics.values())


def test_bfloat16_products_are_close_and_all_that_is_reduced(make_model: MakeModel, make_batch: MakeBatch) -> None:
    exact, reduced = (Updater(make_model(), TrainConfig(precision=p), seed=3) for p in ("float32", "bfloat16"))
    batch = make_batch(exact.model)
    results = [{**updater.pretrain_update(batch), **updater.rl_update(batch)} for updater in (exact, reduced)]
    for name in ("consistency_loss", "reward_loss", "value_loss", "policy_loss", "grad_norm"):
        assert float(results[1][name]) == pytest.approx(float(results[0][name]), rel=0.05, abs=0.02), name
        assert float(results[1][name]) != float(results[0][name]), name
    floats = [value for value in reduced.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in [*floats, *results[1].values()]} == {torch.float32}
    # Back in float32, the same weights make exact products again.
    again = Updater(reduced.model, TrainConfig())
    again.model.load_state_dict(exact.model.state_dict())
    task = torch.arange(4)
    z = torch.rand(4, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        again.model.reward(z, batch.action[0, :4], task), exact.model.reward(z, batch.action[0, :4], task)
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_fits_a_simple_world(make_model: MakeModel, precision: Precision) -> None:
    """Reward = first action entry: after some updates the model predicts it and the policy pushes it up."""
    model = make_model()
    updater = Updater(model, TrainConfig(lr=1e-3, bc_coef=0.0, precision=precision))
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        action = torch.rand(3, 64, 4, generator=generator) * 2 - 1
        batch = UpdateBatch(
            torch.randn(4, 64, 10, generator=generator),
            action,
            action[..., 0],
            torch.ones(3, 64, dtype=torch.bool),
            torch.randint(4, (64,), generator=generator),
        )
        metrics = updater.rl_update(batch)
    assert float(metrics["consistency_loss"]) < 0.05
    task = torch.arange(4)
    with torch.no_grad():
        z = model.encode(torch.randn(4, 10, generator=generator), task)
        low, high = torch.zeros(4, 4), torch.zeros(4, 4)
        low[:, 0], high[:, 0] = -0.8, 0.8
        predicted = [model.codec.decode(model.reward(z, a, task)) for a in (low, high)]
        chosen = model.policy(z, task, torch.zeros(4, 4)).action[:, 0]
    assert bool((predicted[1] - predicted[0] > 1.0).all())
    assert bool((chosen > 0.3).all())
