"""Runs the simulator service: `python -m services.sim`."""

from __future__ import annotations

import sys

from newt.wire.server import serve
from services.sim.service import SimService
from services.sim.settings import SimSettings

if __name__ == "__main__":
    sys.exit(serve("sim", SimSettings, SimService))
