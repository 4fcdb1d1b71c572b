"""Runs the replay service: `python -m services.replay`."""

from __future__ import annotations

import sys

from newt.memory import return_large_blocks
from newt.wire.server import serve
from services.replay.service import ReplayService
from services.replay.settings import ReplaySettings

if __name__ == "__main__":
    return_large_blocks()  # And keeps those of batches: to give them back each time costs more than to fill them.
    sys.exit(serve("replay", ReplaySettings, ReplayService))
