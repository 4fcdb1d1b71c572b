import math

import pytest
import torch

from newt.agent.layers import mish, simnorm
from newt.agent.regression import TwoHot, symexp, symlog


@pytest.fixture
def codec() -> TwoHot:
    return TwoHot(101, -10.0, 10.0)


def test_two_hot_weights(codec: TwoHot) -> None:
    weights = codec.encode(torch.tensor([1.0, 0.0, -3.0, 1e9, -1e9]))
    expected = torch.zeros(5, 101)
    expected[0, 53:55] = torch.tensor([0.53426, 0.46574])
    expected[1, 50] = 1
    expected[2, 43:45] = torch.tensor([0.93147, 0.06853])
    expected[3, 100] = 1
    expected[4, 0] = 1
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)


def test_decoding_inverts_encoding(codec: TwoHot) -> None:
    values = torch.tensor([-22_000.0, -37.5, -1e-3, 0.0, 0.4, 123.0, 22_000.0])
    torch.testing.assert_close(codec.decode(codec.encode(values).log()), values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(symexp(symlog(values)), values, rtol=1e-5, atol=1e-6)


def test_cross_entropy_equals_the_full_sum(codec: TwoHot) -> None:
    logits = torch.randn(3, 7, 101, generator=torch.Generator().manual_seed(0))
    values = torch.linspace(-50, 50, 7)
    full = -(codec.encode(values) * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(codec.cross_entropy(logits, values), full)
    uniform = codec.cross_entropy(torch.zeros(7, 101), values)
    torch.testing.assert_close(uniform, torch.full((7,), math.log(101)))


def test_simnorm_is_a_softmax_over_consecutive_groups() -> None:
    x = torch.randn(4, 5, 24, generator=torch.Generator().manual_seed(0))
    expected = x.view(4, 5, 3, 8).softmax(-1).view(4, 5, 24)
    torch.testing.assert_close(simnorm(x, 8), expected)


def test_mish_and_its_gradient_match_the_library() -> None:
    values = torch.cat([torch.linspace(-12, 12, 401), torch.tensor([-300.0, -90.0, 90.0, 300.0])])
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    mish(ours).square().sum().backward()
    torch.nn.functional.mish(theirs).square().sum().backward()
    torch.testing.assert_close(mish(ours), torch.nn.functional.mish(theirs), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
