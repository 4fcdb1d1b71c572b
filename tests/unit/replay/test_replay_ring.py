"""The mirror's ring against a plain list of episodes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_episodes import numbered

from newt.wire.episodes import Episode
from services.replay.ring import TaskRing


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


def all_windows(ring: TaskRing, horizon: int) -> np.ndarray:
    windows = ring.windows(horizon)
    starts = [start + i for start, count in zip(windows.starts, windows.counts, strict=True) for i in range(count)]
    rows = np.array(starts, np.int64)[:, None] + np.arange(horizon + 1)
    return np.frombuffer(ring.data, np.float32).reshape(-1, 5)[rows]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(0, 4)), min_size=1, max_size=60),
    st.integers(1, 64),
)
def test_ring_holds_what_a_list_would(steps: list[tuple[int, int]], horizon: int) -> None:
    ring = TaskRing(2, 2, 0)
    held: list[Episode] = []
    for number, (transitions, evictions) in enumerate(steps):
        episode = numbered(number, transitions, terminated=number % 3 == 0)
        ring.append(episode)
        held.append(episode)
        for _ in range(min(evictions, len(held))):
            ring.evict()
            held.pop(0)
        assert len(ring) == len(held)
        assert ring.held_rows == sum(e.transitions + 1 for e in held)
    long_enough = [i for i, e in enumerate(held) if e.transitions >= horizon]
    windows = ring.windows(horizon)
    np.testing.assert_array_equal(windows.ordinals, long_enough)
    np.testing.assert_array_equal(windows.terminated, [held[i].terminated for i in long_enough])
    expected = expected_windows(held, horizon)
    assert sum(windows.counts) == len(expected)
    if expected:
        np.testing.assert_array_equal(all_windows(ring, horizon), np.stack(expected))


def test_rows_are_reused_when_the_oldest_episodes_go() -> None:
    ring = TaskRing(2, 2, 0)
    for number in range(4):
        ring.append(numbered(number, 50))
    size = len(ring._rows)
    for number in range(4, 200):
        ring.evict()
        ring.append(numbered(number, 50))
    assert len(ring._rows) == size
    np.testing.assert_array_equal(
        all_windows(ring, 3), np.stack(expected_windows([numbered(n, 50) for n in range(196, 200)], 3))
    )


def test_images_follow_their_rows() -> None:
    ring = TaskRing(2, 2, 4)
    for number in range(3):
        ring.append(numbered(number, 20 + number, image_dim=4))
    windows = ring.windows(5)
    images = np.frombuffer(ring.image_data, np.float32).reshape(-1, 4)[windows.starts[:, None] + np.arange(2, 8)]
    np.testing.assert_array_equal(images, np.broadcast_to(np.arange(2, 8)[None, :, None], (3, 6, 4)))


def test_window_list_is_kept_until_the_ring_changes() -> None:
    ring = TaskRing(2, 2, 0)
    ring.append(numbered(0, 10))
    first = ring.windows(3)
    assert ring.windows(3) is first
    ring.append(numbered(1, 10))
    assert len(ring.windows(3)) == 2
