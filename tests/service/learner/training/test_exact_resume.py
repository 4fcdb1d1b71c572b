"""Two trainers on the same stored episodes: one is left alone, the other killed at random moments. They end alike.

With live collection the episodes differ from run to run, as they do without any death. Given equal episodes, training
is the same to the bit, so a death changes no learning curve.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from stored_runs import INTERVAL, last_checkpoint, stored_stack, submit, updates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PRETRAIN, ONLINE = 150, 240


def test_a_killed_trainer_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    chance_seed = random.SystemRandom().randrange(2**32)
    print(f"moments from seed {chance_seed}")  # shown if the test fails
    chance = random.Random(chance_seed)
    kills = [chance.randrange(10, PRETRAIN // 2), PRETRAIN + chance.randrange(10, ONLINE // 3)]
    with stored_stack(tmp_path, MAX_CONCURRENT_RUNS=2) as stack:
        disturbed = submit(stack, PRETRAIN, ONLINE)
        stack.follow(disturbed, lambda run: updates(run) >= kills[0], 200)
        stack.kill_child(disturbed, "trainer")
        stack.follow(disturbed, lambda run: updates(run) >= kills[1], 200)
        stack.kill_everything(disturbed)
        alone = submit(stack, PRETRAIN, ONLINE)
        states = [last_checkpoint(stack, run_id, PRETRAIN + ONLINE).state for run_id in (disturbed, alone)]
        log = (Path(stack.get(f"/runs/{disturbed}")["directory"]) / "logs" / "trainer.log").read_text()
    assert states[0].keys() == states[1].keys()
    different = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
    assert not different
    # Both deaths came in the middle, and cost one interval at most. Before the first checkpoint nothing is resumed.
    resumed = [json.loads(line)["updates"] for line in log.splitlines() if '"event": "resumed"' in line]
    starts = resumed if len(resumed) == 2 else [0, *resumed]
    assert len(starts) == 2
    assert all(kill - INTERVAL <= start < PRETRAIN + ONLINE for kill, start in zip(kills, starts, strict=True))
