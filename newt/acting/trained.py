"""How an agent acts outside of its run: as training had it act by then. Read from headers, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from newt.acting.plans import ActMode
from newt.agent.config import PlanConfig
from newt.agent.constraint import Guidance
from newt.runs.facts import read_facts
from newt.runs.spec import RunSpec
from newt.runs.stored import read
from newt.tasks.registry import table_tasks

if TYPE_CHECKING:
    from newt.agent.checkpoints import Checkpoint


def as_trained(checkpoint: Checkpoint, tasks: Sequence[str]) -> tuple[PlanConfig, Guidance]:
    """Planning settings and guidance for some tasks.

    A task that the agent was never trained on is guided if any of its own is: there as well the policy has its say, as
    at the beginning of a run that fine-tunes the agent on it (arXiv 2511.19584, zero-shot).

    Args:
        checkpoint: The agent. One that names no planning settings, as published ones, has the published settings, and
            is planned for freely, because nobody knows how far it had come.
        tasks: What it is to do.
    """
    info = checkpoint.info
    plan = (info.get("spec") or {}).get("plan")
    config = PlanConfig.from_dict(plan) if plan else PlanConfig()
    guidance = Guidance.from_info(info)
    if guidance.guided_tasks is None:
        # Version 0.1.0 constrained by run: all tasks of one that had a policy to start with, or none.
        guidance = replace(guidance, guided_tasks=frozenset(checkpoint.table.names if _had_policy(info) else ()))
    guided = guidance.guided_tasks or frozenset()
    unseen = set(tasks) - set(checkpoint.table.names) if guided else set()
    return config, replace(guidance, guided_tasks=guided | unseen)


def trained_mode(info: Mapping[str, Any], *, plans: bool) -> ActMode:
    """`planner` or `policy`, as the agent acted in its run; the planner for weights that do not tell.

    Args:
        info: Of a checkpoint or of published weights.
        plans: Whether the agent has a world model.
    """
    if not plans:
        return "policy"
    algorithm = (info.get("spec") or {}).get("algorithm")
    acts_by_policy = isinstance(algorithm, dict) and algorithm.get("planning") is False
    told: ActMode | None = info.get("trained_mode")
    return told or ("policy" if acts_by_policy else "planner")


def trained_obs_dims(info: Mapping[str, Any], tasks: Sequence[str]) -> tuple[int, ...]:
    """Valid observation columns of an agent's tasks; 0 where nobody knows.

    Args:
        info: Of a checkpoint or of published weights.
        tasks: Names, in the order of the task table.
    """
    told = info.get("obs_dims")
    if told is not None and len(told) == len(tasks):
        return tuple(told)
    known = {name: task.obs_dim for name, task in table_tasks().items()}
    with suppress(ValidationError):  # facts that a stranger wrote
        known |= {task.name: task.obs_dim for task in read_facts(info.get("task_facts"))}
    return tuple(known.get(name, 0) for name in tasks)


def _had_policy(info: Mapping[str, Any]) -> bool:
    try:
        return read(RunSpec, info.get("spec")).starts_with_policy()
    except ValidationError:  # no run's, or of tasks that are not registered here
        return False
