from __future__ import annotations

import numpy as np
import pytest

from newt.report.thinning import thinned


@pytest.mark.parametrize("count", [0, 1, 10, 11, 1_000, 12_345])
@pytest.mark.parametrize("most", [4, 10, 101])
def test_thinned_curves_keep_ends_and_peaks(count: int, most: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    if count > 20:
        values[7], values[count // 2] = 99.0, -99.0  # spikes of one point
    kept = thinned(values, most)
    assert len(kept) <= most
    assert sorted(set(kept)) == list(kept)
    if count <= most:
        assert list(kept) == list(range(count))
    else:
        assert (kept[0], kept[-1]) == (0, count - 1)
        assert {values[kept].min(), values[kept].max()} == {values.min(), values.max()}
