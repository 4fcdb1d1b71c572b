"""Commands in the guides exist, and take the words and options that the guides give them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from newt.cli.main import app

ROOT = Path(__file__).parents[3]
GUIDES = ("your-own-task", "your-own-robot", "demonstrations", "experiments")
PAGES = ("README.md", *(f"docs/{name}.md" for name in GUIDES))
USAGE_ERROR = typer.BadParameter.__mro__[1]  # of the click that typer brings


def commands(page: str) -> Iterator[list[str]]:
    """The words of each `newt ...` line in the shell blocks of a page."""
    for block in re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["newt"]:
                yield words[1:]


def parse(words: list[str]) -> Any:
    """The command that a line calls. Raises UsageError for what it does not take."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    while isinstance(command, TyperGroup) and words:
        context = command.context_class(command, parent=context, info_name="newt")
        _, command, words = command.resolve_command(context, words)
    command.make_context("newt", list(words), parent=context)
    return command


@pytest.mark.parametrize("page", PAGES)
def test_every_documented_command_can_be_called(page: str) -> None:
    found = list(commands(page))
    assert found
    for words in found:
        assert parse(words).callback is not None, words


@pytest.mark.parametrize("line", ["env look", "env check --tempo 3", "demos record", "env serve ./x"])
def test_a_command_that_is_none_is_seen(line: str) -> None:
    with pytest.raises(USAGE_ERROR):
        parse(line.split())
