from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from newt.agent import Batch, ConfigError, Learner, TrainConfig, UpdateNoise, WorldModel
from newt.agent.losses import draw_noise, model_loss, policy_loss, td_target

MakeModel = Callable[..., WorldModel]
MakeBatch = Callable[..., Batch]
NETWORKS = ("encoder", "dynamics", "reward_head", "policy_head", "critics", "target_critics")


def noise_for(model: WorldModel, batch: Batch, *, pretrain: bool) -> UpdateNoise:
    return draw_noise(model, len(batch.task), 3, torch.Generator().manual_seed(5), pretrain=pretrain)


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
    learner, batch = Learner(model, TrainConfig()), make_batch(model)
    before = snapshot(model)
    learner.pretrain_update(batch)
    assert changed_networks(model, before) == set(NETWORKS)
    assert float(learner.scale) == 1
    assert not learner.policy_optimizer.state
    policy = model.policy_head.layer(0).weight
    main_step = float(learner.optimizer.state[policy]["step"])
    before = snapshot(model)
    learner.rl_update(batch)
    assert changed_networks(model, before) == set(NETWORKS)
    assert float(learner.optimizer.state[policy]["step"]) == main_step
    assert float(learner.policy_optimizer.state[policy]["step"]) == 1
    assert learner.updates == 2


def test_losses_of_a_fresh_model(make_model: MakeModel, make_batch: MakeBatch) -> None:
    template = make_model()
    model = WorldModel(template.config, template.table)
    metrics = Learner(model, TrainConfig()).rl_update(make_batch(model))
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
    Learner(model, config).rl_update(batch)
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
        learner = Learner(model, TrainConfig())
        learner.pretrain_update(batch)
        learner.rl_update(batch)
        states.append(learner.state_dict())
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
    learner, batch = Learner(model, TrainConfig(warmup_updates=4)), make_batch(model)
    rates = []
    for _ in range(5):
        learner.rl_update(batch)
        groups = [*learner.optimizer.param_groups, *learner.policy_optimizer.param_groups]
        rates.append([group["lr"] for group in groups])
    factors = [row[1] / 3e-4 for row in rates]
    assert factors == pytest.approx([0.5, 0.75, 1, 1, 1])
    assert rates[-1] == pytest.approx([9e-5, 3e-4, 3e-4, 3e-4, 3e-4, 3e-4])


def test_value_scale(make_model: MakeModel) -> None:
    learner = Learner(make_model(), TrainConfig())
    learner._update_scale(torch.linspace(0, 100, 101))
    assert float(learner.scale) == pytest.approx(1 + 0.01 * (90 - 1))
    narrow = Learner(make_model(), TrainConfig())
    narrow._update_scale(torch.linspace(0, 0.5, 101))
    assert float(narrow.scale) == 1


@pytest.mark.parametrize("phase", ["pretrain", "rl"])
def test_resume_is_bit_exact(make_model: MakeModel, make_batch: MakeBatch, phase: str) -> None:
    model = make_model()
    batch = make_batch(model)
    learner = Learner(model, TrainConfig(warmup_updates=10), seed=3)
    learner.pretrain_update(batch)
    if phase == "rl":
        learner.rl_update(batch)
    resumed = Learner(make_model(seed=9), TrainConfig(warmup_updates=10), seed=4)
    resumed.load_state_dict(learner.state_dict())
    for step in (Learner.pretrain_update, Learner.rl_update, Learner.rl_update):
        step(learner, batch)
        step(resumed, batch)
    first, second = learner.state_dict(), resumed.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_stored_randomness_belongs_to_no_device(make_model: MakeModel, make_batch: MakeBatch) -> None:
    """It is the CPU generator's whatever drew the noise, and however much: any device can take it over."""
    small, large = Learner(make_model(), TrainConfig(), seed=3), Learner(make_model(), TrainConfig(), seed=3)
    fresh = small.state_dict()["rng"]
    for learner, rows in ((small, 4), (large, 12)):
        learner.pretrain_update(make_batch(learner.model, rows=rows))
        learner.rl_update(make_batch(learner.model, rows=rows))
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
    first, second = (Learner(make_model().to(device), TrainConfig(), seed=3) for device in (before, after))
    first.rl_update(make_batch(first.model).to(before))
    second.load_state_dict(first.state_dict())
    assert float(second.rl_update(make_batch(second.model).to(after))["total_loss"]) < float("inf")
    assert second.updates == 2


def test_foreign_state_is_refused_and_changes_nothing(make_model: MakeModel) -> None:
    learner = Learner(make_model(), TrainConfig())
    before = learner.state_dict()
    foreign = Learner(make_model(mlp_dim=48), TrainConfig()).state_dict()
    with pytest.raises(ConfigError, match="does not fit"):
        learner.load_state_dict(foreign)
    after = learner.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batches_are_checked(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model()
    learner, batch = Learner(model, TrainConfig()), make_batch(model)
    with pytest.raises(ConfigError, match=r"batch\.reward: expected torch\.float32 \(3, 12\)"):
        learner.rl_update(replace(batch, reward=batch.reward[..., None]))
    with pytest.raises(ConfigError, match=r"batch\.terminated"):
        learner.rl_update(replace(batch, terminated=batch.terminated.float()))
    with pytest.raises(ConfigError, match=r"batch\.obs"):
        learner.rl_update(make_batch(model, horizon=2))


def test_images_and_single_task_models_train(make_model: MakeModel, make_batch: MakeBatch) -> None:
    for overrides in ({"image_dim": 5}, {"language_dim": 0}):
        model = make_model(**overrides)
        learner, batch = Learner(model, TrainConfig()), make_batch(model)
        metrics = {**learner.pretrain_update(batch), **learner.rl_update(batch)}
        assert all(bool(torch.isfinite(value).all()) for value in metrics.values())


def test_training_fits_a_simple_world(make_model: MakeModel) -> None:
    """Reward = first action entry: after some updates the model predicts it and the policy pushes it up."""
    model = make_model()
    learner = Learner(model, TrainConfig(lr=1e-3, bc_coef=0.0))
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        action = torch.rand(3, 64, 4, generator=generator) * 2 - 1
        batch = Batch(
            torch.randn(4, 64, 10, generator=generator),
            action,
            action[..., 0],
            torch.ones(3, 64, dtype=torch.bool),
            torch.randint(4, (64,), generator=generator),
        )
        metrics = learner.rl_update(batch)
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
