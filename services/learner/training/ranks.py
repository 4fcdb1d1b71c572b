"""All training processes of a run that has several: `python -m services.learner.training.ranks --processes N ...`.

Starts N trainers with torchrun's launcher, which ends all of them when one dies; the learner's keeper then starts
all again from the last checkpoint. The trainers inherit this process's stdin, so that they notice the end of the
learner by themselves, also if this process is killed.

Of a run over several nodes, each node starts an equal part of the trainers with this module: the learner's machine,
which is node 0 and has rank 0, and those where `services.learner.processes.node` runs. They meet at the learner.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import uuid

import structlog
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from newt import logs
from newt.processes import how_it_ended
from services.learner.settings import LearnerSettings
from services.learner.waiting import EXIT_DONE, EXIT_PEER_LOST, EXIT_STOPPED

log = structlog.get_logger(__name__)


def launch(
    processes: int, arguments: list[str], settings: LearnerSettings, *, nodes: int = 1, node: int = 0, life: str = ""
) -> int:
    """Runs this node's trainers to their end.

    Args:
        processes: How many, on all nodes together.
        arguments: Command line of each.
        settings: Settings of the learner.
        nodes: Machines that they are spread over.
        node: Number of this one; the learner's is 0.
        life: What tells this start of the trainers from earlier ones; the same on all nodes.

    Returns:
        The exit status of a single trainer in the same case.
    """
    # Threads that wait for each other on a shared core are slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.torch_threads or 1))
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes // nodes,
        run_id=life or uuid.uuid4().hex,
        # With several nodes, the learner's must have rank 0, which writes: c10d would number them as it likes.
        rdzv_backend="c10d" if nodes == 1 else "static",
        rdzv_endpoint="localhost:0" if nodes == 1 else settings.rendezvous,
        rdzv_configs={} if nodes == 1 else {"rank": node, "timeout": int(settings.rank_timeout_s)},
        max_restarts=0,  # restarting is the keeper's
        local_addr="localhost" if nodes == 1 else None,
        # Below the keeper's patience with this process.
        shutdown_timeout=max(1, int(settings.stop_grace_s) - 2),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "services.learner.training.trainer", *arguments)
    except SignalException as error:
        log.info("process_stopped", reason=signal.Signals(error.sigval).name)
        return EXIT_STOPPED
    except ChildFailedError as error:
        failures = [(rank, failure) for rank, failure in error.failures.items()]
        rank, first = min(failures, key=lambda item: _blame(item[1]))
        if first.exitcode == EXIT_STOPPED:
            return EXIT_STOPPED
        # The last line is what the keeper shows first.
        print(f"rank {rank} of {processes} {_how(first)}", file=sys.stderr, flush=True)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except DistError as error:
        reason = str(error).splitlines()[0]
        print(
            f"node {node} of {nodes} met not all others at {settings.rendezvous}: {reason}", file=sys.stderr, flush=True
        )
        return EXIT_PEER_LOST
    return EXIT_DONE


def _blame(failure: ProcessFailure) -> tuple[int, float]:
    """Sorts the process that began before those that ended because of it."""
    followed = {EXIT_PEER_LOST: 1, EXIT_STOPPED: 2, -signal.SIGTERM: 2}
    return followed.get(failure.exitcode, 0), failure.timestamp


def _how(failure: ProcessFailure) -> str:
    how = f"(pid {failure.pid}) "
    if failure.exitcode < 0:
        return how + how_it_ended(failure.exitcode)
    message = failure.message if isinstance(failure.message, str) else failure.message.get("message", "")
    return how + f"{how_it_ended(failure.exitcode)}: {message}"


def main() -> int:
    """Starts the trainers; all arguments that are not its own are theirs."""
    parser = argparse.ArgumentParser(prog="ranks", allow_abbrev=False)
    parser.add_argument("--processes", required=True, type=int)
    parser.add_argument("--nodes", default=1, type=int)
    parser.add_argument("--node", default=0, type=int)
    parser.add_argument("--life", default="")
    own, arguments = parser.parse_known_args()
    settings = LearnerSettings()
    logs.configure("ranks", settings.log_level)
    return launch(own.processes, arguments, settings, nodes=own.nodes, node=own.node, life=own.life)


if __name__ == "__main__":
    sys.exit(main())
