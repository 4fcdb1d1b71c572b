"""Which OpenGL platform draws the frames of MuJoCo: the one asked for, or the first that really draws.

A driver may make contexts and then never return from reading a frame, or only do so in one process at a time, so a
platform is tried by drawing and reading back, in as many processes at once as will draw, with a time limit. Whatever
loads a platform into a process first decides it for good, so none is tried in the process that asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from services.sim.domains.base import RENDER_BACKEND_VARIABLE, RenderingError

DRAWING_PROCESSES_VARIABLE = "NEWT_DRAWING_PROCESSES"
"""How many processes of this service draw."""
VERDICT_VARIABLE = "NEWT_DRAWING_VERDICT"
"""A file in which they share what the first of them has found."""
LIMIT_S = 30.0
"""For starting Python and drawing. An idle machine takes two seconds, a busy one must not lose its GPU. Well below a
simulator's step timeout: a worker that is killed while it tries would leave the next one to begin anew."""
_SOFTWARE = "osmesa"
_SOFTWARE_LIMIT_S = 60.0  # it does not hang, and often nothing comes after it
_MOST_PROBES = 16
_LONGEST_DEATH_S = 5.0  # of all of them together

_INSTALL = {
    "egl": "install the GPU's driver and libegl1 (apt-get install libegl1)",
    "osmesa": "install OSMesa (apt-get install libosmesa6)",
}

log = structlog.get_logger(__name__)


@functools.cache
def chosen_backend() -> str:
    """The platform of this process, found once for all processes of a service.

    Raises:
        RenderingError: None works.
    """
    wanted = os.environ.get(RENDER_BACKEND_VARIABLE, "auto")
    # EGL draws in software too where there is no GPU, but not everywhere and with other rounding.
    backends = [wanted] if wanted != "auto" else (["egl", "osmesa"] if _has_gpu() else ["osmesa", "egl"])
    processes = min(int(os.environ.get(DRAWING_PROCESSES_VARIABLE, "1")), _MOST_PROBES)
    verdict = os.environ.get(VERDICT_VARIABLE)
    if verdict is None:
        return first_that_draws(backends, processes)
    with Path(verdict).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        file.seek(0)
        known = file.read()
        if not known:
            known = first_that_draws(backends, processes)
            file.write(known)
    return known


def first_that_draws(
    backends: Sequence[str],
    processes: int,
    limit_s: float = LIMIT_S,
    command: Callable[[str], list[str]] | None = None,
) -> str:
    """Tries platforms in order.

    Args:
        backends: Their names.
        processes: How many draw at once. Software, which processes do not share, is tried in one.
        limit_s: A driver that has not drawn by then hangs; software has at least a minute.
        command: What draws with a platform, and exits with 0; `gl_probe` if absent.

    Raises:
        RenderingError: None works; says why.
    """
    command = command or _probe
    problems: list[str] = []
    for backend in backends:
        software = backend == _SOFTWARE
        most_s = max(limit_s, _SOFTWARE_LIMIT_S) if software else limit_s
        problem = problem_of(command(backend), 1 if software else processes, most_s)
        if problem is None:
            for earlier in problems:
                log.warning("frames_drawn_otherwise", backend=backend, because=earlier)
            return backend
        problems.append(f"{backend}: {problem}; {_INSTALL[backend]}")
    raise RenderingError(f"cannot draw frames: {' / '.join(problems)}. State observations do not need this.")


def _probe(backend: str) -> list[str]:
    return [sys.executable, "-m", "services.sim.domains.gl_probe", backend]


def problem_of(command: list[str], processes: int, limit_s: float) -> str | None:
    """What is wrong if so many processes draw at once; None if they all do.

    Args:
        command: What draws, and exits with 0.
        processes: How many.
        limit_s: What has not ended by then is killed.
    """
    deadline = time.monotonic() + limit_s
    started = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    problems = [_end(process, deadline) for process in started]
    found = [problem for problem in problems if problem is not None]
    among = f" in {len(found)} of {processes} processes at once" if processes > 1 else ""
    return f"{found[0]}{among}" if found else None


def _end(process: subprocess.Popen[str], deadline: float) -> str | None:
    try:
        _, errors = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver, where no signal reaches it
            process.communicate(timeout=max(0.1, deadline + _LONGEST_DEATH_S - time.monotonic()))
        return "did not draw in time"
    if process.returncode == 0:
        return None
    causes = [line for line in errors.splitlines() if "Error: " in line]
    return causes[0] if causes else "crashed"


def _has_gpu() -> bool:
    return any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dri"))
