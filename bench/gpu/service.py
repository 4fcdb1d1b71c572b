"""The stage that plans through the service, and publishes new weights meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench import agents, processes
from bench.figures import Value
from bench.gpu.correct import plan_config
from bench.gpu.document import Notebook
from bench.measure import Effort
from bench.weights import swaps
from newt.agent.checkpoints import weights_to_bytes
from newt.client.planner import PlannerClient
from newt.client.weights import publish

MODEL_ID = "bench"
_TIMEOUT_S = 60.0


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Rows per second and latencies of three crowds, then swaps of weights; first without graphs, then with them."""
    size = effort.pick(full="L", quick="L", tiny="XS")
    crowds = effort.pick(full=((1, 1), (20, 10), (64, 4)), quick=((1, 1), (20, 10)), tiny=((2, 2),))
    for graphs in (False, True):
        suffix = ".graph" if graphs else ""
        with serving(device, size, effort, graphs=graphs) as client:
            for clients, rows in crowds:
                crowd = Crowd(client, clients, rows)
                crowd.plan_for(effort.pick(full=5.0, quick=4.0, tiny=0.2))
                crowd.note(notebook, f"service.{size}.clients{clients}.rows{rows}{suffix}")
        for figure in swaps(Effort("tiny" if effort.level == "tiny" else "quick"), size, device, graphs=graphs):
            assert isinstance(figure, Value)
            notebook.figure(f"swap.{figure.key}{suffix}", figure.unit, [figure.value.median])


@contextmanager
def serving(device: str, size: str, effort: Effort, *, graphs: bool = False) -> Iterator[PlannerClient]:
    """A planner service with a model of a size, called MODEL_ID."""
    plan_json = json.dumps(plan_config(effort).to_dict())
    with (
        processes.weights_hub() as hub,
        processes.planner(hub, 1, device, graphs=graphs) as address,
        PlannerClient(address) as client,
    ):
        publish(hub, MODEL_ID, 1, weights_to_bytes(agents.world_model(size)), plan_json, timeout_s=_TIMEOUT_S)
        yield client


@dataclass
class Crowd:
    """Clients that ask for the next plan as soon as they have the last.

    Attributes:
        client: Connection that they share.
        clients: How many.
        rows: Rows of each request.
        seconds: Latencies so far.
        batches: Rows of the batches that each plan rode in.
        elapsed_s: How long they planned.
    """

    client: PlannerClient
    clients: int
    rows: int
    seconds: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    elapsed_s: float = 0.0

    def plan_for(self, seconds: float) -> None:
        """Plans until the time is over, but at least once each; raises the first error of a client."""
        begun, errors = time.perf_counter(), list[BaseException]()

        def ask(number: int) -> None:
            try:
                self._ask(number, begun + seconds)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.elapsed_s += time.perf_counter() - begun
        if errors:
            raise errors[0]

    def _ask(self, number: int, until: float) -> None:
        obs, task = agents.observations(self.rows, number).numpy(), np.arange(self.rows, dtype=np.int32)
        seed = np.arange(self.rows, dtype=np.uint64) + np.uint64(1000 * number)
        mean: npt.NDArray[np.float32] | None = None
        while True:
            sent = time.perf_counter()
            plan = self.client.plan(MODEL_ID, obs, task, seed, explore=True, prev_mean=mean, timeout_s=_TIMEOUT_S)
            mean, seed = plan.next_mean, seed + np.uint64(self.rows)
            self.seconds.append(time.perf_counter() - sent)
            self.batches.append(plan.batch_rows)
            if time.perf_counter() > until:
                return

    def note(self, notebook: Notebook, key: str) -> None:
        """Writes down rates and latencies."""
        p50, p99 = np.quantile(self.seconds, (0.5, 0.99)) * 1000
        rate = self.rows * len(self.seconds) / self.elapsed_s
        notebook.figure(f"{key}.latency", "ms", [1000 * s for s in self.seconds], p50=p50, p99=p99)
        notebook.figure(f"{key}.rate", "rows/s", [rate], mean_batch=float(np.mean(self.batches)))
