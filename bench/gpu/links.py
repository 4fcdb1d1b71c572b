"""The stage that makes a group of one training process, and sends a gradient's worth of numbers through it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from bench import agents
from bench.gpu.document import Notebook
from bench.gpu.timing import synchronise
from bench.measure import Effort


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Seconds to set up, and of the collectives of an update. One process shows that NCCL works, not how fast it is."""
    where = torch.device(device)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            model = agents.world_model(effort.pick(full="L", quick="L", tiny="XS"))
            bucket = torch.zeros(sum(p.numel() for p in model.parameters() if p.requires_grad), device=where)
            dist.all_reduce(bucket)
            synchronise(where)
            notebook.table(
                "links", {"first_all_reduce_s": time.perf_counter() - begun, "bucket_mb": 4e-6 * len(bucket)}
            )
            _time_collectives(bucket, where, notebook)
        finally:
            dist.destroy_process_group()


def _time_collectives(bucket: torch.Tensor, where: torch.device, notebook: Notebook) -> None:
    word, part = torch.zeros(1), torch.empty(1024, device=where)
    collectives: dict[str, Callable[[], object]] = {
        "average": lambda: dist.all_reduce(bucket),
        "gather": lambda: dist.all_gather([torch.empty_like(part)], part),
        "agree": lambda: dist.all_reduce(word, dist.ReduceOp.MAX),
        "broadcast": lambda: dist.broadcast(word, 0),
    }
    for name, collective in collectives.items():
        begun = time.perf_counter()
        for _ in range(10):
            collective()
        synchronise(where)
        notebook.table("links", {f"{name}_ms": (time.perf_counter() - begun) * 100})
