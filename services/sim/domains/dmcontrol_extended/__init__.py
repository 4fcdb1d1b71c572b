"""DMControl extended: more tasks for the bodies of the suite, and bodies that the suite does not have.

One module per body. Each has `TASKS`, which builds an environment of dm_control for every task name; `DmControlEnv`
then plays it exactly as it plays the suite's own.
"""

from __future__ import annotations

from services.sim.domains.base import SimEnv
from services.sim.domains.dmcontrol import DmControlEnv
from services.sim.domains.dmcontrol_extended import (
    cartpole,
    cheetah,
    cup,
    giraffe,
    hopper,
    pendulum,
    reacher,
    spinner,
    walker,
)
from services.sim.domains.experts import cartpole as poles
from services.sim.domains.experts import pendulum as swings
from services.sim.domains.experts.mechanics import MakeExpert
from services.sim.domains.experts.reaching import Reach

_BODIES = (walker, cheetah, hopper, reacher, cup, pendulum, spinner, giraffe, cartpole)
TASKS = {name: build for body in _BODIES for name, build in body.TASKS.items()}
"""What builds the environment of a task, by the task's name."""

# Against the motors the joints' limits give way a little, which brings more targets into reach.
_REACH = Reach("finger", "target", frequency=25.0, yielding=0.15)
_EXPERTS: dict[str, MakeExpert] = {
    "reacher-three-easy": _REACH,
    "reacher-three-hard": _REACH,
    "pendulum-spin": swings.spin,
    "cartpole-balance-long-sparse": poles.balance,
    "cartpole-balance-two-poles-sparse": poles.balance,
}


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance of an extended task."""
    return DmControlEnv(
        task, TASKS[task](), rendering, best_score=cup.BEST_SCORES.get(task), make_expert=_EXPERTS.get(task)
    )
