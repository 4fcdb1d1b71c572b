"""The stage that draws frames in many processes at once. It comes last: a driver that hangs may take the card along."""

from __future__ import annotations

import os
import sys
import time

from bench.gpu.document import Notebook
from bench.measure import Effort
from services.sim.domains.gl_backends import problem_of

_LIMIT_S = 12.0


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Tries 1, 2, 8 and 16 processes; without a GPU, one that draws in software."""
    backend = "egl" if device.startswith("cuda") else "osmesa"
    os.environ["MUJOCO_GL"] = "disable"  # the probe chooses
    for processes in effort.pick(full=(1, 2, 8, 16), quick=(1, 8), tiny=(1,)):
        command = [sys.executable, "-m", "services.sim.domains.gl_probe", backend]
        begun = time.perf_counter()
        problem = problem_of(command, processes, effort.pick(full=_LIMIT_S, quick=_LIMIT_S, tiny=300.0))
        entry = {"backend": backend, "processes": processes, "seconds": time.perf_counter() - begun}
        notebook.egl({**entry, "outcome": problem or "ok"})
        if problem:
            return  # more of them would fare no better, and could take the card along
