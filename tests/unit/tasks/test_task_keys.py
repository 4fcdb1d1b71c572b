"""Keys that play a task by hand."""

from newt.tasks.keys import keys_of
from newt.tasks.registry import get_task


def test_games_have_their_own_and_others_a_pair_for_each_column() -> None:
    birds = keys_of(get_task("pygame-bird-attack"))
    assert birds is not None
    assert (birds.keys["space"], birds.idle) == ([0, 2], [0, -1])
    push = keys_of(get_task("mw-push"))
    assert push is not None
    assert (push.keys["left"], push.keys["up"], push.keys["s"], push.idle) == (
        [-1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, -1],
        [0, 0, 0, 0],
    )
    assert keys_of(get_task("walker-walk")) is None  # six columns
