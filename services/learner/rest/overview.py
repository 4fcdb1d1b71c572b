"""The route of the list of runs, as pages show it."""

from __future__ import annotations

import threading
import time

from fastapi import APIRouter

from newt.runs.groups import group_key
from newt.runs.overview import Overview, RunOverview
from newt.runs.record import Run
from services.learner.processes.learner import Learner

FRESH_S = 1.0
"""Progress is told about once a second; however many pages are open, the records are read no more often."""


def overview_routes(learner: Learner) -> APIRouter:
    """Builds the route."""
    router = APIRouter(tags=["runs"])
    lock = threading.Lock()
    groups: dict[str, str] = {}  # by id: a run's settings never change
    last, made = Overview(runs=[]), float("-inf")

    @router.get("/overview")
    def get_overview() -> Overview:
        """All runs in a line each, newest first; at most a second old."""
        nonlocal last, made
        with lock:
            if time.monotonic() - made > FRESH_S:
                found = learner.records.runs.list_all()
                runs = [RunOverview.of(run, group_of(run)) for run in reversed(found.records)]
                last = Overview(runs=runs, broken=found.broken)
                made = time.monotonic()
            return last

    def group_of(run: Run) -> str:
        if run.id not in groups:
            groups[run.id] = group_key(run.spec)
        return groups[run.id]

    return router
