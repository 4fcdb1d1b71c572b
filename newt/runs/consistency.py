"""What must fit together in a run's settings: each function refuses one kind of contradiction, naming a field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from newt.agent.config import ConfigError
from newt.runs.algorithms import ALGORITHMS, deviations
from newt.wire.limits import MAX_BATCH_BYTES, MAX_COUNT, batch_bytes

if TYPE_CHECKING:
    from newt.runs.spec import RunSpec

MAX_BATCH_ROWS = 2**20
"""Rows of one process' part of a batch: 256 published batches. More fill any GPU with activations."""

HOW_TO_HAVE_DEMOS = "name demos.sets, or set demos.scripted_episodes and include a task with a scripted expert"


def check(spec: RunSpec) -> None:
    """Raises PydanticCustomError, whose context names the field, if settings contradict each other."""
    checks = (_check_algorithm, _check_rollout, _check_schedule, _check_demos, _check_processes)
    for each in (*checks, _check_horizon, _check_sizes):
        each(spec)


def _check_algorithm(spec: RunSpec) -> None:
    name = spec.algorithm.name
    for path, value, wanted in deviations(name, spec):
        shown = ["none" if each in (None, []) else str(each).lower() for each in (value, wanted)]
        raise at(path, f"got {shown[0]}, but algorithm {name} has {shown[1]}; leave it out or choose another algorithm")
    if spec.algorithm.language and spec.algorithm.task_embedding_dim:
        raise at(
            ("algorithm", "task_embedding_dim"),
            f"got {spec.algorithm.task_embedding_dim}, but the run tells its tasks apart by language; leave it out or "
            "switch algorithm.language off",
        )
    if ALGORITHMS[name].needs_demos and not spec.has_demos():
        raise at(("algorithm", "name"), f"{name} needs demonstrations: {HOW_TO_HAVE_DEMOS}")


def _check_rollout(spec: RunSpec) -> None:
    ppo, num_envs = spec.algorithm.ppo, spec.num_envs()
    if spec.algorithm.name in ("ppo", "ppo-untuned") and ppo.rollout_steps * num_envs < 2 * ppo.minibatches:
        raise at(
            ("algorithm", "ppo"),
            f"a rollout of {ppo.rollout_steps} steps of {num_envs} envs cannot be parted into {ppo.minibatches} "
            "minibatches of at least two; raise rollout_steps or collect.envs_per_task, or lower minibatches",
        )


def _check_schedule(spec: RunSpec) -> None:
    schedule, name = spec.schedule, spec.algorithm.name
    if not ALGORITHMS[name].online:
        return
    if not schedule.total_env_steps:
        raise at(("schedule", "total_env_steps"), f"got 0, but algorithm {name} learns online; choose at least 1")
    if spec.seed_env_steps() >= schedule.total_env_steps:
        raise at(
            ("schedule", "seed_env_steps"),
            f"{spec.seed_env_steps()} steps of seeding leave nothing of total_env_steps {schedule.total_env_steps};"
            " raise the total or lower seed_env_steps",
        )
    if spec.pretrain_updates() + spec.online_updates() > MAX_COUNT:
        raise at(
            ("schedule", "updates_per_env_step"),
            f"{schedule.updates_per_env_step} over {schedule.total_env_steps} steps are more updates than can be "
            f"counted, {MAX_COUNT}; lower it or the total",
        )


def _check_demos(spec: RunSpec) -> None:
    if spec.algorithm.pretraining and not spec.has_demos():
        raise at(("algorithm", "pretraining"), f"needs demonstrations: {HOW_TO_HAVE_DEMOS}, or switch pretraining off")


def _check_processes(spec: RunSpec) -> None:
    resources, batch_size = spec.resources, spec.replay.batch_size
    if batch_size % resources.processes:
        raise at(
            ("resources", "processes"),
            f"{resources.processes} processes cannot have equal parts of replay.batch_size {batch_size}; choose a "
            "divisor of it",
        )
    if resources.processes % resources.nodes:
        raise at(
            ("resources", "nodes"),
            f"{resources.processes} processes cannot be spread evenly over {resources.nodes} nodes; choose a divisor "
            "of resources.processes",
        )
    if resources.graphs and resources.processes > 1:
        raise at(
            ("resources", "graphs"),
            f"updates of {resources.processes} processes cannot be recorded; leave it out, or train in one process",
        )


def _check_horizon(spec: RunSpec) -> None:
    if spec.train.horizon != spec.plan.horizon:
        raise at(("plan", "horizon"), f"got {spec.plan.horizon}, expected train.horizon, which is {spec.train.horizon}")
    shortest = min(task.episode_length for task in spec.task_list())
    if spec.train.horizon > shortest:
        raise at(
            ("train", "horizon"),
            f"{spec.train.horizon} is longer than the shortest episode of these tasks, {shortest} steps",
        )


def _check_sizes(spec: RunSpec) -> None:
    """What replay, planners and the hub would refuse later."""
    try:
        spec.model_settings()
    except ConfigError as error:  # fits without the features of images
        raise at(("model",), str(error)) from error
    try:
        spec.plan.check_memory(spec.model_settings())
    except ConfigError as error:
        raise at(("plan", "num_samples"), str(error)) from error
    longest = spec.longest_episode()
    if spec.replay.capacity_rows <= longest:
        raise at(
            ("replay", "capacity_rows"),
            f"{spec.replay.capacity_rows} rows cannot hold one episode of these tasks, {longest + 1} rows",
        )
    part, horizon = spec.replay.batch_size // spec.resources.processes, spec.train.horizon
    columns = max(task.obs_dim + task.action_dim for task in spec.task_list()) + spec.image_dim()
    rows, size = part * (horizon + 1), batch_bytes(part, horizon, columns)
    if rows > MAX_BATCH_ROWS or size > MAX_BATCH_BYTES:
        raise at(
            ("replay", "batch_size"),
            f"a process' part, {part} sequences of horizon {horizon}, has {rows:,} rows of {size:,} bytes in all, more "
            f"than {MAX_BATCH_ROWS:,} rows or {MAX_BATCH_BYTES:,} bytes; lower it or train.horizon",
        )


def at(path: tuple[str, ...], message: str) -> PydanticCustomError:
    """An error of the whole model that names the field it is about."""
    field = ".".join(path)
    return PydanticCustomError("inconsistent", "{field}: {message}", {"field": field, "message": message})
