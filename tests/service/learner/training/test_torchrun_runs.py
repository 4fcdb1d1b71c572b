"""A tiny run that trains on two processes: its whole life, and the death of one of them."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_stack import LearnerStack, processes_of, wait_until
from stored_runs import INTERVAL, last_checkpoint, stored_stack, submit, updates
from test_whole_runs import PRETRAIN, _check_episodes, _with

from newt.agent.checkpoints import load_checkpoint

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


trainers = partial(processes_of, role="trainer")


def messages(stack: LearnerStack, run_id: str) -> str:
    return str(stack.http.get(f"/runs/{run_id}/events", params={"follow": False}, timeout=60).text)


def test_two_processes_train_a_run_and_survive_the_death_of_one(stack: LearnerStack) -> None:
    run_id = stack.submit(_with({"resources": {"processes": 2}}))
    stack.follow(run_id, lambda run: run["progress"]["pretrain_updates"] >= 45, 200)
    first = trainers(run_id)
    assert sorted(first) == [0, 1]
    os.kill(first[1], signal.SIGKILL)
    run = stack.follow(run_id, lambda run: run["progress"]["restarts"] == 1, 60)
    # From the checkpoint after 40 updates on, with new processes.
    wait_until(lambda: len(trainers(run_id)) == 2 and trainers(run_id)[1] != first[1], "new processes")
    run = stack.follow(run_id, lambda run: False, 300)
    assert run["state"] == "succeeded", run["error"]
    assert run["progress"]["updates"] == run["progress"]["total_updates"]
    assert run["progress"]["pretrain_updates"] == PRETRAIN
    assert f"rank 1 of 2 (pid {first[1]}) was killed by SIGKILL" in messages(stack, run_id)
    log = (Path(run["directory"]) / "logs" / "trainer.log").read_text()
    resumed = [json.loads(line)["updates"] for line in log.splitlines() if '"resumed"' in line]
    assert len(resumed) == 2  # both ranks
    assert min(resumed) >= 40
    _check_episodes(stack, run_id)
    newest = sorted((Path(run["directory"]) / "checkpoints").glob("*.safetensors"), key=os.path.getmtime)[-1]
    checkpoint = load_checkpoint(newest)
    assert checkpoint.updater().updates == PRETRAIN + run["progress"]["updates"]
    wait_until(lambda: trainers(run_id) == {}, "no processes")


def test_a_run_that_a_dead_rank_has_ended_can_be_resumed(tmp_path: Path) -> None:
    """Where restarts are used up. The same to the bit as a run on as many processes that nobody disturbed."""
    with stored_stack(tmp_path, MAX_RESTARTS=0) as stack:
        run_id = submit(stack, 80, 80, processes=2)
        stack.follow(run_id, lambda run: updates(run) >= INTERVAL, 200)
        victim = trainers(run_id)[1]
        os.kill(victim, signal.SIGKILL)
        run = stack.follow(run_id, lambda run: False, 60)
        assert run["state"] == "failed"
        assert f"rank 1 of 2 (pid {victim}) was killed by SIGKILL" in run["error"]
        wait_until(lambda: not trainers(run_id), "the end of the other rank")
        reply = stack.http.post(f"/runs/{run_id}/resume")
        assert reply.is_success, reply.text
        resumed = last_checkpoint(stack, run_id, 160).state
        stack.http.post(f"/runs/{run_id}/cancel")
        undisturbed = last_checkpoint(stack, submit(stack, 80, 80, processes=2), 160).state
    different = [name for name, value in undisturbed.items() if not torch.equal(value, resumed[name])]
    assert not different


def test_ranks_end_with_the_learner_and_with_a_cancelled_run(stack: LearnerStack) -> None:
    request = _with({"resources": {"processes": 2}, "schedule": {"pretrain_updates": 100_000}})
    run_id = stack.submit(request)
    stack.follow(run_id, lambda run: run["progress"]["pretrain_updates"] >= 10, 200)
    first = trainers(run_id)
    stack.restart_learner()
    wait_until(lambda: not set(trainers(run_id).values()) & set(first.values()), "the end of the orphans")
    before = stack.get(f"/runs/{run_id}")["progress"]["pretrain_updates"]
    stack.follow(run_id, lambda run: run["attempt"] == 2 and run["progress"]["pretrain_updates"] > before, 120)
    reply = stack.http.post(f"/runs/{run_id}/cancel")
    assert reply.is_success, reply.text
    wait_until(lambda: not trainers(run_id), "the end of the trainers", 60)
    log = (Path(stack.get(f"/runs/{run_id}")["directory"]) / "logs" / "trainer.log").read_text()
    # Both ranks stopped before the same update, each time; neither lost the other.
    assert log.count('"process_stopped"') >= 4
    assert "peer_lost" not in log
    saved = [json.loads(line)["updates"] for line in log.splitlines() if '"resumed"' in line]
    assert len(saved) == 2
    assert saved[0] == saved[1] >= 10


def test_uneven_batches_are_refused(stack: LearnerStack) -> None:
    request: dict[str, Any] = _with({"resources": {"processes": 3}})
    reply = stack.http.post("/runs", json=request)
    assert reply.status_code == 422
    assert "3 processes cannot have equal parts of replay.batch_size 16" in reply.text
