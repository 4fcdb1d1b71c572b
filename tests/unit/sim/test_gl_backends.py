"""Platforms for drawing are tried as they will be used: by drawing, all at once, and not for ever."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.sim.domains import gl_backends
from services.sim.domains.base import RENDER_BACKEND_VARIABLE, RenderingError
from services.sim.domains.gl_backends import (
    DRAWING_PROCESSES_VARIABLE,
    VERDICT_VARIABLE,
    chosen_backend,
    first_that_draws,
)
from services.sim.settings import SimSettings

HANGS = "import time; time.sleep(600)"
FAILS = "raise ImportError('no such library')"
DIES = "import os; os.abort()"


def scripts(**by_backend: str) -> Callable[[str], list[str]]:
    return lambda backend: [sys.executable, "-S", "-c", by_backend[backend]]


def test_the_first_that_draws_is_taken() -> None:
    assert first_that_draws(["egl", "osmesa"], 2, command=scripts(egl="", osmesa=HANGS)) == "egl"
    assert first_that_draws(["egl", "osmesa"], 2, command=scripts(egl=FAILS, osmesa="")) == "osmesa"


def test_one_that_hangs_is_given_up_with_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    found = first_that_draws(["egl", "osmesa"], 3, limit_s=10.0, command=scripts(egl=HANGS, osmesa="import os"))
    assert found == "osmesa"
    said = "".join(capfd.readouterr())
    assert "frames_drawn_otherwise" in said
    assert "egl: did not draw in time in 3 of 3 processes at once" in said


def test_a_driver_that_hangs_is_given_up_before_the_worker_that_tries_it_is() -> None:
    """A worker that is killed leaves no verdict: the next one would begin anew, and so for ever."""
    for_starting_software = 10.0
    assert gl_backends.LIMIT_S + gl_backends._LONGEST_DEATH_S + for_starting_software < SimSettings().step_timeout_s


def test_processes_draw_at_the_same_time(tmp_path: Path) -> None:
    """Each waits until all are there, which they would never be one after the other."""
    meets = f"""
import os, pathlib, time
folder = pathlib.Path({str(tmp_path)!r})
(folder / str(os.getpid())).touch()
while len(list(folder.iterdir())) < 4:
    time.sleep(0.01)
"""
    assert first_that_draws(["egl"], 4, command=scripts(egl=meets)) == "egl"


def test_that_none_draws_is_an_error_with_all_reasons() -> None:
    with pytest.raises(RenderingError, match=r"no such library in 2 of 2 processes at once; install.*osmesa: crashed"):
        first_that_draws(["egl", "osmesa"], 2, command=scripts(egl=FAILS, osmesa=DIES))


def test_processes_of_a_service_share_what_one_has_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def found(backends: list[str], processes: int) -> str:
        tried.append(processes)
        return backends[0]

    # As the service has it: a file without a name, by its descriptor.
    verdict = os.fdopen(os.memfd_create("verdict"))
    monkeypatch.setenv(VERDICT_VARIABLE, f"/proc/self/fd/{verdict.fileno()}")
    monkeypatch.setenv(DRAWING_PROCESSES_VARIABLE, "64")
    monkeypatch.setenv(RENDER_BACKEND_VARIABLE, "egl")
    monkeypatch.setattr(gl_backends, "first_that_draws", found)
    for _ in range(2):
        chosen_backend.cache_clear()
        assert chosen_backend() == "egl"
    chosen_backend.cache_clear()
    assert tried == [16]
    with verdict:
        assert verdict.read() == "egl"
