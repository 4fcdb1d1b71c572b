"""The algorithms that a run can use: what each is, what its name fixes, and what it needs.

A name works like a preset: `overlay` gives the values that unnamed settings take. Unlike a preset's, the fixed ones
cannot be changed, for the name would be wrong; `docs/algorithms.md` describes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from newt.baselines.config import UNTUNED_PPO

AlgorithmName = Literal["newt", "tdmpc2", "model-based-pretraining", "bc", "ppo", "ppo-untuned", "fasttd3"]

TASK_EMBEDDING_DIM = 96
"""Width of TD-MPC2's learned task vectors (its config.yaml)."""


@dataclass(frozen=True)
class Algorithm:
    """What an algorithm's name means for a run's settings.

    Attributes:
        summary: What it is, in a few words.
        fixed: Dotted path of a setting to the only value that it can have.
        defaults: Likewise to the value that it has unless the request says otherwise.
        needs_demos: It cannot learn without demonstrations.
        model_free: It learns in the process that steps the simulators, without replay service and planner.
        online: It takes env steps; one that does not learns from demonstrations alone.
        policy_only: Its agent has no world model.
        task_embedding_dim: Width of the task vectors that it learns by default, where it trains several tasks.
    """

    summary: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs_demos: bool = False
    online: bool = True
    model_free: bool = False
    policy_only: bool = False
    task_embedding_dim: int = 0


_NO_DEMOS = {"demos.sets": [], "demos.scripted_episodes": 0, "algorithm.pretraining": False}
_DEMOS_ALONE = {
    "algorithm.pretraining": True,
    "algorithm.planning": False,
    "schedule.total_env_steps": 0,
    "schedule.seed_env_steps": 0,
    "init_from": None,
}
_MODEL_FREE = {
    **_NO_DEMOS,
    "algorithm.planning": False,
    "obs": "state",
    "init_from": None,
    "schedule.seed_env_steps": 0,
    "resources.processes": 1,
    "resources.compile": False,
    "resources.graphs": False,
}

ALGORITHMS: dict[AlgorithmName, Algorithm] = {
    "newt": Algorithm("the method of the paper: language, pretraining on demonstrations, cloning, planning"),
    "tdmpc2": Algorithm(
        "online TD-MPC2, multitask or single-task: no language, pretraining, demonstrations or cloning",
        fixed={
            **_NO_DEMOS,
            "algorithm.language": False,
            "train.bc_coef": 0.0,
            "plan.constrained": False,
            "init_from": None,
        },
        task_embedding_dim=TASK_EMBEDDING_DIM,
    ),
    "model-based-pretraining": Algorithm(
        "the first phase of newt alone, acting with the policy",
        fixed=_DEMOS_ALONE,
        needs_demos=True,
        online=False,
    ),
    "bc": Algorithm(
        "behaviour cloning: one encoder and one policy, no world model",
        fixed=_DEMOS_ALONE,
        needs_demos=True,
        online=False,
        policy_only=True,
    ),
    "ppo": Algorithm("PPO as the paper tuned it", fixed=_MODEL_FREE, model_free=True),
    "ppo-untuned": Algorithm(
        "PPO with the settings of its upstream",
        fixed=_MODEL_FREE,
        defaults={f"algorithm.ppo.{name}": value for name, value in UNTUNED_PPO.to_dict().items()},
        model_free=True,
    ),
    "fasttd3": Algorithm("FastTD3 with language", fixed=_MODEL_FREE, model_free=True),
}
assert list(ALGORITHMS) == list(get_args(AlgorithmName))


def overlay(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the algorithm that a request names gives its unnamed settings, nested like a run's settings.

    Args:
        request: The request; names of no algorithm give nothing (validation refuses them later).
    """
    section = request.get("algorithm")
    name = section.get("name", "newt") if isinstance(section, Mapping) else "newt"
    values: dict[str, Any] = {}
    if isinstance(name, str) and (algorithm := _named(name)):
        for path, value in {**algorithm.defaults, **algorithm.fixed}.items():
            *above, last = path.split(".")
            below = values
            for part in above:
                below = below.setdefault(part, {})
            below[last] = value
    return values


def deviations(name: AlgorithmName, settings: object) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Settings that are not what the algorithm fixes.

    Args:
        name: Name of the algorithm.
        settings: A validated run spec.

    Yields:
        The path of a setting, its value, and the only one that it can have.
    """
    for path, wanted in ALGORITHMS[name].fixed.items():
        parts = tuple(path.split("."))
        value: Any = settings
        for part in parts:
            value = getattr(value, part)
        if value != wanted:
            yield parts, value, wanted


def _named(name: str) -> Algorithm | None:
    return next((algorithm for known, algorithm in ALGORITHMS.items() if known == name), None)
