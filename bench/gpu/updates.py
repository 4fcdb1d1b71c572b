"""The stage that times updates of the published batch: plain, and ours in every precision, side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch

from bench import agents
from bench.baselines.plain_model import PlainModel
from bench.baselines.plain_update import PlainLearner
from bench.gpu.document import Notebook
from bench.gpu.timing import on_device
from bench.measure import Candidate, Effort, interleaved
from newt.agent.batch import UpdateBatch
from newt.agent.compilation import BACKEND, prepare
from newt.agent.config import Precision, TrainConfig
from newt.agent.recorded import WARM_UPS, recorder_for
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Milliseconds per online update, waits for the device included: started by Python, and as a graph."""
    where = torch.device(device)
    sizes = effort.pick(full=(("L", 1024), ("B", 256)), quick=(("L", 1024),), tiny=(("XS", 4),))
    for size, rows in sizes:
        model = agents.world_model(size)
        here = agents.batch(model, rows)
        there = here.to(where)
        candidates = _candidates(model, here, there, where, compiled=effort.level != "tiny")
        if where.type == "cuda":
            torch.cuda.reset_peak_memory_stats(where)
        seconds = interleaved(candidates, effort.pick(full=100, quick=20, tiny=1), WARM_UPS + 3)
        peak = torch.cuda.max_memory_allocated(where) / 2**20 if where.type == "cuda" else None
        plain = {name: times for name, times in seconds.items() if name.startswith("plain")}
        for name, times in seconds.items():
            ratios = {
                other: round(sorted(p / o for p, o in zip(theirs, times, strict=True))[len(times) // 2], 2)
                for other, theirs in plain.items()
                if other != name
            }
            more = {"ratio_to": ratios, "peak_mib_of_all": peak}
            notebook.figure(f"update.{size}.b{rows}.{name}", "ms", [1000 * s for s in times], **more)


def _candidates(
    model: WorldModel, here: UpdateBatch, there: UpdateBatch, where: torch.device, *, compiled: bool
) -> dict[str, Candidate]:
    def ours(precision: Precision, compile_with: str | None = None, *, graph: bool = False) -> Updater:
        updater = Updater(copy.deepcopy(model).to(where), TrainConfig(precision=precision))
        updater.compile_with(compile_with)
        updater.record_with(recorder_for(where) if graph else None)
        return updater

    def from_host(updater: Updater) -> Callable[[], object]:
        return lambda: updater.rl_update(here.to(where))

    candidates = {
        "plain_float32": on_device(_plain(model, there, where), where, "float32"),
        "plain_tf32": on_device(_plain(model, there, where), where, "tf32"),
        "float32": on_device(partial(ours("float32").rl_update, there), where, "float32"),
        "tf32": on_device(partial(ours("tf32").rl_update, there), where, "tf32"),
        "bfloat16": on_device(partial(ours("bfloat16").rl_update, there), where, "bfloat16"),
        "tf32.graph": on_device(partial(ours("tf32", graph=True).rl_update, there), where, "tf32"),
        "tf32.from_host": on_device(from_host(ours("tf32")), where, "tf32"),
    }
    if compiled:
        prepare(None)
        candidates |= {
            "plain_compiled": on_device(_plain(model, there, where, compiled=True), where, "tf32"),
            "tf32.compiled": on_device(partial(ours("tf32", BACKEND).rl_update, there), where, "tf32"),
            "tf32.compiled.graph": on_device(
                partial(ours("tf32", BACKEND, graph=True).rl_update, there), where, "tf32"
            ),
            "bfloat16.compiled": on_device(partial(ours("bfloat16", BACKEND).rl_update, there), where, "bfloat16"),
            "bfloat16.compiled.graph": on_device(
                partial(ours("bfloat16", BACKEND, graph=True).rl_update, there), where, "bfloat16"
            ),
        }
    return candidates


def _plain(
    model: WorldModel, batch: UpdateBatch, where: torch.device, *, compiled: bool = False
) -> Callable[[], object]:
    """The update as it is written down; compiled, each of its networks is."""
    with torch.device(where):
        learner = PlainLearner(PlainModel(copy.deepcopy(model).to(where)), TrainConfig())
    if compiled:
        for network in learner.model.children():
            network.compile()

    def update() -> object:
        with torch.device(where):
            return learner.update(batch)

    return update
