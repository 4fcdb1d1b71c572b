"""Draws by seed and place: fixed bits, whatever the batch, and the statistics of independent random numbers."""

import math

import pytest
import torch
from small_agents import build_model
from torch import Tensor

from newt.agent.batch import draw_noise
from newt.agent.config import PlanConfig
from newt.agent.draws import exponential, lanes, normal, pairs, random_words, tables
from newt.agent.plan_noise import PlanDraws

AWKWARD_SEEDS = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])
PLAN = PlanConfig(num_samples=48, num_policy_trajectories=6, num_elites=6, iterations=3)
FIELDS = ("policy", "candidates", "value_policy", "pairs", "select", "explore")
MASK = 2**64 - 1


def splitmix64(x: int) -> int:
    """The finaliser as published, in Python's unbounded integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def plan_draws(used: int = 6, device: str = "cpu") -> PlanDraws:
    return PlanDraws(PLAN, 6, used, 5, torch.device(device))


def spread(seeds: int, numbers: int) -> Tensor:
    """Normal numbers of consecutive seeds, float32[seeds, numbers]."""
    return normal(tables(torch.device("cpu")), lanes(random_words(torch.arange(seeds), torch.arange(numbers // 4))))


def farthest(sample: Tensor, distribution: Tensor) -> float:
    """The Kolmogorov-Smirnov statistic of a sorted sample against its distribution function there, over 1/sqrt(n)."""
    n = len(sample)
    steps = torch.arange(n, dtype=torch.float64) / n
    return float(torch.maximum(distribution - steps, steps + 1 / n - distribution).max()) * math.sqrt(n)


def test_words_are_those_of_splitmix64() -> None:
    words = random_words(AWKWARD_SEEDS, torch.arange(5))
    for row, seed in enumerate(AWKWARD_SEEDS.tolist()):
        for place in range(5):
            at = seed * 0x75B8311BA71FD2B7 + place
            assert int(words[row, place]) & MASK == splitmix64((at + 1) * 0x9E3779B97F4A7C15 & MASK)


def test_a_seeds_numbers_are_fixed_for_ever() -> None:
    """What a stored seed reproduces depends on these."""
    noise = plan_draws().plan(torch.tensor([7]), horizon=3)
    candidate = torch.tensor([0.033455, 0.133905, -0.495754, -1.315067, 1.273098, 0.932074])
    select = torch.tensor([0.843761, 0.172082, 0.855179, 0.133053, 0.216004, 0.26859])
    torch.testing.assert_close(noise.candidates[0, 0, 0, 0], candidate, rtol=0, atol=1e-6)
    torch.testing.assert_close(noise.select[0], select, rtol=0, atol=1e-6)
    assert noise.pairs[0].tolist() == [[2, 1], [4, 2], [0, 3]]


def test_rows_draw_the_same_in_any_batch_and_any_width() -> None:
    draws, narrow = plan_draws(), plan_draws(used=2)
    whole, fewer = draws.plan(AWKWARD_SEEDS, 3), narrow.plan(AWKWARD_SEEDS, 3)
    for row in range(len(AWKWARD_SEEDS)):
        alone = draws.plan(AWKWARD_SEEDS[row : row + 1], 3)
        for name in FIELDS:
            assert torch.equal(getattr(whole, name)[row], getattr(alone, name)[0]), name
    for name in FIELDS:
        used = slice(None) if name in ("pairs", "select") else slice(2)
        assert torch.equal(getattr(whole, name)[..., used], getattr(fewer, name)[..., used]), name
    assert not fewer.candidates[..., 4:].any()
    assert torch.equal(draws.policy(AWKWARD_SEEDS)[:, 0], whole.policy[:, 0, 0])


def test_compiled_draws_have_the_same_bits() -> None:
    draws = plan_draws()
    eager = draws.plan(AWKWARD_SEEDS, 3)
    compiled = torch.compile(draws.plan, backend="aot_eager", fullgraph=True, dynamic=True)(AWKWARD_SEEDS, 3)
    for name in FIELDS:
        assert torch.equal(getattr(eager, name), getattr(compiled, name)), name


@pytest.mark.long
@pytest.mark.timeout(300)
def test_generated_code_draws_the_same_bits() -> None:
    draws = plan_draws()
    with torch._inductor.config.patch({"cpp.simdlen": 1, "compile_threads": 1}):
        compiled = torch.compile(draws.plan, fullgraph=True)(AWKWARD_SEEDS, 3)
    eager = draws.plan(AWKWARD_SEEDS, 3)
    for name in FIELDS:
        assert torch.equal(getattr(eager, name), getattr(compiled, name)), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_bits() -> None:
    host, device = plan_draws().plan(AWKWARD_SEEDS, 3), plan_draws(device="cuda").plan(AWKWARD_SEEDS.cuda(), 3)
    for name in FIELDS:
        assert torch.equal(getattr(host, name), getattr(device, name).cpu()), name
    models = build_model(), build_model().to("cuda")
    noises = [vars(draw_noise(model, 8, 3, torch.tensor(5), pretrain=True)) for model in models]
    for name in ("td_policy", "td_pair", "bc_policy"):
        assert torch.equal(noises[0][name], noises[1][name].cpu()), name


def test_normal_numbers_are_standard_normal() -> None:
    sample = spread(64, 8192).flatten().double()
    n = len(sample)
    assert abs(float(sample.mean())) < 4 / math.sqrt(n)
    assert float(sample.square().mean()) == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    assert float((sample**3).mean()) == pytest.approx(0, abs=4 * math.sqrt(15 / n))
    assert float((sample**4).mean()) == pytest.approx(3, abs=4 * math.sqrt(96 / n))
    assert float(sample.abs().max()) < 4.4
    ordered = sample.sort().values
    # 1.95 is passed by one sample of a thousand.
    assert farthest(ordered, torch.special.ndtr(ordered)) < 1.95


def test_exponential_numbers_are_standard_exponential() -> None:
    words = random_words(torch.arange(64), torch.arange(2048))
    sample = exponential(tables(words.device), lanes(words)).flatten().double().sort().values
    assert float(sample[0]) > 0
    assert float(sample.mean()) == pytest.approx(1, abs=4 / math.sqrt(len(sample)))
    assert farthest(sample, -torch.expm1(-sample)) < 1.95


@pytest.mark.parametrize("members", [2, 3, 5])
def test_every_ordered_pair_is_equally_likely(members: int) -> None:
    drawn = pairs(random_words(torch.arange(256), torch.arange(256)), members).view(-1, 2)
    counts = torch.bincount(drawn[:, 0] * members + drawn[:, 1], minlength=members**2).view(members, members).double()
    assert not counts.diagonal().any()
    expected = len(drawn) / (members * (members - 1))
    counts.fill_diagonal_(expected)
    chi_squared = float(((counts - expected).square() / expected).sum())
    freedom = members * (members - 1) - 1
    assert chi_squared < freedom + 4 * math.sqrt(2 * freedom)


def test_neighbouring_seeds_and_places_are_independent() -> None:
    rows = spread(96, 4096).double()
    n = rows.shape[1]
    # Largest of 4,560 correlations, each of standard deviation 1/sqrt(n); 5 of them is passed by one in 400 tries.
    between = (rows @ rows.T / n).fill_diagonal_(0).abs().max()
    assert float(between) * math.sqrt(n) < 5
    signs, squares = rows.sign(), rows.square() - 1
    assert float((squares @ squares.T / (2 * n)).fill_diagonal_(0).abs().max()) * math.sqrt(n) < 7  # heavier tails
    for lag in (1, 2, 3, 4, 8, 16, 64):
        assert abs(float((rows[:, lag:] * rows[:, :-lag]).mean())) * math.sqrt(rows[:, lag:].numel()) < 4.5, lag
        # The same place of seeds that are `lag` apart, and one seed's place as its neighbour's next.
        assert abs(float((signs[lag:] * signs[:-lag]).mean())) * math.sqrt(signs[lag:].numel()) < 4.5, lag
        assert abs(float((rows[lag:, :-4] * rows[:-lag, 4:]).mean())) * math.sqrt(rows[lag:, 4:].numel()) < 4.5, lag


def test_noise_of_updates_follows_its_seed_and_not_its_phase() -> None:
    model = build_model()
    online = draw_noise(model, 12, 3, torch.tensor(5), pretrain=False)
    again = draw_noise(model, 12, 3, torch.tensor(5), pretrain=False)
    other = draw_noise(model, 12, 3, torch.tensor(6), pretrain=False)
    assert online.pi_policy is not None
    assert again.pi_policy is not None
    assert torch.equal(online.td_policy, again.td_policy)
    assert torch.equal(online.pi_policy, again.pi_policy)
    assert not torch.equal(online.td_policy, other.td_policy)
    assert online.pi_policy.shape == (4, 12, 4)
    assert online.td_policy.shape == (3, 12, 4)
    together = torch.cat([online.td_policy, online.pi_policy]).flatten()
    assert len(together.unique()) > 0.98 * len(together)  # nothing is drawn twice
    assert len(set(online.td_pair.tolist())) == 2
