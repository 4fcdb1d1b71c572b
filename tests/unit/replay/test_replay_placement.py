"""Where tasks go, how capacity is divided, and what each shard draws of a batch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from newt.client.placement import capacities, home, parts
from newt.errors import InvalidInputError
from newt.tasks.registry import table_tasks
from newt.wire.addresses import split_addresses
from newt.wire.v1 import replay_pb2


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_published_tasks_are_spread_evenly_and_so_is_every_domain(shards: int) -> None:
    published = [task for task in table_tasks().values() if task.index is not None]
    names = [task.name for task in published]
    assert len(names) == 200
    counts = Counter(home(name, shards) for name in names)
    assert max(counts.values()) - min(counts.values()) <= 1
    for domain in ("dmcontrol", "metaworld"):
        of_domain = Counter(home(task.name, shards) for task in published if task.domain == domain)
        assert max(of_domain.values()) - min(of_domain.values()) <= 2


def test_other_tasks_go_by_their_names() -> None:
    homes = [home(f"my-task-{i}", 3) for i in range(300)]
    assert homes == [home(f"my-task-{i}", 3) for i in range(300)]
    assert min(Counter(homes).values()) > 60
    assert home("my-task-1", 1) == 0


def test_capacity_is_divided_by_tasks_and_nothing_of_it_is_lost() -> None:
    assert capacities(1001, [0, 1, 2, 0, 1, 2, 0], 3) == [429, 286, 286]
    assert sum(capacities(10_000_000, [home(name, 3) for name in table_tasks()], 3)) == 10_000_000
    assert capacities(100, [1, 1], 3) == [2, 100, 2]  # A shard without tasks has a buffer, too.


def supply(demos: int, online: int) -> replay_pb2.Supply:
    return replay_pb2.Supply(demos=demos, online=online)


def test_each_sequence_picks_a_shard_in_proportion() -> None:
    supplies, rng = [supply(1, 10), supply(0, 0), supply(3, 30), supply(4, 60)], np.random.default_rng(0)
    drawn = [parts(rng, supplies, 40, 0.25) for _ in range(4000)]
    demos = np.array([[part.demos for part in one or ()] for one in drawn])
    online = np.array([[part.online for part in one or ()] for one in drawn])
    assert (demos.sum(axis=1) == 10).all()
    assert (online.sum(axis=1) == 30).all()
    assert not demos[:, 1].any()
    assert not online[:, 1].any()
    assert chisquare(demos.sum(axis=0)[[0, 2, 3]], 40_000 * np.array([1, 3, 4]) / 8).pvalue > 1e-3
    assert chisquare(online.sum(axis=0)[[0, 2, 3]], 120_000 * np.array([1, 3, 6]) / 10).pvalue > 1e-3
    # Independent draws: a shard's count in a batch is binomial, neither fixed nor all or nothing.
    found = np.bincount(online[:, 0], minlength=31)
    expected = 4000 * binom.pmf(np.arange(31), 30, 0.1)
    often = expected > 5
    assert chisquare(found[often], expected[often] * found[often].sum() / expected[often].sum()).pvalue > 1e-3


def test_a_part_without_anything_leaves_its_share_to_the_other() -> None:
    rng = np.random.default_rng(0)

    def counts(supplies: list[replay_pb2.Supply], fraction: float) -> tuple[int, int] | None:
        drawn = parts(rng, supplies, 16, fraction)
        return None if drawn is None else (sum(p.demos for p in drawn), sum(p.online for p in drawn))

    assert counts([supply(0, 5), supply(0, 1)], 0.5) == (0, 16)
    assert counts([supply(2, 0), supply(0, 0)], 0.5) == (16, 0)
    assert counts([supply(2, 1), supply(0, 0)], 0.5) == (8, 8)
    assert counts([supply(0, 0), supply(0, 0)], 0.5) is None
    assert counts([supply(2, 0), supply(0, 0)], 0.0) is None
    assert counts([supply(0, 2), supply(0, 0)], 1.0) is None
    assert counts([supply(0, 2), supply(0, 0)], 0.0) == (0, 16)


def test_several_addresses_stand_behind_each_other() -> None:
    assert split_addresses("lab1:50061") == ["lab1:50061"]
    assert split_addresses("lab1:50061, [::1]:50062,dns:///replay:50061") == [
        "lab1:50061",
        "[::1]:50062",
        "dns:///replay:50061",
    ]
    for wrong in ("", "lab1:50061,", "lab1:50061,lab1:50061", "::1"):
        with pytest.raises(InvalidInputError):
            split_addresses(wrong)
