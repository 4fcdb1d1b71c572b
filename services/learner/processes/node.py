"""A further machine for one run: `python -m services.learner.processes.node --index I [--run ID]`.

Waits for a run over several nodes, starts its part of the run's trainers, starts them again when the learner does, and
ends with the run. It needs the learner's settings, its data folder on a shared volume, and its way to Redis and replay;
the trainers meet at `rendezvous`. Rank 0 stays on the learner's machine and alone writes checkpoints and publishes.
"""

from __future__ import annotations

import argparse
import sys

import structlog

from newt import logs, spans, trace
from newt.errors import NewtError
from newt.runs.record import Run
from newt.security import redis_address
from services.learner.processes.child import Child
from services.learner.records.runs import TRAINERS_LIFE
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings
from services.learner.waiting import EXIT_DONE, EXIT_STOPPED, StopFlag, Stopped, patiently

POLL_S = 1.0

log = structlog.get_logger(__name__)


class Node:
    """This machine's part of a run.

    Args:
        settings: The learner's.
        records: Run records.
        node: Number of this node, from 1.
        stop: Ends it.
    """

    def __init__(self, settings: LearnerSettings, records: Records, node: int, stop: StopFlag) -> None:
        self._settings, self._records, self._node, self._stop = settings, records, node, stop

    def run(self, run_id: str | None) -> None:
        """Works for one run until it has ended, or its training has.

        Args:
            run_id: Which; None takes the first active one that wants this node.

        Raises:
            Stopped: The process must stop.
        """
        run = self._find(run_id)
        trace.follow_in_process(run.origin())
        log.info("node_joins", run=run.id, node=self._node, rendezvous=self._settings.rendezvous)
        last = None
        while not run.state.finished:
            life = self._life(run)
            if run.state.active and life and life != last and self._train(run, life):
                return
            last = life  # a start that has failed is not tried again: the learner makes another
            self._stop.sleep(POLL_S)
            run = self._get(run.id)

    def _find(self, run_id: str | None) -> Run:
        while True:
            runs = [self._get(run_id)] if run_id else patiently(self._records.runs.list_unfinished, self._stop).records
            for run in runs:
                wanted = run.spec.resources.nodes > self._node
                if run_id and not wanted:
                    raise NewtError(
                        f"run {run.id} wants {run.spec.resources.nodes} nodes; this would be {self._node + 1}"
                    )
                if wanted and (run.state.active or run_id):
                    return run
            self._stop.sleep(POLL_S)

    def _get(self, run_id: str) -> Run:
        return patiently(lambda: self._records.runs.get(run_id), self._stop)

    def _life(self, run: Run) -> str | None:
        return patiently(lambda: self._records.runs.field(run.id, TRAINERS_LIFE), self._stop)

    def _train(self, run: Run, life: str) -> bool:
        """One life of the trainers here; whether they have done all that there was to do."""
        resources = run.spec.resources
        own = ["--processes", str(resources.processes), "--nodes", str(resources.nodes), "--node", str(self._node)]
        child = Child(
            "services.learner.training.ranks",
            [*own, "--life", life, "--job", run.id, "--attempt", str(run.attempt)],
            self._settings,
            self._settings.folder.run_log(run.id, f"trainer-node{self._node}"),
        )
        try:
            while not child.wait(POLL_S):
                self._stop.check()
                if self._life(run) != life or self._get(run.id).state.finished:
                    child.terminate()
        finally:
            child.terminate()
            if not child.wait(self._settings.stop_grace_s):
                child.kill()
                child.wait(5.0)
        if child.exit_status() == EXIT_DONE:
            return True
        log.warning("trainers_ended", run=run.id, how=child.how_it_ended())
        return False


def main() -> int:
    """Works for one run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="node", description=__doc__)
    parser.add_argument(
        "--index", required=True, type=int, help="number of this machine among the further ones, from 0"
    )
    parser.add_argument("--run", help="id of the run; default: the first active one that wants this machine")
    arguments = parser.parse_args()
    settings = LearnerSettings()
    logs.configure("node", settings.log_level)
    spans.export("node")
    stop = StopFlag()
    stop.watch_signals()
    try:
        Node(settings, Records.connect(redis_address(settings.redis_url)), arguments.index + 1, stop).run(arguments.run)
    except Stopped:
        return EXIT_STOPPED
    except NewtError as error:
        log.error("node_failed", error=str(error))
        return 1
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
