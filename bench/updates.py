"""Updates per second: batch 256, horizon 3, the online phase's whole update."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

from bench import agents
from bench.baselines.plain_model import PlainModel
from bench.baselines.plain_update import PlainLearner
from bench.figures import Figure
from bench.measure import Candidate, Effort, interleaved, rate_ratio
from newt.agent.config import TrainConfig
from newt.agent.update import Updater


def run(effort: Effort) -> Iterator[Figure]:
    """Every size with one thread, as the trainer of a laptop's stack has it, and with one per core."""
    rows = effort.pick(full=256, quick=256, tiny=8)
    sizes = effort.pick(full=("S", "B"), quick=("S", "B"), tiny=("XS",))
    for size, threads in product(sizes, agents.thread_counts(effort)):
        model = agents.world_model(size)
        plain = PlainLearner(PlainModel(model), TrainConfig())
        ours = Updater(model, TrainConfig())
        batch = agents.batch(model, rows)
        setting = partial(agents.torch_threads, threads)
        seconds = interleaved(
            {
                "ours": Candidate(partial(ours.rl_update, batch), setting),
                "plain": Candidate(partial(plain.update, batch), setting),
            },
            effort.repetitions,
        )
        yield rate_ratio(
            f"updates.{size}.b{rows}{agents.thread_suffix(threads)}",
            f"updates of size {size}, batch {rows}, {threads} thread(s)",
            "updates/s",
            1,
            seconds["ours"],
            seconds["plain"],
        )
