"""All randomness of a run from its one seed."""

from __future__ import annotations

import zlib

import numpy as np


def derive(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on all parts and their order."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in parts]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*parts: int | str) -> np.random.Generator:
    """A generator seeded with `derive`."""
    return np.random.default_rng(derive(*parts))
