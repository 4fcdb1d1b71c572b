"""The stage that measures what the chip can do at all: copies, products, launches."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from bench.gpu.document import Notebook
from bench.gpu.timing import multiplying, synchronise
from bench.measure import Effort
from newt.agent.config import Precision
from newt.agent.recorded import WARM_UPS, Recorded, Tensors, recorder_for

# The products of a plan of 200 rows and of an update, size L: rows x inner x columns.
_OURS = {"plan": (97_600, 1024, 1024, torch.bfloat16), "update": (3_072, 1024, 1024, torch.float32)}


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Best of some repetitions: a ceiling is what was reached once."""
    where, tries = torch.device(device), effort.pick(full=10, quick=5, tiny=1)

    def best_s(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(tries + 1):  # the first sets libraries up
            synchronise(where)
            begun = time.perf_counter()
            work()
            synchronise(where)
            seconds.append(time.perf_counter() - begun)
        return min(seconds[1:])

    size = effort.pick(full=4 << 30, quick=1 << 30, tiny=1 << 20)
    source, target = (torch.empty(size, dtype=torch.uint8, device=where) for _ in range(2))
    # A copy reads and writes every byte.
    notebook.table("ceilings", {"copy_tb_s": 2 * size / best_s(partial(target.copy_, source)) / 1e12})

    def tflops(m: int, k: int, n: int, dtype: torch.dtype, precision: Precision) -> float:
        a, b = torch.randn(m, k, device=where, dtype=dtype), torch.randn(k, n, device=where, dtype=dtype)
        with multiplying(precision, where):
            return 2 * m * k * n / best_s(partial(torch.mm, a, b)) / 1e12

    edge = effort.pick(full=8192, quick=2048, tiny=64)
    square = partial(tflops, edge, edge, edge)
    notebook.table("ceilings", {"bf16_tflops": square(torch.bfloat16, "float32")})
    notebook.table("ceilings", {"tf32_tflops": square(torch.float32, "tf32")})
    notebook.table("ceilings", {"fp32_tflops": square(torch.float32, "float32")})
    for name, (rows, inner, columns, dtype) in _OURS.items():
        rows = effort.pick(full=rows, quick=rows, tiny=8)
        notebook.table("ceilings", {f"{name}_shape_tflops": tflops(rows, inner, columns, dtype, "tf32")})

    launches = effort.pick(full=2000, quick=500, tiny=10)
    x = torch.zeros(8, device=where)

    def launch(given: Tensors) -> Tensors:
        for _ in range(launches):
            x.add_(1)
        return given

    notebook.table("ceilings", {"launch_us": best_s(partial(launch, {})) / launches * 1e6})
    graph = Recorded("launches", launch, {}, recorder_for(where))
    for _ in range(WARM_UPS):
        graph({})
    notebook.table("ceilings", {"launch_in_a_graph_us": best_s(partial(graph, {})) / launches * 1e6})
