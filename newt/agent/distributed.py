"""Training on several processes that hold equal replicas of one training state and each see a part of every batch.

One process per device, started by `torchrun` (or by anything that sets the same environment variables). CPU
tensors travel over gloo, CUDA tensors over NCCL, in one process group. All collectives are called by all processes in
the same order; none waits longer than the group's timeout, and one that fails names the silent processes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from newt.agent.config import ConfigError
from newt.agent.devices import working

# How long a process whose collective failed waits for a sign of life from the others, to name the silent ones.
_ROLL_CALL_S = 2.0


class PeerLostError(RuntimeError):
    """Another training process has died or hangs; the message names it. This process cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among the training processes, and what they do together; alone by default.

    Attributes:
        rank: Number of this process, from 0. Rank 0 alone writes and publishes.
        world: Number of processes, W.
        device: Device this process trains on.

    Example:
        >>> gradients = [torch.ones(2)]
        >>> SOLO.average(gradients)  # alone: nothing to do
        >>> gradients[0].tolist(), SOLO.share(256, "batch_size")
        ([1.0, 1.0], 256)
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _store: Store | None = None
    _timeout_s: float = 0.0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes checkpoints, publishes weights and reports."""
        return self.rank == 0

    def share(self, total: int, name: str) -> int:
        """Returns this process's part of `total` rows.

        Raises:
            ConfigError: The processes cannot have equal parts.
        """
        if total % self.world:
            raise ConfigError(f"{name} {total} cannot be split evenly over {self.world} training processes")
        return total // self.world

    def columns(self, rows: int) -> slice:
        """Returns where this process's `rows` columns lie in the whole batch of all processes."""
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each float32 tensor by its mean over all processes, in place, in one transfer.

        All processes get the same bits. Absent gradients are left out by the caller, on all processes alike.
        """
        if self.world == 1 or not tensors:
            return
        # One bucket: a hundred small transfers cost more than copying the gradients once.
        bucket = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._together("averaging", lambda: dist.all_reduce(bucket))
        bucket /= self.world
        parts = torch.split(bucket, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def gather(self, part: Tensor) -> Tensor:
        """Returns the parts of all processes, which have one shape [B, ...], as [W * B, ...] in order of rank."""
        if self.world == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.world)]
        self._together("gathering", lambda: dist.all_gather(parts, part.contiguous()))
        return torch.cat(parts)

    def agree(self, word: int) -> int:
        """Returns the largest of the processes' words; waits for all of them, on the CPU."""
        if self.world == 1:
            return word
        words = torch.tensor([word])
        self._together("agreeing", lambda: dist.all_reduce(words, dist.ReduceOp.MAX))
        return int(words)

    def broadcast(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns rank 0's named tensors on all processes, on the CPU; what the others give is not used."""
        if self.world == 1:
            return dict(state)
        kinds = {name: (str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in state.items()}
        text = self._broadcast_bytes(json.dumps(kinds).encode() if self.first else b"")
        received: dict[str, Tensor] = {}
        for name, (kind, shape) in json.loads(text).items():
            dtype = getattr(torch, kind)
            value = state[name].cpu().contiguous().clone() if self.first else torch.empty(shape, dtype=dtype)
            flat = value.view(-1).view(torch.uint8)
            if len(flat):
                self._together("sending the state", partial(dist.broadcast, flat, 0))
            received[name] = value
        return received

    def require_equal(self, tensors: Sequence[Tensor], name: str) -> None:
        """Checks that all processes hold the same bits.

        Raises:
            RuntimeError: They do not; names the processes that differ from rank 0.
        """
        if self.world == 1:
            return
        # Sums of the bit patterns, weighted by position, on the device; one number travels.
        total = torch.zeros((), dtype=torch.int64, device=self.device)
        for tensor in tensors:
            bits = tensor.detach().contiguous().view(-1).view(torch.int32).long()
            total = total * 31 + (bits * (torch.arange(len(bits), device=bits.device) % 65_521 + 1)).sum()
        sums = self.gather(total[None].cpu())
        different = [rank for rank in range(self.world) if sums[rank] != sums[0]]
        if different:
            raise RuntimeError(f"{name} of ranks {different} differ from rank 0's: the replicas have diverged")

    def _broadcast_bytes(self, data: bytes) -> bytes:
        length = torch.tensor([len(data)])
        self._together("sending the state", lambda: dist.broadcast(length, 0))
        buffer = torch.zeros(int(length), dtype=torch.uint8)
        if self.first:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self._together("sending the state", lambda: dist.broadcast(buffer, 0))
        return bytes(buffer.numpy())

    def _together(self, what: str, collective: Callable[[], object]) -> None:
        started = time.monotonic()
        try:
            collective()
        except RuntimeError as error:
            waited_s = time.monotonic() - started
            raise PeerLostError(
                f"rank {self.rank} of {self.world}, {what}, after {waited_s:.1f} s (limit {self._timeout_s:g} s): "
                f"{self._silent()} ({str(error).splitlines()[0]})"
            ) from error

    def _silent(self) -> str:
        """Says which processes do not answer any more; the store outlives all of them but its own."""
        assert self._store is not None
        try:
            self._store.set(f"alive/{self.rank}", "1")
            missing = set(range(self.world))
            deadline = time.monotonic() + _ROLL_CALL_S
            while missing and time.monotonic() < deadline:
                missing = {rank for rank in missing if not self._store.check([f"alive/{rank}"])}
                time.sleep(0.05)
        except RuntimeError:
            return "the process that keeps the group together is gone, too"
        if not missing:
            return "the connection broke, though all processes live"
        return f"no sign of life from rank {', '.join(map(str, sorted(missing)))}: dead, stopped or stuck"


SOLO = Ranks()


def launched_rank() -> int:
    """Returns this process's rank as torchrun has set it; 0 for a process that runs alone."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def process_group(device: str = "cpu", timeout_s: float = 180.0) -> Iterator[Ranks]:
    """Joins the processes that torchrun has started; a process that runs alone gets a plain `Ranks`.

    Args:
        device: "cpu", or "cuda": every process then takes the GPU of its local rank. Alone, also "cuda:1".
        timeout_s: Longest wait for another process in a collective, and for all to join. Must exceed the longest
            thing that one process does alone, such as writing a checkpoint.

    Raises:
        ConfigError: torchrun's variables are incomplete, there are fewer GPUs than processes here, or the device does
            not compute.
        PeerLostError: Not all processes came.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=working(device))
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is {world}, but {', '.join(missing)} not set: start the processes with torchrun")
    where = _local_device(device, int(os.environ["LOCAL_RANK"]))
    timeout = timedelta(seconds=timeout_s)
    try:
        store, rank, world = next(iter(rendezvous("env://", timeout=timeout)))
        store.set_timeout(timeout)
        backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world,
            timeout=timeout,
            device_id=where if where.type == "cuda" else None,
        )
    except RuntimeError as error:
        raise PeerLostError(f"not all of {world} training processes came together: {error}") from error
    try:
        yield Ranks(rank, world, where, PrefixStore("ranks", store), timeout_s)
    finally:
        dist.destroy_process_group()


def _local_device(device: str, local_rank: int) -> torch.device:
    where = torch.device(device)
    if where.type != "cuda":
        return where
    if ":" in device:
        raise ConfigError(f"device {device}: with several processes expected cuda, every one takes a GPU of its own")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}; start at most so "
            "many processes"
        )
    where = torch.device("cuda", local_rank)
    torch.cuda.set_device(where)
    return where
