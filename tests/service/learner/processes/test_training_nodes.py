"""A run whose trainers are spread over two nodes: the learner, and one that joins it, on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from learner_stack import LearnerStack, processes_of, wait_until
from stored_runs import INTERVAL, last_checkpoint, stored_stack, submit, updates

from newt.local import ports

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@contextmanager
def node(stack: LearnerStack, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A training node with the learner's settings and nothing to read from."""
    settings = {f"NEWT_LEARNER_{key}": str(value) for key, value in stack.settings["learner"].items()}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.learner.processes.node", "--index", "0"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **settings},
            stdin=subprocess.DEVNULL,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_two_nodes_train_as_one_and_survive_the_death_of_a_process(tmp_path: Path) -> None:
    rendezvous = f"127.0.0.1:{ports.free_port()}"
    with stored_stack(tmp_path, RENDEZVOUS=rendezvous) as stack:
        with node(stack, tmp_path / "node.log") as joined:
            run_id = submit(stack, 80, 80, processes=2, nodes=2)
            stack.follow(run_id, lambda run: updates(run) >= INTERVAL, 200)
            first = processes_of(run_id, "trainer")
            assert sorted(first) == [0, 1]
            # Rank 0 is the learner's: only its processes have the learner for an ancestor.
            assert stack.processes["learner"].pid in ancestors(first[0])
            assert joined.pid in ancestors(first[1])
            os.kill(first[1], signal.SIGKILL)
            wait_until(lambda: set(processes_of(run_id, "trainer").values()).isdisjoint(first.values()), "a new start")
            over_nodes = last_checkpoint(stack, run_id, 160).state
            stack.http.post(f"/runs/{run_id}/cancel")
            # The node ends with its run.
            assert joined.wait(60) == 0, (tmp_path / "node.log").read_text()
        here = last_checkpoint(stack, submit(stack, 80, 80, processes=2), 160).state
    different = [name for name, value in here.items() if not torch.equal(value, over_nodes[name])]
    assert not different


def ancestors(pid: int) -> list[int]:
    """Process ids of a process's parents."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found
