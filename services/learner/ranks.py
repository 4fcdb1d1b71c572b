"""All training processes of a run that has several: `python -m services.learner.ranks --processes N --run ID ...`.

Starts N trainers with torchrun's launcher, which ends all of them when one dies; the learner's supervisor then starts
all again from the last checkpoint. The trainers inherit this process's stdin, so that they notice the end of the
learner by themselves, also if this process is killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import uuid

import structlog
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from newt import logs
from services.learner.child import EXIT_DONE, EXIT_PEER_LOST, EXIT_STOPPED
from services.learner.settings import LearnerSettings

log = structlog.get_logger(__name__)


def launch(processes: int, arguments: list[str], settings: LearnerSettings) -> int:
    """Runs the trainers to their end.

    Args:
        processes: How many.
        arguments: Command line of each.
        settings: Of the learner.

    Returns:
        The exit status of a single trainer in the same case.
    """
    # Threads that wait for each other on a shared core are slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.torch_threads or 1))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,  # restarting is the supervisor's
        local_addr="localhost",
        # Below the supervisor's patience with this process.
        shutdown_timeout=max(1, int(settings.stop_grace_s) - 2),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "services.learner.trainer", *arguments)
    except SignalException as error:
        log.info("process_stopped", reason=signal.Signals(error.sigval).name)
        return EXIT_STOPPED
    except ChildFailedError as error:
        failures = [(rank, failure) for rank, failure in error.failures.items()]
        rank, first = min(failures, key=lambda item: _blame(item[1]))
        if first.exitcode == EXIT_STOPPED:
            return EXIT_STOPPED
        # The last line is what the supervisor shows first.
        print(f"rank {rank} of {processes} {_how(first)}", file=sys.stderr, flush=True)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return EXIT_DONE


def _blame(failure: ProcessFailure) -> tuple[int, float]:
    """Sorts the process that began before those that ended because of it."""
    followed = {EXIT_PEER_LOST: 1, EXIT_STOPPED: 2, -signal.SIGTERM: 2}
    return followed.get(failure.exitcode, 0), failure.timestamp


def _how(failure: ProcessFailure) -> str:
    how = f"(pid {failure.pid}) "
    if failure.exitcode < 0:
        return how + f"was killed by {signal.Signals(-failure.exitcode).name}"
    message = failure.message if isinstance(failure.message, str) else failure.message.get("message", "")
    return how + f"exited with status {failure.exitcode}: {message}"


def main() -> int:
    """Starts the trainers; all arguments but --processes are theirs."""
    parser = argparse.ArgumentParser(prog="ranks", allow_abbrev=False)
    parser.add_argument("--processes", required=True, type=int)
    own, arguments = parser.parse_known_args()
    settings = LearnerSettings()
    logs.configure("ranks", settings.log_level)
    return launch(own.processes, arguments, settings)


if __name__ == "__main__":
    sys.exit(main())
