"""Facts of a declared task, as everybody else knows it."""

from __future__ import annotations

from newt.own import OwnTask, Success
from newt.tasks.discounts import discount
from newt.tasks.registry import Task
from services.sim.domains.own.adapter import OwnEnv

DOMAIN = "own"


def facts(own: OwnTask, digest: str, env: OwnEnv) -> Task:
    """The facts: those of the declaration, and what the environment and its code bring."""
    return Task(
        name=own.name,
        domain=DOMAIN,
        obs_dim=env.observation.dim,
        action_dim=env.action.dim,
        episode_length=own.episode_length,
        action_repeat=1,
        has_success=isinstance(own.score, Success),
        has_expert=own.expert is not None,
        discount=discount(own.episode_length, own.discount),
        embodiment=own.embodiment.strip(),
        goal=own.goal.strip(),
        score_rule="none: always 0" if own.score is None else str(own.score),
        digest=digest,
        steps_per_s=env.steps_per_s,
    )
