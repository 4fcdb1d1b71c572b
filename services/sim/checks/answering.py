"""How a check's process tells the one thing that it was asked: a line of JSON, whatever other people's code prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from newt.errors import NewtError


def answer(find_out: Callable[[], dict[str, Any]]) -> NoReturn:
    """Prints what a call returns as the last line of stdout, or its `error`, and ends the process.

    Args:
        find_out: Runs other people's code, whose own output goes to stderr.
    """
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        found = find_out()
    except NewtError as error:
        found = {"error": str(error)}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), file=out, flush=True)
    sys.stderr.flush()
    os._exit(0)  # not through the interpreter's shutdown, where graphics drivers are known to crash
