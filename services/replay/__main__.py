"""Runs the replay service: `python -m services.replay`."""

from __future__ import annotations

import sys

from newt.wire.server import serve
from services.replay.service import ReplayService
from services.replay.settings import ReplaySettings

if __name__ == "__main__":
    sys.exit(serve("replay", ReplaySettings, ReplayService))
