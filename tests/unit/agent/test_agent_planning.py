"""Planning against a plain implementation written for these tests: one row, modules only, nothing shared."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from newt.agent.config import PlanConfig
from newt.agent.inference import InferenceModel
from newt.agent.plan_noise import PlanDraws, PlanNoise
from newt.agent.planning import Planner, PlanResult
from newt.agent.world_model import WorldModel

MakeModel = Callable[..., WorldModel]
CONFIG = PlanConfig(num_samples=48, num_policy_trajectories=6, num_elites=8, iterations=3)


def inputs(rows: int, seed: int = 0, horizon: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Observations, tasks, seeds, previous means."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 10, generator=generator)
    previous = torch.rand(rows, horizon, 4, generator=generator) * 2 - 1
    return obs, torch.arange(rows) % 4, torch.arange(rows) + 100, previous


def draws(model: WorldModel, seeds: Tensor) -> PlanNoise:
    return PlanDraws(CONFIG, 4, 4, model.config.num_critics, torch.device("cpu")).plan(seeds, horizon=3)


@torch.no_grad()
def plain_plan(
    model: WorldModel,
    obs: Tensor,
    task: Tensor,
    previous: Tensor,
    weight: float,
    noise: PlanNoise,
    row: int,
    *,
    explore: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MPPI of one row, as the specification lists it: action, final mean, values of the last iteration, final std."""
    P, S, H = CONFIG.num_policy_trajectories, CONFIG.num_samples, previous.shape[0]
    mask, gamma = model.action_masks[task], model.discounts[task]
    tasks = task.expand(S)
    z0 = model.encode(obs[None], task[None])
    z = z0.expand(P, -1)
    trajectories = []
    for t in range(H):
        trajectories.append(model.policy(z, tasks[:P], noise.policy[row, t]).action)
        z = model.next(z, trajectories[-1], tasks[:P])
    policy = torch.stack(trajectories)  # [H, P, A]
    mean = torch.cat([previous[1:], torch.zeros(1, 4)])
    mean = weight * policy.mean(1) + (1 - weight) * mean
    std = weight * policy.std(1).clamp(0.05, 2) + (1 - weight) * 2
    for i in range(CONFIG.iterations):
        fresh = (mean[:, None] + std[:, None] * noise.candidates[row, i]).clamp(-1, 1)
        actions = torch.cat([policy, fresh], 1) * mask
        z, returns = z0.expand(S, -1), torch.zeros(S)
        for t in range(H):
            returns = returns + gamma**t * model.codec.decode(model.reward(z, actions[t], tasks))
            z = model.next(z, actions[t], tasks)
        last = model.policy(z, tasks, noise.value_policy[row, i]).action
        values = returns + gamma**H * model.value(z, last, tasks, noise.pairs[row, i], "avg")
        best = values.argsort(descending=True)[: CONFIG.num_elites]
        weights = torch.exp(0.5 * (values[best] - values[best[0]]))
        weights = weights / weights.sum()
        elites = actions[:, best]
        mean = (weights[:, None] * elites).sum(1)
        std = (weights[:, None] * (elites - mean[:, None]) ** 2).sum(1).sqrt().clamp(0.05, 2) * mask
    chosen = (weights.log() - noise.select[row].log()).argmax()
    action = elites[0, chosen] + explore * std[0] * noise.explore[row]
    return action.clamp(-1, 1), mean, values, std


def same(left: PlanResult, right: PlanResult, tolerance: float = 1e-4) -> None:
    for name in ("action", "next_mean", "sequence", "value"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name), rtol=0, atol=tolerance)


def pick(result: PlanResult, rows: list[int]) -> PlanResult:
    return PlanResult(*(getattr(result, field.name)[rows] for field in fields(result)))


