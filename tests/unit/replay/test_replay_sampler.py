"""Which sequences are drawn, and how often."""

import numpy as np
import pytest
from numbered_episodes import numbered

from newt.wire.v1 import replay_pb2
from services.replay.batch import Sequences, gather
from services.replay.blocks import Blocks
from services.replay.sampler import Pool, Source
from services.replay.task_episodes import TaskEpisodes

HORIZON = 3
# Transitions of the episodes of three tasks; 2 is shorter than a window of 4 rows.
CONTENTS = [[5, 20, 2], [100], [8, 8, 8, 30]]


def held_of(lengths: list[int], first_number: int = 0, terminated: bool = False) -> TaskEpisodes:
    held = TaskEpisodes(Blocks(), 2, 2, 0)
    for i, length in enumerate(lengths):
        held.append(numbered(first_number + i, length, terminated))
    return held


@pytest.fixture
def sources() -> list[Source]:
    return [
        Source(task, held_of(lengths, 10 * task).windows(HORIZON), 0, demo=False)
        for task, lengths in enumerate(CONTENTS)
    ]


def sequences_of(sources: list[Source], sampler: int, count: int, seed: int) -> Sequences:
    pool = Pool(sources)
    draws = pool.draw(np.random.default_rng(seed), sampler, count)
    return gather([(pool, draws)], HORIZON)


def sampled(sources: list[Source], sampler: int, count: int, seed: int) -> list[np.ndarray]:
    """Rows float32[n, H+1, O+A+1] of each task."""
    return rows_of(sequences_of(sources, sampler, count, seed))


def rows_of(sequences: Sequences) -> list[np.ndarray]:
    """Rows float32[n, H+1, O+A+1] of each task; all have 2 + 2 + 1 columns."""
    rows = np.frombuffer(sequences.rows, np.float32)[:-128].reshape(-1, HORIZON + 1, 5)
    return np.split(rows, np.cumsum(sequences.tasks[:, 1])[:-1])


def frequencies(sources: list[Source], sampler: int, draws: int = 40_000) -> dict[tuple[int, int], float]:
    """Share of each (episode number, start)."""
    counts: dict[tuple[int, int], float] = {}
    for rows in sampled(sources, sampler, draws, seed=3):
        assert (np.diff(rows[:, :, 1], axis=1) == 1).all(), "rows are consecutive"
        assert (rows[:, :, 0] == rows[:, :1, 0]).all(), "rows are of one episode"
        for number, start in rows[:, 0, :2].astype(int).tolist():
            counts[number, start] = counts.get((number, start), 0) + 1 / draws
    return counts


def expected(sampler: int) -> dict[tuple[int, int], float]:
    """The definition, spelt out."""
    starts = {
        10 * task + i: length + 1 - HORIZON
        for task, lengths in enumerate(CONTENTS)
        for i, length in enumerate(lengths)
        if length + 1 > HORIZON
    }
    weights = {}
    for number, count in starts.items():
        if sampler == replay_pb2.SAMPLER_TRANSITION_UNIFORM:
            share = count / sum(starts.values())
        elif sampler == replay_pb2.SAMPLER_TASK_BALANCED:
            share = 1 / len(CONTENTS) / sum(other // 10 == number // 10 for other in starts)
        else:
            share = 1 / len(starts)
        weights.update({(number, start): share / count for start in range(count)})
    return weights


@pytest.mark.parametrize(
    "sampler",
    [
        replay_pb2.SAMPLER_UNSPECIFIED,
        replay_pb2.SAMPLER_EPISODE_UNIFORM,
        replay_pb2.SAMPLER_TRANSITION_UNIFORM,
        replay_pb2.SAMPLER_TASK_BALANCED,
    ],
)
def test_every_window_comes_as_often_as_it_should(sources: list[Source], sampler: int) -> None:
    draws = 40_000
    got, want = frequencies(sources, sampler, draws), expected(sampler)
    assert set(got) <= set(want), "a window that does not exist, or of an episode that is too short"
    chi_square = sum(draws * (got.get(key, 0) - share) ** 2 / share for key, share in want.items())
    freedom = len(want) - 1
    # Mean `freedom`, variance 2 * freedom; five standard deviations.
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_draws_depend_on_seed_and_contents_only(sources: list[Source]) -> None:
    other = []
    for task, lengths in enumerate(CONTENTS):  # The same contents, elsewhere in memory.
        held = held_of([300, 40], 900)
        for i, length in enumerate(lengths):
            held.append(numbered(10 * task + i, length))
        held.evict()
        held.evict()
        other.append(Source(task, held.windows(HORIZON), 0, demo=False))

    def rows(of: list[Source], seed: int) -> np.ndarray:
        return np.concatenate(sampled(of, replay_pb2.SAMPLER_EPISODE_UNIFORM, 64, seed))

    np.testing.assert_array_equal(rows(sources, 5), rows(other, 5))
    assert not np.array_equal(rows(sources, 5), rows(sources, 6))


def test_only_the_last_transition_of_a_terminated_episode_is_terminal() -> None:
    sources = [Source(0, held_of([6, 6], terminated=True).windows(HORIZON), 0, demo=False)]
    sequences = sequences_of(sources, replay_pb2.SAMPLER_EPISODE_UNIFORM, 500, seed=0)
    [rows], [group] = rows_of(sequences), sequences.groups()
    terminated = np.frombuffer(group.terminated.data, np.bool_).reshape(500, HORIZON)
    assert not terminated[:, :-1].any()
    np.testing.assert_array_equal(terminated[:, -1], rows[:, 0, 1] == 3)
    np.testing.assert_array_equal(terminated[:, -1], sequences.ends_task)
    assert terminated.any()
    sequences = sequences_of([Source(0, held_of([6]).windows(HORIZON), 0, demo=False)], 1, 50, seed=0)
    [group], packed = sequences.groups(), replay_pb2.PackedSequences()
    sequences.pack(packed)
    assert not group.HasField("terminated")
    assert not packed.HasField("ends_task")


def test_skipped_episodes_are_not_drawn() -> None:
    windows = held_of([5, 9, 30]).windows(HORIZON)
    for sampler in (1, 2, 3):
        got = frequencies([Source(0, windows, first=1, demo=True)], sampler, 5_000)
        assert {number for number, _ in got} == {1, 2}
        assert len(got) == (9 - 2) + (30 - 2)


def test_demos_come_first_in_each_group() -> None:
    demo = Source(0, held_of([10], 1).windows(HORIZON), 0, demo=True)
    online = Source(0, held_of([10], 2).windows(HORIZON), 0, demo=False)
    rng = np.random.default_rng(0)
    demos, both = Pool([demo]), Pool([demo, online])
    sequences = gather([(demos, demos.draw(rng, 1, 5)), (both, both.draw(rng, 1, 20))], HORIZON)
    [rows], count = rows_of(sequences), sequences.demo_count
    assert 5 < count < 25
    assert sequences.tasks.tolist() == [[0, 25, count, 2, 2]]
    np.testing.assert_array_equal(rows[:, 0, 0], [1] * count + [2] * (25 - count))
