"""Updates per second: horizon 3, the online phase's whole update, in float32 and in bfloat16."""

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

# At least so many times as many updates as the plain learner; in bfloat16 where the processor multiplies it in tiles.
GOALS = {"XS.b128": 1.6, "S.b256": 1.5, "B.b256": 1.4, "S.b256.bfloat16": 2.2, "B.b256.bfloat16": 2.5}


def run(effort: Effort) -> Iterator[Figure]:
    """Every size with one thread, as the trainer of a laptop's stack has it, and with one per core."""
    cases = [("XS", 128), ("S", 256), ("B", 256)]
    cases = effort.pick(full=cases, quick=cases[1:], tiny=[("XS", 8)])
    for (size, rows), threads in product(cases, agents.thread_counts(effort)):
        plain = PlainLearner(PlainModel(agents.world_model(size)), TrainConfig())
        # Each has a model of its own: a precision is the model's from then on.
        single = Updater(model := agents.world_model(size), TrainConfig())
        half = Updater(agents.world_model(size), TrainConfig(precision="bfloat16"))
        batch = agents.batch(model, rows)
        setting = partial(agents.torch_threads, threads)
        seconds = interleaved(
            {
                "plain": Candidate(partial(plain.update, batch), setting),
                "float32": Candidate(partial(single.rl_update, batch), setting),
                "bfloat16": Candidate(partial(half.rl_update, batch), setting),
            },
            effort.repetitions,
        )
        for precision, suffix in (("float32", ""), ("bfloat16", ".bfloat16")):
            case = f"{size}.b{rows}{suffix}"
            yield rate_ratio(
                f"updates.{case}{agents.thread_suffix(threads)}",
                f"updates of size {size}, batch {rows}, {precision}, {threads} thread(s)",
                "updates/s",
                1,
                seconds[precision],
                seconds["plain"],
                at_least=GOALS.get(case) if threads == 1 else None,
            )
