"""The Newt agent: world model, losses and update, planning, checkpoints. Pure torch, CPU and CUDA.

`Agent`, a trained agent for programs of one's own, lives in `newt.acting` and is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newt.acting.agent import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("newt.acting.agent"), name)
