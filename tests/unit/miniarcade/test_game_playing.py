"""Keys, the window (on SDL's dummy screen), and what happens without a display."""

import pygame
import pytest

from newt.cli.play import play_game
from newt.errors import InvalidInputError, PreconditionError
from newt.miniarcade import GAMES, make_game
from newt.miniarcade.play import key_action, play


@pytest.mark.parametrize("name", GAMES)
def test_every_action_dimension_has_keys(name: str) -> None:
    game = make_game(name)
    idle = key_action(game, [])
    moved = {index for key in game.KEYS for index, value in enumerate(key_action(game, [key])) if value != idle[index]}
    assert moved == set(range(game.ACTION_DIM))
    assert all(abs(value) <= 1 for value in key_action(game, game.KEYS))


def test_keys_add_up() -> None:
    highway, birds = make_game("pygame-highway"), make_game("pygame-bird-attack")
    assert key_action(highway, ["left", "up"]) == [-1, -1]
    assert key_action(highway, ["left", "right", "space"]) == [0, 0]
    assert key_action(birds, []) == [0, -1]
    assert key_action(birds, ["right", "space"]) == [1, 1]


def test_a_window_plays_whole_episodes_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(type(make_game("pygame-reacher-easy")), "FPS", 100_000)
    scores = play("pygame-reacher-easy", seed=1, expert=True, episodes=2)
    assert len(scores) == 2
    assert min(scores) > 0.5
    assert not pygame.display.get_init()


def test_escape_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown: list[str] = []

    def press(caption: str) -> None:
        # As if a person did so after the first, fifth and eighth frame.
        shown.append(caption)
        key = {1: pygame.K_RIGHT, 5: pygame.K_p, 8: pygame.K_ESCAPE}.get(len(shown))
        if key is not None:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))

    monkeypatch.setattr(pygame.display, "set_caption", press)
    assert play("pygame-highway") == []
    assert [caption.split(", ")[1] for caption in shown] == [
        *(f"{left} steps left" for left in (499, 498, 497, 496, 495)),
        *["paused"] * 3,
    ]


@pytest.mark.parametrize("driver", ["x11", None])
def test_without_a_display_there_is_one_clear_error(driver: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(variable, raising=False)
    if driver is not None:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    with pytest.raises(PreconditionError, match=r"cannot open a window \(.+\): run this where there is a display"):
        play("pygame-highway")


def test_the_command_lists_the_games() -> None:
    with pytest.raises(InvalidInputError, match="got 'highway', expected one of pygame-cowboy"):
        play_game("highway")
