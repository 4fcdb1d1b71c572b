"""A simulator that refuses a session is asked again, but not without end in one second."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from newt.errors import NewtError
from newt.tasks.registry import get_task
from services.learner.settings import LearnerSettings
from services.learner.waiting import StopFlag, Stopped
from services.learner.worker.connections import REFUSED_PAUSE_S, Services
from services.sim.service import SimService
from services.sim.settings import SimSettings

pytestmark = pytest.mark.timeout(120)


def test_a_refused_session_takes_a_while_and_a_stop_ends_the_wait(tmp_path: Path) -> None:
    sim = SimService(SimSettings(port=0, domains=("noop",), workers=1, log_level="ERROR"))
    sim.server.start()
    sim.server.set_ready(True)
    settings, stop = LearnerSettings(data_dir=tmp_path, sims={"miniarcade": sim.server.address}), StopFlag()
    try:
        with Services.connect(settings, ["miniarcade"], stop) as services:
            start = time.monotonic()
            with pytest.raises(NewtError, match="pygame-pong"):  # restarted with other tasks, say
                services.open("miniarcade", [get_task("pygame-pong")], [1])
            assert time.monotonic() - start >= REFUSED_PAUSE_S
            threading.Timer(0.2, stop.set).start()
            with pytest.raises(Stopped):
                services.open("miniarcade", [get_task("pygame-pong")], [1])
    finally:
        sim.server.stop(0.5)
        sim.close()
