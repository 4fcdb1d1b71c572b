"""Clients of the services, for people's own code.

>>> from newt.client import RemoteVectorEnv  # doctest: +SKIP
>>> envs = RemoteVectorEnv("walker-walk", num_envs=8, address="127.0.0.1:50051")  # doctest: +SKIP

Names are imported when they are first used, because the clients need different packages: only RemoteEnv and
RemoteVectorEnv need Gymnasium.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newt.client.agent import RemoteAgent
    from newt.client.sim import AutoReset, ObsMode, SimClient
    from newt.client.sim_session import SimSession
    from newt.client.single_env import RemoteEnv
    from newt.client.steps import Observation, Step
    from newt.client.vector_env import RemoteVectorEnv

__all__ = [
    "AutoReset",
    "ObsMode",
    "Observation",
    "RemoteAgent",
    "RemoteEnv",
    "RemoteVectorEnv",
    "SimClient",
    "SimSession",
    "Step",
]
_MODULES = {
    "Observation": "steps",
    "RemoteAgent": "agent",
    "RemoteEnv": "single_env",
    "RemoteVectorEnv": "vector_env",
    "SimSession": "sim_session",
    "Step": "steps",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "sim")
    return getattr(import_module(f"{__name__}.{module}"), name)
