"""A recorder for CPUs that keeps what a CUDA graph keeps: operations, their tensors, numbers that Python gave.

Replaying it runs no Python of the work. What the work would have to read from its device, or has Python decide anew
each time, goes wrong here as it would there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Work = Callable[[], Mapping[str, Tensor]]
# What would wait for a GPU, or has results whose shapes depend on numbers.
_FORBIDDEN = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}


def _storages(values: Any) -> dict[int, Tensor]:
    return {x.untyped_storage().data_ptr(): x for x in tree_leaves(values) if isinstance(x, Tensor) and x.numel()}


def _seen(values: Any) -> Any:
    """Tensors of the same numbers, which keep the shapes that these have now."""
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, values)


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _FORBIDDEN:
            raise RuntimeError(f"{func} cannot be recorded")
        given = _seen((args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, *given, _seen(result)))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            if torch.Tag.inplace_view in func.tags:
                continue  # moves no numbers
            if func._schema.is_mutable:
                func(*args, **kwargs)
                continue
            given = _storages((args, kwargs))
            # A view of what was given shows what is there now.
            if not all(storage in given for storage in _storages(result)):
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class Tape:
    """Records by doing the work once, which counts as the first replay.

    Attributes:
        recorded: Pieces of work recorded so far.
    """

    def __init__(self) -> None:
        self.recorded = 0

    def run(self, work: Work) -> Mapping[str, Tensor]:
        """Does work that may be recorded later."""
        return work()

    def record(self, work: Work) -> Callable[[], Mapping[str, Tensor]]:
        """Records work; what comes back does it."""
        with _Operations() as operations:
            results = work()
        self.recorded += 1
        done = True

        def replay() -> Mapping[str, Tensor]:
            nonlocal done
            if not done:
                with torch._C._AutoDispatchBelowAutograd():  # gradients were recorded as operations
                    operations.replay()
            done = False
            return results

        return replay
