"""Clients of the services, for people's own code.

>>> from newt.client import RemoteVectorEnv  # doctest: +SKIP
>>> envs = RemoteVectorEnv("walker-walk", num_envs=8, address="127.0.0.1:50051")  # doctest: +SKIP
"""

from newt.client.sim import AutoReset, Observation, ObsMode, SimClient, SimSession, Step, Task
from newt.client.vector_env import RemoteVectorEnv

__all__ = [
    "AutoReset",
    "ObsMode",
    "Observation",
    "RemoteVectorEnv",
    "SimClient",
    "SimSession",
    "Step",
    "Task",
]
