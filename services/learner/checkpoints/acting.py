"""How a checkpoint's agent acts outside of its run: as training had it act by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from newt.agent.checkpoints import Checkpoint
from newt.agent.config import PlanConfig
from newt.agent.constraint import Guidance
from newt.runs.spec import RunSpec


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


def _had_policy(info: Mapping[str, Any]) -> bool:
    try:
        return RunSpec.model_validate(info.get("spec")).starts_with_policy()
    except ValidationError:  # no run's, or of tasks that are not registered here
        return False
