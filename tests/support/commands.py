"""Commands of the newt program, called in this process."""

from __future__ import annotations

from dataclasses import dataclass

from typer import Typer
from typer.testing import CliRunner, Result

from newt.errors import NewtError


@dataclass(frozen=True)
class Commands:
    """A group of commands."""

    app: Typer

    def run(self, *arguments: object) -> Result:
        """Calls one, whatever comes of it."""
        return CliRunner().invoke(self.app, [str(argument) for argument in arguments])

    def succeed(self, *arguments: object) -> str:
        """What it prints; it must succeed."""
        result = self.run(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def refused(self, kind: type[NewtError], *arguments: object) -> str:
        """The message of the error that it must end with."""
        result = self.run(*arguments)
        assert isinstance(result.exception, kind), (result.output, result.exception)
        return str(result.exception)
