"""Our tasks as Gymnasium's ids. Importing this module registers them, as Gymnasium expects it of packages.

    import gymnasium
    import newt.client.envs

    env = gymnasium.make("newt/walker-walk-v0", address="127.0.0.1:50051")  # or $NEWT_SIM
    envs = gymnasium.make_vec("newt/walker-walk-v0", num_envs=8)
    mine = gymnasium.make("newt/task-v0", task="my-reacher")  # any other task of the simulator service

Vectors restart ended episodes in the next step, which is Gymnasium's default; `autoreset_mode` says otherwise.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode

from newt.client.vector_env import RemoteVectorEnv
from newt.tasks.registry import table_tasks

ANY_TASK = "newt/task-v0"
SINGLE = "newt.client.single_env:RemoteEnv"
VECTOR = "newt.client.envs:make_vector"


def make_vector(
    task: str,
    num_envs: int = 1,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **settings: Any,
) -> RemoteVectorEnv:
    """What `gymnasium.make_vec` calls.

    Args:
        task: Name of the task.
        num_envs: Number of rows.
        autoreset_mode: As Gymnasium's, or its value.
        render_mode: `rgb_array`, which it has in any case, or None.
        settings: Others of `RemoteVectorEnv`.
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"got render_mode={render_mode!r}; expected 'rgb_array' or None")
    return RemoteVectorEnv(task, num_envs, autoreset_mode=AutoresetMode(autoreset_mode), **settings)


def _register() -> None:
    for name in table_tasks():
        gymnasium.register(f"newt/{name}-v0", SINGLE, kwargs={"task": name}, vector_entry_point=VECTOR)
    gymnasium.register(ANY_TASK, SINGLE, vector_entry_point=VECTOR)


_register()
