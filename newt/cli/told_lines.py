"""What a program of the simulator service tells, line by line; it runs in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

_GRACE_S = 5.0


class ToldLines:
    """The lines of JSON that a module prints, as they come; the process starts with the first.

    Whoever stops listening ends it, and with it the processes that it has started.

    Args:
        module: Name of the module that is run.
        *arguments: Its arguments.
        python: Interpreter for it.

    Attributes:
        status: Exit status of the process, once it has ended.
    """

    def __init__(self, module: str, *arguments: object, python: str = sys.executable) -> None:
        self._command = [python, "-m", module, *map(str, arguments)]
        self.status = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Starts the process."""
        with subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield from map(json.loads, process.stdout)
            except BaseException:
                process.terminate()  # It ends its own processes.
                try:
                    process.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    process.kill()  # Code of others may ignore the signal.
                raise
        self.status = process.returncode
