"""World model against a plain implementation written for these tests, on concatenated inputs."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from newt.agent.config import ModelConfig
from newt.agent.layers import MLP
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel, parameter_counts

MakeModel = Callable[..., WorldModel]


def plain_mlp(mlp: MLP, x: Tensor, member: int | None = None) -> Tensor:
    """The network as the paper draws it: x is the whole first-layer input, language in its place."""
    for i in range(len(mlp.layers)):
        layer = mlp.layer(i)
        weight, bias = (p if member is None else p[member] for p in (layer.weight, layer.bias))
        x = F.linear(x, weight, bias)
        if layer.norm_weight is not None and layer.norm_bias is not None:
            scale, shift = (p if member is None else p[member] for p in (layer.norm_weight, layer.norm_bias))
            x = F.layer_norm(x, x.shape[-1:], scale, shift)
            if i == len(mlp.layers) - 1:
                return x.view(*x.shape[:-1], -1, 8).softmax(-1).view(x.shape)
            x = F.mish(x)
    return x


COUNTS = {
    "S": (132_608, 400_000, 326_501, 304_672, 979_503, 2_143_284),
    "B": (297_216, 1_061_376, 849_509, 805_920, 4_247_545, 7_261_566),
    "L": (2_235_904, 2_645_504, 2_223_205, 2_136_096, 11_116_025, 20_356_734),
    "XL": (11_161_664, 8_173_632, 6_936_677, 6_762_528, 48_556_739, 81_591_240),
}
IMAGE = {
    "S": (230_912, 2_241_588),
    "B": (493_824, 7_458_174),
    "L": (3_022_336, 21_143_166),
    "XL": (12_734_528, 83_164_104),
}
SINGLE_TASK = {"S": 1_291_316, "B": 5_033_342, "L": 15_638_142, "XL": 70_056_904}


def counts_of(size: str, **overrides: int) -> dict[str, int]:
    config = ModelConfig.from_size(size, **overrides)
    table = TaskTable.build(["a"], torch.zeros(1, config.language_dim), [4], [0.99])
    assert table.masks.sum() == 4  # computed here: below, new tensors hold no numbers
    with torch.device("meta"):
        return parameter_counts(WorldModel(config, table))


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts_are_the_papers(size: str) -> None:
    assert tuple(counts_of(size).values()) == COUNTS[size]
    with_image = counts_of(size, image_dim=768)
    assert (with_image["encoder"], with_image["total"]) == IMAGE[size]
    assert counts_of(size, language_dim=0)["total"] == SINGLE_TASK[size]


def test_networks_match_a_plain_implementation(make_model: MakeModel) -> None:
    model = make_model(image_dim=5)
    generator = torch.Generator().manual_seed(3)
    obs, image = torch.randn(8, 10, generator=generator), torch.randn(8, 5, generator=generator)
    action, noise = torch.randn(8, 4, generator=generator), torch.randn(8, 4, generator=generator)
    task = torch.arange(8) % 4
    g, mask = model.task_embeddings[task], model.action_masks[task]
    with torch.no_grad():
        z = model.encode(obs, task, image)
        torch.testing.assert_close(z, plain_mlp(model.encoder, torch.cat([obs, g, image], -1)))
        zga = torch.cat([z, g, action], -1)
        torch.testing.assert_close(model.next(z, action, task), plain_mlp(model.dynamics, zga))
        torch.testing.assert_close(model.reward(z, action, task), plain_mlp(model.reward_head, zga))
        for target, critics in ((False, model.critics), (True, model.target_critics)):
            expected = torch.stack([plain_mlp(critics, zga, member) for member in range(3)])
            torch.testing.assert_close(model.Q(z, action, task, target=target), expected)
            pair = torch.tensor([2, 0])
            values = model.codec.decode(expected[pair])
            low = model.value(z, action, task, pair, "min", target=target)
            torch.testing.assert_close(low, values.min(0).values)
            mean = model.value(z, action, task, pair, "avg", target=target)
            torch.testing.assert_close(mean, values.mean(0))
        raw_mean, raw = plain_mlp(model.policy_head, torch.cat([z, g], -1)).chunk(2, -1)
        log_std = (-10 + 6 * (raw.tanh() + 1)) * mask
        sample = model.policy(z, task, noise)
        expected_action = torch.tanh((raw_mean + log_std.exp() * noise) * mask)
        torch.testing.assert_close(sample.action, expected_action)
        torch.testing.assert_close(sample.mean_action, torch.tanh(raw_mean * mask))
        normal = torch.distributions.Normal(raw_mean * mask, log_std.exp())
        logprob = normal.log_prob(raw_mean * mask + log_std.exp() * noise * mask).sum(-1)
        torch.testing.assert_close(sample.gauss_logprob, logprob, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sample.scaled_entropy, -mask.sum(-1) * logprob, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("language_dim", [6, 0])
def test_task_broadcasts_over_leading_axes(make_model: MakeModel, language_dim: int) -> None:
    model = make_model(language_dim=language_dim)
    task = torch.tensor([3, 1])
    obs = torch.randn(5, 2, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = model.encode(obs, task)
        for t in range(5):
            torch.testing.assert_close(z[t], model.encode(obs[t], task))
        samples = torch.rand(2, 7, 4)
        wide = z[0][:, None].expand(-1, 7, -1)
        logits = model.Q(wide, samples, task[:, None])
        for s in range(7):
            torch.testing.assert_close(logits[:, :, s], model.Q(z[0], samples[:, s], task))


def test_fresh_model_predicts_nothing(make_model: MakeModel) -> None:
    template = make_model()
    model = WorldModel(template.config, template.table, torch.Generator().manual_seed(0))
    z = model.encode(torch.randn(6, 10), torch.zeros(6, dtype=torch.int64))
    action, task = torch.rand(6, 4), torch.zeros(6, dtype=torch.int64)
    assert torch.all(model.codec.decode(model.reward(z, action, task)).abs() < 1e-6)
    assert torch.all(model.codec.decode(model.Q(z, action, task, target=True)).abs() < 1e-6)
    torch.testing.assert_close(z.view(6, 4, 8).sum(-1), torch.ones(6, 4))
    for own, copy in zip(model.critics.parameters(), model.target_critics.parameters(), strict=True):
        assert torch.equal(own, copy)


def test_image_must_match_the_configuration(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="image features were absent"):
        make_model(image_dim=5).encode(torch.zeros(1, 10), torch.zeros(1, dtype=torch.int64))


def test_table_must_match_the_configuration(make_model: MakeModel) -> None:
    table = make_model().table
    with pytest.raises(ValueError, match="language_dim 6"):
        WorldModel(ModelConfig(language_dim=512, action_dim=4), table)
