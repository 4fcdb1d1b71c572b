"""Random numbers that are functions of a seed and a place: the same bits on every device, in a batch or alone.

The 64 bits of a seed at place n are those of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), whose sequence may be read anywhere, at place seed * 0x75B8311BA71FD2B7 + n: seeds lie far
apart. They are four lanes of 16 bits, and a lane looks up one of 65,536 quantiles. Integers and look-ups are the same
on CPUs and GPUs, eager and compiled; logarithms and cosines would differ in their last bits, on a CPU even by a
number's position in a vector.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

LANES = 4
"""Numbers per place."""
_QUANTILES = 1 << 16


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >> 63 else constant


# Products wrap modulo 2^64 on all devices; int64 is the widest integer that all of them multiply.
_SPREAD, _STEP = _signed(0x75B8311BA71FD2B7), _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def random_words(seeds: Tensor, places: Tensor) -> Tensor:
    """Returns 64 random bits for every seed and place: int64[B, N] for int64[B] and int64[N] from 0."""
    # In place, because large temporaries cost a CPU more than the arithmetic. The seeds come first: of places alone, a
    # compiler would make indices, and those do not wrap.
    x = ((seeds * _SPREAD)[:, None] + (places + 1)).mul_(_STEP)
    x.bitwise_xor_(_shifted(x, 30)).mul_(_FIRST)
    x.bitwise_xor_(_shifted(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shifted(x, 31))


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's repeats the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def lanes(words: Tensor) -> Tensor:
    """The four lanes of each word: int16[B, 4 N] of int64[B, N]."""
    return words.view(torch.int16)


def pairs(words: Tensor, members: int) -> Tensor:
    """Ordered pairs of two different ones of `members`: int64[B, N, 2] of int64[B, N]."""
    # From the low and the high half of a word; the second is counted on from the first.
    first = (words & 0xFFFFFFFF) % members
    second = (first + 1 + _shifted(words, 32) % (members - 1)) % members
    return torch.stack([first, second], -1)


class Tables(NamedTuple):
    """Quantiles on a device, in the order of their probabilities.

    Attributes:
        normal: float32[65536], of mean 0 and variance 1.
        exponential: float32[65536], of mean 1, all positive.
    """

    normal: Tensor
    exponential: Tensor


def normal(tables: Tables, lanes: Tensor) -> Tensor:
    """Standard normal numbers up to 4.3 standard deviations: float32[B, N] of int16[B, N].

    Example:
        >>> places, found = torch.arange(3), tables(torch.device("cpu"))
        >>> both = normal(found, lanes(random_words(torch.tensor([7, 8]), places)))
        >>> alone = normal(found, lanes(random_words(torch.tensor([8]), places)))
        >>> both.shape, torch.equal(both[1:], alone)
        (torch.Size([2, 12]), True)
    """
    return _look_up(tables.normal, lanes)


def exponential(tables: Tables, lanes: Tensor) -> Tensor:
    """Standard exponential numbers: float32[B, N] of int16[B, N]."""
    return _look_up(tables.exponential, lanes)


def _look_up(quantiles: Tensor, lanes: Tensor) -> Tensor:
    return quantiles.index_select(0, lanes.int().add_(_QUANTILES // 2).flatten()).view(lanes.shape)


@cache
def tables(device: torch.device) -> Tables:
    """The tables of a device, made once on the CPU: its logarithms are those of all devices."""
    with torch.inference_mode(False):
        probabilities = (torch.arange(_QUANTILES, dtype=torch.float64, device="cpu") + 0.5) / _QUANTILES
        upper = torch.special.ndtri(probabilities[_QUANTILES // 2 :])
        upper /= upper.square().mean().sqrt()
        exponential = -torch.log1p(-probabilities)
        exponential /= exponential.mean()
        both = torch.cat([-upper.flip(0), upper]), exponential
        return Tables(*(table.float().to(device) for table in both))
