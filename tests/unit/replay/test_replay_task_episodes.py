"""A task's episodes in memory against a plain list of them; what they take."""

import tracemalloc
from collections import deque
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_episodes import numbered

from bench.episodes import noise
from newt.tasks.registry import select_tasks
from newt.wire.episodes import Episode
from services.replay.blocks import BLOCK_BYTES, Blocks
from services.replay.mirror import Mirror
from services.replay.task_episodes import TaskEpisodes, Windows


def expected_windows(episodes: list[Episode], horizon: int) -> list[np.ndarray]:
    """All windows of rows [obs | action | reward], oldest first; the last row leads nowhere."""
    result = []
    for episode in episodes:
        rows = np.zeros((episode.transitions + 1, 5), np.float32)
        rows[:, :2] = episode.obs
        rows[:-1, 2:4] = episode.action
        rows[:-1, 4] = episode.reward
        result += [rows[i : i + horizon + 1] for i in range(len(rows) - horizon)]
    return result


def float_windows(windows: Windows, places: np.ndarray, columns: int) -> np.ndarray:
    """All windows of rows that begin at `places` in the blocks, float32[n, H+1, columns]."""
    views, rows = windows.held.blocks.views, windows.horizon + 1
    return np.array(
        [
            np.frombuffer(views[block], np.float32, rows * columns, place + 4 * columns * i).reshape(rows, columns)
            for block, place, count in zip(windows.places[:, 0], places, windows.counts, strict=True)
            for i in range(count)
        ]
    )


def all_windows(held: TaskEpisodes, horizon: int) -> np.ndarray:
    windows = held.windows(horizon)
    return float_windows(windows, windows.places[:, 1], 5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(0, 4)), min_size=1, max_size=60),
    st.integers(1, 64),
)
def test_a_task_holds_what_a_list_would(steps: list[tuple[int, int]], horizon: int) -> None:
    task = TaskEpisodes(Blocks(), 2, 2, 0)
    held: list[Episode] = []
    for number, (transitions, evictions) in enumerate(steps):
        episode = numbered(number, transitions, terminated=number % 3 == 0)
        task.append(episode)
        held.append(episode)
        for _ in range(min(evictions, len(held))):
            task.evict()
            held.pop(0)
        assert len(task) == len(held)
        assert task.held_rows == sum(e.transitions + 1 for e in held)
    long_enough = [i for i, e in enumerate(held) if e.transitions >= horizon]
    windows = task.windows(horizon)
    np.testing.assert_array_equal(windows.ordinals, long_enough)
    np.testing.assert_array_equal(windows.terminated, [held[i].terminated for i in long_enough])
    expected = expected_windows(held, horizon)
    assert sum(windows.counts) == len(expected)
    if expected:
        np.testing.assert_array_equal(all_windows(task, horizon), np.stack(expected))


def test_images_follow_their_rows() -> None:
    task = TaskEpisodes(Blocks(), 2, 2, 4)
    for number in range(3):
        task.append(numbered(number, 20 + number, image_dim=4))
    windows = task.windows(5)
    images = float_windows(windows, windows.places[:, 2], 4)
    steps = np.concatenate([np.arange(count) for count in windows.counts])[:, None] + np.arange(6)
    np.testing.assert_array_equal(images, np.broadcast_to(steps[..., None], (*steps.shape, 4)))
    assert float_windows(windows, windows.places[:, 1], 5).shape == (len(steps), 6, 5)


def test_blocks_of_evicted_episodes_are_given_back() -> None:
    mirror, names = Mirror(), [f"task-{i}" for i in range(3)]
    per_block = BLOCK_BYTES // (5 * 4 * 5_001)
    for number in range(4 * per_block):
        mirror.append(number, replace(numbered(number, 5_000), task=names[number % 3]), 0)
        mirror.evict(number - per_block)
    assert mirror.episodes == per_block + 1
    [blocks] = {task.blocks for task in mirror.tasks.values()}
    assert len(blocks.views) <= 3
    for place, name in enumerate(names):
        numbers = [n for n in range(3 * per_block - 1, 4 * per_block) if n % 3 == place]
        places = mirror.tasks[name].windows(3).places
        first = [np.frombuffer(blocks.views[block], np.float32, 1, start)[0] for block, start, _ in places]
        assert first == numbers
    mirror.evict(4 * per_block)
    assert len(blocks.views) == 1
    assert not sum(len(task) for task in mirror.tasks.values())


def test_an_episode_larger_than_a_block_has_one_of_its_own() -> None:
    blocks = Blocks()
    assert [blocks.place(100)[1], blocks.place(100)[1]] == [0, 100]
    number, start = blocks.place(2 * BLOCK_BYTES)
    assert (start, len(blocks.views[number])) == (0, 2 * BLOCK_BYTES)
    following, start = blocks.place(4)
    assert (following > number, start) == (True, 0)
    blocks.give_back(before=following)
    assert list(blocks.views) == [following]


def test_a_mirror_takes_little_more_than_its_rows() -> None:
    """While it fills, and when another mix of tasks has pushed all of it out: 10 M rows are to fit into 2.5 GB."""
    tasks, rng = select_tasks(["mmbench"]), np.random.default_rng(0)
    episodes = [noise(task, 0, rng) for task in tasks]
    valid = [4 * (e.transitions + 1) * (e.obs.shape[1] + e.action.shape[1] + 1) for e in episodes]
    shares = np.repeat(np.arange(len(tasks)), [2_000 // task.episode_length for task in tasks])  # As many rows of each.
    order = rng.permutation(shares).tolist(), rng.choice(shares, 2 * len(shares)).tolist()
    tracemalloc.start()
    try:
        mirror, held, capacity, head = Mirror(), deque[int](), 0, 0
        for turn in order:
            for i in turn:
                mirror.append(mirror.next, episodes[i], 0)
                held.append(i)
                while capacity and mirror.rows > capacity:
                    head += mirror.evict(head + 1)
                    held.popleft()
            capacity = capacity or mirror.rows
            taken, rows_bytes = tracemalloc.get_traced_memory()[0], sum(valid[i] for i in held)
            assert mirror.rows > 350_000
            assert taken < rows_bytes * 1.04 + 2 * BLOCK_BYTES
            assert taken / mirror.rows < 250
    finally:
        tracemalloc.stop()


def test_window_list_is_kept_until_the_episodes_change() -> None:
    task = TaskEpisodes(Blocks(), 2, 2, 0)
    task.append(numbered(0, 10))
    first = task.windows(3)
    assert task.windows(3) is first
    task.append(numbered(1, 10))
    assert len(task.windows(3)) == 2
