"""Updates per second: horizon 3, the online phase's whole update, in float32 and in bfloat16, eager and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

from bench import agents
from bench.baselines.plain_model import PlainModel
from bench.baselines.plain_update import PlainLearner
from bench.figures import Figure
from bench.measure import Candidate, Effort, interleaved, rate_ratio
from newt.agent.compilation import BACKEND
from newt.agent.config import Precision, TrainConfig
from newt.agent.update import Updater

# At least so many times as many updates as the plain learner; in bfloat16 where the processor multiplies it in tiles.
GOALS = {
    "XS.b128.compiled": 1.6,
    "S.b256.compiled": 1.5,
    "B.b256.compiled": 1.4,
    "S.b256.bfloat16.compiled": 2.2,
    "B.b256.bfloat16.compiled": 2.5,
}


@dataclass(frozen=True)
class Way:
    """How updates are computed."""

    precision: Precision
    compiled: bool
    suffix: str


WAYS = (
    Way("float32", compiled=False, suffix=""),
    Way("bfloat16", compiled=False, suffix=".bfloat16"),
    Way("float32", compiled=True, suffix=".compiled"),
    Way("bfloat16", compiled=True, suffix=".bfloat16.compiled"),
)


def run(effort: Effort) -> Iterator[Figure]:
    """Every size with one thread, as the trainer of a laptop's stack has it, and with one per core."""
    cases = [("XS", 128), ("S", 256), ("B", 256)]
    cases = effort.pick(full=cases, quick=cases[1:], tiny=[("XS", 8)])
    for (size, rows), threads in product(cases, agents.thread_counts(effort)):
        plain = PlainLearner(PlainModel(agents.world_model(size)), TrainConfig())
        batch = agents.batch(agents.world_model(size), rows)
        setting = partial(agents.torch_threads, threads)
        candidates = {"plain": Candidate(partial(plain.update, batch), setting)}
        # Code takes minutes to make: it is measured where it has a goal.
        ways = [way for way in WAYS if not way.compiled or (effort.level == "full" and threads == 1)]
        for way in ways:
            # Each has a model of its own: a precision is the model's from then on.
            ours = Updater(agents.world_model(size), TrainConfig(precision=way.precision))
            ours.compile_with(BACKEND if way.compiled else None)
            candidates[way.suffix] = Candidate(partial(ours.rl_update, batch), setting)
        seconds = interleaved(candidates, effort.repetitions)
        for way in ways:
            case = f"{size}.b{rows}{way.suffix}"
            how = f"{way.precision}{', compiled' if way.compiled else ''}"
            yield rate_ratio(
                f"updates.{case}{agents.thread_suffix(threads)}",
                f"updates of size {size}, batch {rows}, {how}, {threads} thread(s)",
                "updates/s",
                1,
                seconds[way.suffix],
                seconds["plain"],
                at_least=GOALS.get(case) if threads == 1 else None,
            )
