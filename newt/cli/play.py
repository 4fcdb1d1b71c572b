"""`newt play`: MiniArcade for people."""

from __future__ import annotations

from typing import Annotated

import typer

from newt.cli.terminal import console
from newt.errors import InvalidInputError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("play")(play_game)


def play_game(
    game: Annotated[str, typer.Argument(help="Name of the game, such as pygame-highway.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 0,
    scale: Annotated[int, typer.Option(min=1, max=10, help="Window pixels per game pixel.")] = 3,
    expert: Annotated[bool, typer.Option("--expert", "--demo", help="Watch the scripted player.")] = False,
) -> None:
    """Play a MiniArcade game: arrow keys and space play, R restarts, P pauses, Escape leaves."""
    from newt.miniarcade import GAMES  # Here, so that the other commands start without it.

    if game not in GAMES:
        raise InvalidInputError("game", f"got {game!r}, expected one of {', '.join(GAMES)}")
    from newt.miniarcade.play import play

    for number, score in enumerate(play(game, seed, scale, expert), start=1):
        console.print(f"Episode {number}: score {score:.2f}", highlight=False)
