"""The learner's REST API and page alone, for `bench.page`: `python -m bench.page_server REDIS_URL DATA_DIR PORT`.

Without what starts runs: those that are looked at are told of by the benchmark.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from newt import logs
from newt.local.ports import HOST
from services.learner.processes.learner import Learner
from services.learner.records.store import Records
from services.learner.rest.app import create_app, server
from services.learner.settings import LearnerSettings


def main(redis_url: str, data_dir: str, port: str) -> None:
    """Serves until SIGTERM."""
    logs.configure("learner", "WARNING")
    settings = LearnerSettings(redis_url=redis_url, data_dir=Path(data_dir), sims={})
    learner = Learner.build(settings, redis_url, Records.connect(redis_url))
    server(create_app(learner)).run(sockets=[socket.create_server((HOST, int(port)))])


if __name__ == "__main__":
    main(*sys.argv[1:])
