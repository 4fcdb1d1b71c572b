"""Sources of somebody's own tasks, as the command line takes them: which words they are, and what they declare.

Their code runs in a process of the simulator service, never in this one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from newt.errors import InvalidInputError
from newt.own.declaration import ENTRY_POINTS
from newt.processes import how_it_ended
from newt.tasks.domains import DOMAINS
from newt.tasks.registry import Task, table_tasks
from newt.tasks.sets import TASK_SETS

PROBE = "services.sim.domains.own.probe"
PROBE_TIMEOUT_S = 120.0


def is_source(word: str) -> bool:
    """Whether a word names a source rather than tasks: a path, `gym:ID`, `module:NAME`, or an installed task's name."""
    if word in table_tasks() or word in TASK_SETS or word in DOMAINS:
        return False
    if ":" in word or "/" in word or word.endswith(".py") or (Path(word) / "env.py").is_file():
        return True
    return word in metadata.entry_points(group=ENTRY_POINTS).names


def absolute(source: str) -> str:
    """The same source for a process in another folder."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def names(sources: Iterable[str]) -> dict[str, str]:
    """A name for the simulator of each source: what is last in it, as a plain word, and unlike all domains."""
    found: dict[str, str] = {}
    for source in sources:
        last = source.rstrip("/").rpartition("/")[2].removesuffix(".py").rpartition(":")[2]
        name = base = "-".join(re.findall(r"[a-z0-9.]+", last.lower())) or "own"
        number = 2
        while name in found or name in DOMAINS:
            name, number = f"{base}-{number}", number + 1
        found[name] = source
    return found


def _python_path(python: str) -> str:
    """Where its modules are found: as here, unless the environment has what it needs in it."""
    return os.pathsep.join(filter(None, sys.path)) if python == sys.executable else os.environ.get("PYTHONPATH", "")


def declared(source: str, python: str = sys.executable) -> list[Task]:
    """What a source declares, found out in a process of its own.

    Args:
        source: The source.
        python: Interpreter for its code.

    Raises:
        InvalidInputError: It cannot be used; says why and what to do.
    """
    command = [python, "-m", PROBE, source]
    environment = {**os.environ, "PYTHONPATH": _python_path(python), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise InvalidInputError(source, f"it was not built within {PROBE_TIMEOUT_S:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        last = "\n".join(done.stderr.splitlines()[-10:])
        raise InvalidInputError(source, f"the process that was to build it {how_it_ended(done.returncode)}\n{last}")
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise InvalidInputError(source, str(answer["error"]).removeprefix(f"{source}: "))
    return [Task(**values) for values in answer["tasks"]]
