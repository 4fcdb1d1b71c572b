"""How a checkpoint's agent acts: with the planner, or by its policy if it was trained to, or has nothing else."""

from __future__ import annotations

from newt.acting import trained as acting
from newt.acting.plans import ActMode
from newt.errors import InvalidInputError
from services.learner.checkpoints.files import AnyHeader, plans


def trained_mode(header: AnyHeader) -> ActMode:
    """`planner` or `policy`, as the agent acted in its run; the planner for a checkpoint that does not tell."""
    return acting.trained_mode(header.info, plans=plans(header))


def check_mode(header: AnyHeader, mode: str) -> None:
    """Raises InvalidInputError if an agent without a world model is asked to plan."""
    if not plans(header) and mode != "policy":
        raise InvalidInputError(
            "mode", f"got {mode}, but the checkpoint's agent has a policy only and no world model; choose policy"
        )
