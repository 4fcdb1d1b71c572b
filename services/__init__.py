"""Newt's services: each a package that `python -m services.NAME` runs."""

from __future__ import annotations

import os

try:
    os.getcwd()
except FileNotFoundError:
    # Somebody has deleted the folder that we were started in, and torch cannot be loaded there. Before anything else is
    # imported, hence here; /proc, because what has a relative name must not appear in a folder that nobody chose.
    os.chdir("/proc")