@pytest.mark.parametrize(
    "overrides", [{}, {"language_dim": 0}, {"num_critics": 2, "encoder_layers": 1}, {"critic_dim": 56}]
)
def test_plans_match_a_plain_implementation(make_model: MakeModel, overrides: dict[str, int]) -> None:
    model = make_model(**overrides)
    obs, task, seeds, previous = inputs(5)
    noise = draws(model, seeds)
    # Weights of 0, 0.5 and 1, explore and evaluate, first and later steps, all in one batch.
    weight = torch.tensor([0.0, 0.5, 1.0, 0.25, 0.0])
    explore = torch.tensor([True, False, True, False, True])
    first = torch.tensor([False, False, False, True, True])
    result = Planner(model, CONFIG).plan(
        obs, task, seeds=seeds, prev_mean=previous, first=first, explore=explore, constraint_weight=weight
    )
    for row in range(5):
        start = previous[row] * (not first[row])
        action, mean, values, std = plain_plan(
            model, obs[row], task[row], start, float(weight[row]), noise, row, explore=bool(explore[row])
        )
        torch.testing.assert_close(result.action[row], action, rtol=0, atol=1e-3)
        torch.testing.assert_close(result.next_mean[row], mean, rtol=0, atol=1e-3)
        torch.testing.assert_close(result.std[row], std, rtol=0, atol=1e-3)
        assert float((values - result.value[row]).abs().min()) < 1e-3


def test_noise_from_outside_replaces_the_seeds(make_model: MakeModel) -> None:
    model = make_model()
    obs, task, seeds, previous = inputs(3)
    planner = Planner(model, CONFIG)
    by_seed = planner.plan(obs, task, seeds=seeds, prev_mean=previous)
    injected = planner.plan(obs, task, seeds=seeds + 50, prev_mean=previous, noise=draws(model, seeds))
    same(by_seed, injected, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 5e-2)])
def test_a_plan_does_not_depend_on_its_batch(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float
) -> None:
    planner = Planner(InferenceModel.from_model(make_model(), dtype), CONFIG)
    obs, task, seeds, previous = inputs(9)
    weight = torch.linspace(0, 1, 9)

    def plan(rows: list[int]) -> PlanResult:
        return planner.plan(
            obs[rows], task[rows], seeds=seeds[rows], prev_mean=previous[rows], constraint_weight=weight[rows]
        )

    whole = plan(list(range(9)))
    for rows in ([4], [8, 0], [3, 4, 1, 7]):
        same(plan(rows), pick(whole, rows), tolerance)
    monkeypatch.setattr("newt.agent.planning._CPU_SAMPLES_PER_PASS", 2 * CONFIG.num_samples)
    same(plan(list(range(9))), whole, tolerance)


def test_same_seed_same_plan_other_seed_other_plan(make_model: MakeModel) -> None:
    planner = Planner(make_model(), CONFIG)
    obs, task, seeds, _ = inputs(2)
    first, again = (planner.plan(obs, task, seeds=seeds) for _ in range(2))
    same(first, again, 0)
    other = planner.plan(obs, task, seeds=seeds + 1)
    assert not torch.allclose(first.next_mean, other.next_mean)


def test_invalid_entries_stay_zero_and_do_not_matter(make_model: MakeModel) -> None:
    model = make_model()
    planner = Planner(model, CONFIG)
    obs, task, seeds, previous = inputs(4)
    noise = draws(model, seeds)
    invalid = 1 - model.action_masks[task]

    def with_junk(x: Tensor) -> Tensor:
        return x + 9 * invalid.view(4, *(1 for _ in range(x.ndim - 2)), 4)

    clean = planner.plan(obs, task, seeds=seeds, prev_mean=previous, noise=noise)
    junk = replace(
        noise,
        policy=with_junk(noise.policy),
        candidates=with_junk(noise.candidates),
        value_policy=with_junk(noise.value_policy),
        explore=with_junk(noise.explore),
    )
    same(clean, planner.plan(obs, task, seeds=seeds, prev_mean=with_junk(previous), noise=junk), 1e-5)
    for actions in (clean.action, clean.next_mean[:, 0], clean.sequence[:, 2]):
        assert torch.all(actions * invalid == 0)
        assert torch.all(actions.abs() <= 1)


