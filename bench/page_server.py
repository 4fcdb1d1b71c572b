"""The learner's REST API and page alone, for `bench.page`: `python -m bench.page_server REDIS_URL DATA_DIR PORT`.

Without what starts runs: those that are looked at are told of by the benchmark.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from newt import logs
from newt.local.ports import HOST
from services.learner.checkpoints.library import CheckpointLibrary
from services.learner.processes.demo_sets import DemoSets
from services.learner.processes.demos import DemoKeeper
from services.learner.processes.dependencies import Dependencies
from services.learner.processes.evaluations import EvaluationKeeper
from services.learner.processes.learner import Learner
from services.learner.processes.plays import PlayKeeper
from services.learner.processes.runs import RunKeeper
from services.learner.processes.served_tasks import ServedTasks
from services.learner.records.store import Records
from services.learner.rest.app import create_app, server
from services.learner.settings import LearnerSettings


def main(redis_url: str, data_dir: str, port: str) -> None:
    """Serves until SIGTERM."""
    logs.configure("learner", "WARNING")
    settings = LearnerSettings(redis_url=redis_url, data_dir=Path(data_dir), sims={})
    records, library = Records.connect(redis_url), CheckpointLibrary(settings.data_dir)
    dependencies, demo_sets = Dependencies(records, settings), DemoSets(settings.replay, records)
    learner = Learner(
        settings,
        redis_url,
        records,
        RunKeeper(records, settings),
        EvaluationKeeper(records, settings, library),
        DemoKeeper(records, settings, demo_sets, dependencies, retire=lambda model: None),
        demo_sets,
        library,
        dependencies,
        ServedTasks(settings.sims),
        PlayKeeper(settings, library, dependencies),
    )
    server(create_app(learner)).run(sockets=[socket.create_server((HOST, int(port)))])


if __name__ == "__main__":
    main(*sys.argv[1:])
