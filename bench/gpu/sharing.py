"""The stage that plans and trains on one GPU: both rates alone, and together."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from typing import Protocol

import torch

from bench import agents
from bench.gpu.document import Notebook
from bench.gpu.service import Crowd, serving
from bench.measure import Effort
from newt.agent import devices
from newt.agent.config import TrainConfig
from newt.agent.update import Updater

_START_S = 60.0


class _Counter(Protocol):
    """A number that processes share."""

    value: int


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Twenty clients without a trainer, then beside one; the trainer without clients comes last."""
    size, seconds = effort.pick(full="L", quick="L", tiny="XS"), effort.pick(full=6.0, quick=3.0, tiny=0.2)
    clients, rows = effort.pick(full=(20, 10), quick=(20, 10), tiny=(2, 2))
    batch_rows = effort.pick(full=1024, quick=1024, tiny=4)
    spawn = multiprocessing.get_context("spawn")
    with serving(device, size, effort) as client:
        alone = Crowd(client, clients, rows)
        alone.plan_for(seconds)
        alone.note(notebook, "sharing.plans.alone")
        updates, ready, over = spawn.Value("q", 0), spawn.Event(), spawn.Event()
        trainer = spawn.Process(target=_train, args=(device, size, batch_rows, updates, ready, over), daemon=True)
        trainer.start()
        if not ready.wait(_START_S):
            raise RuntimeError(f"the trainer made no update within {_START_S:g} s")
        together = Crowd(client, clients, rows)
        before, begun = updates.value, time.perf_counter()
        together.plan_for(seconds)
        notebook.figure(
            "sharing.updates.together", "updates/s", [(updates.value - before) / (time.perf_counter() - begun)]
        )
        together.note(notebook, "sharing.plans.together")
        before, begun = updates.value, time.perf_counter()
        time.sleep(seconds)
        notebook.figure(
            "sharing.updates.alone", "updates/s", [(updates.value - before) / (time.perf_counter() - begun)]
        )
        over.set()
        trainer.join(_START_S)


def _train(device: str, size: str, rows: int, updates: _Counter, ready: Event, over: Event) -> None:
    where = torch.device(device)
    torch.set_num_threads(1)
    devices.set_precision("auto", where)
    model = agents.world_model(size).to(where)
    updater, batch = Updater(model, TrainConfig()), agents.batch(model, rows)
    while not over.is_set():
        metrics = updater.rl_update(batch.to(where))
        if updater.updates % 20 == 1:
            float(metrics["total_loss"])  # as a trainer looks at its losses: at most so far ahead of the device
            ready.set()
        updates.value = updater.updates