def test_bf16_is_close_to_fp32(make_model: MakeModel) -> None:
    model = make_model()
    obs, task, seeds, previous = inputs(8)
    single = PlanConfig(**{**CONFIG.to_dict(), "iterations": 1, "temperature": 0.01})
    exact, fast = (
        Planner(InferenceModel.from_model(model, dtype), single).plan(
            obs, task, seeds=seeds, prev_mean=previous, explore=False
        )
        for dtype in (torch.float32, torch.bfloat16)
    )
    # Elites at the border may differ; their mean hardly does.
    assert float((exact.next_mean - fast.next_mean).abs().mean()) < 0.1
    assert not torch.equal(exact.value, fast.value)


def test_bf16_networks_are_close_to_fp32(make_model: MakeModel) -> None:
    model = make_model()
    obs, task, _, _ = inputs(8)
    action = torch.rand(8, 5, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    outputs = []
    for dtype in (torch.float32, torch.bfloat16):
        fast = InferenceModel.from_model(model, dtype)
        terms = fast.task_terms(task)
        with torch.inference_mode():
            z, reward = fast.step(terms, fast.encode(obs, task), action * terms.mask)
            value = fast.value(terms, z, action * terms.mask, torch.tensor([[0, 2]] * 8))
            outputs.append((z, reward, value))
    for exact, close in zip(*outputs, strict=True):
        assert float((exact - close).abs().max()) < 0.05 * (1 + float(exact.abs().max()))


def test_longer_horizons_for_open_loop(make_model: MakeModel) -> None:
    planner = Planner(make_model(), CONFIG)
    obs, task, seeds, _ = inputs(2)
    result = planner.plan(obs, task, seeds=seeds, horizon=24, explore=False)
    assert result.sequence.shape == (2, 24, 4)
    torch.testing.assert_close(result.sequence[:, 0], result.action)


def test_policy_only_acting(make_model: MakeModel) -> None:
    model = make_model()
    planner = Planner(model, CONFIG)
    obs, task, seeds, _ = inputs(6)
    explore = torch.tensor([True, False] * 3)
    mixed = planner.policy(obs, task, seeds=seeds, explore=explore)
    alone = planner.policy(obs[:1], task[:1], seeds=seeds[:1])
    torch.testing.assert_close(mixed[:1], alone, rtol=0, atol=1e-5)
    with torch.no_grad():
        mean = model.policy(model.encode(obs, task), task, torch.zeros(6, 4)).mean_action
    torch.testing.assert_close(mixed[1::2], mean[1::2], rtol=0, atol=1e-5)
    assert not torch.allclose(mixed[::2], mean[::2], atol=1e-3)


def test_images_reach_the_plan(make_model: MakeModel) -> None:
    planner = Planner(make_model(image_dim=5), CONFIG)
    obs, task, seeds, _ = inputs(2)
    dark, bright = (planner.plan(obs, task, seeds=seeds, image=torch.full((2, 5), x)) for x in (0.0, 1.0))
    assert not torch.allclose(dark.next_mean, bright.next_mean)
    with pytest.raises(ValueError, match="image: model has image_dim 5, got no image"):
        planner.plan(obs, task, seeds=seeds)


def test_bad_requests_are_refused_by_name(make_model: MakeModel) -> None:
    planner = Planner(make_model(), CONFIG)
    obs, task, seeds, previous = inputs(2)
    with pytest.raises(ValueError, match="obs: expected finite"):
        planner.plan(obs * float("nan"), task, seeds=seeds)
    with pytest.raises(ValueError, match="prev_mean: expected finite"):
        planner.plan(obs, task, seeds=seeds, prev_mean=previous * float("inf"))
    with pytest.raises(ValueError, match="task: expected indices below 4"):
        planner.plan(obs, task + 3, seeds=seeds)
    with pytest.raises(ValueError, match=r"prev_mean: expected torch.float32 \(2, 3, 4\)"):
        planner.plan(obs, task, seeds=seeds, prev_mean=previous[:, :2])
    with pytest.raises(ValueError, match=r"seeds: expected torch\.int64"):
        planner.plan(obs, task, seeds=seeds.float())
    with pytest.raises(ValueError, match="constraint_weight: expected numbers in"):
        planner.plan(obs, task, seeds=seeds, constraint_weight=torch.tensor([0.0, 1.5]))
    with pytest.raises(ValueError, match="at least one row"):
        planner.plan(obs[:0], task[:0], seeds=seeds[:0])
