"""Presets: values that a run starts from. What a request says explicitly always wins.

`default` is the published training run. `better` is the same with what was shown to help, on two cores and at the same
number of env steps (docs/results.md); nobody has trained it at its own scale. `laptop` is the algorithm of `default` on
two CPU cores in minutes: every schedule of the published run (seeding, constrained planning, evaluation) is scaled to
the run's own total.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from newt.wire.limits import MAX_COUNT

PresetName = Literal["default", "better", "laptop"]
LAPTOP_ENV_STEPS = 40_000
_PUBLISHED: Mapping[str, Any] = {"train": {"warmup_updates": 5_000}}
_SHOWN_TO_HELP: Mapping[str, Any] = {"model": {"obs_scaling": "per_task"}, "train": {"pretrain_bc_coef": 10.0}}


def overlay(preset: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's values for this request, nested like a run's settings.

    Args:
        preset: A name of a preset; unknown names give nothing (validation refuses them later).
        request: The request; a preset may scale its values to the total number of environment steps.
    """
    values = _values(preset, request)
    if request.get("init_from") is None:
        return values
    # Fine-tuning: the model is the checkpoint's, and no demonstrations are needed.
    return {**{name: value for name, value in values.items() if name != "model"}, "demos": {"scripted_episodes": 0}}


def _values(preset: str, request: Mapping[str, Any]) -> dict[str, Any]:
    if preset == "laptop":
        schedule = request.get("schedule")
        total = schedule.get("total_env_steps") if isinstance(schedule, Mapping) else None
        # Any other is refused later, by its own name.
        return _laptop(total if isinstance(total, int) and 0 < total <= MAX_COUNT else LAPTOP_ENV_STEPS)
    # Warm-up belongs to pretraining; runs without it ignore the value.
    return merged(_PUBLISHED, _SHOWN_TO_HELP if preset == "better" else {})


def _laptop(total: int) -> dict[str, Any]:
    return {
        "model": {"size": "XS"},
        # A few thousand updates instead of millions: larger steps, and no slower encoder.
        "train": {"warmup_updates": 100, "lr": 1e-3, "encoder_lr_factor": 1.0},
        "plan": {
            "num_samples": 96,
            "num_policy_trajectories": 12,
            "num_elites": 16,
            "iterations": 3,
            # The published run lets go of its policy between 150,000 and 900,000 updates. A run as short as this one
            # stays with it to the end: its critic has not seen enough to be followed alone.
            "constraint_start": total,
            "constraint_duration": total,
        },
        "schedule": {
            "total_env_steps": total,
            "seed_env_steps": total // 10,
            "pretrain_updates": 2_000,
            "updates_per_env_step": 0.2,
            "eval_every_env_steps": 0,
            "checkpoint_every_updates": 500,
            "publish_every_s": 1.0,
        },
        # Task-balanced: with few updates, tasks with long (and therefore few) episodes would hardly be seen.
        "replay": {"capacity_rows": 500_000, "batch_size": 128, "sampler": "task_balanced"},
        "demos": {"scripted_episodes": 10},
        "evaluation": {"episodes_per_task": 4, "videos": True},
    }


def merged(base: Mapping[str, Any], wins: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; where both have a value, `wins` has it."""
    result = dict(base)
    for key, value in wins.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
