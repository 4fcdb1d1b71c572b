"""Prometheus metrics of the learner."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Mapping

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from newt.runs.record import Evaluation, Progress, RunState
from newt.wire.metrics import LATENCY_BUCKETS, from_zero
from services.learner.measured import Totals

RUNS = Gauge("newt_learner_runs", "Runs by state.", ["state"])
BROKEN_RECORDS = Gauge("newt_learner_broken_records", "Stored records that cannot be read, by kind.", ["kind"])
SIM_NEEDED = Gauge("newt_learner_sim_needed", "1 while runs or evaluations need a simulator service.", ["service"])
DATA_USED = Gauge("newt_learner_data_used_ratio", "How full the volume of the data folder is, from 0 to 1.")
RESTARTS = from_zero(
    Counter("newt_learner_process_restarts_total", "Crashed processes that were restarted.", ["role"]),
    ("trainer", "collector", "learning"),
)
PLAYS = Gauge("newt_learner_plays", "Plays under way.")
PLAYS_ENDED = from_zero(
    Counter(
        "newt_learner_plays_ended_total",
        "Plays that ended: they were told to, nobody watched, no command came, they failed, the learner stopped.",
        ["reason"],
    ),
    ("told", "unwatched", "idle", "failed", "stopped"),
)
REQUESTS = Histogram(
    "newt_learner_http_request_seconds",
    "REST requests by route; of an event stream, the time to its first byte.",
    ["method", "route", "status"],
    buckets=LATENCY_BUCKETS,
)
ENV_STEPS_RATE = Gauge("newt_learner_env_steps_per_second", "Env steps per second, over all active runs.")
UPDATES_RATE = Gauge("newt_learner_updates_per_second", "Updates per second, over all active runs.")
UPDATES_BEHIND = Gauge(
    "newt_learner_updates_behind",
    "Updates that the env steps taken have earned and that are not done, mean over the active runs.",
)
WEIGHTS_AGE_UPDATES = Gauge(
    "newt_learner_weights_age_updates",
    "Updates done since the weights were made that choose the actions, mean over the active runs.",
)
WEIGHTS_AGE = Gauge(
    "newt_learner_weights_age_seconds",
    "Age of the weights that choose the actions, at the latest update, mean over the active runs.",
)
CHECKPOINT_AGE = Gauge(
    "newt_learner_checkpoint_age_seconds",
    "Age of the newest checkpoint, or of the run where there is none yet: of the active run that would lose most.",
)
MEASURED = Totals()
REGISTRY.register(MEASURED)
ENV_STEPS = Gauge("newt_learner_env_steps", "Env steps stored so far, over all active runs.")
UPDATES = Gauge("newt_learner_updates", "Updates so far, pretraining included, over all active runs.")
LOSS = Gauge("newt_learner_loss", "Latest training metrics, mean over the active runs.", ["name"])
DIVERGED = Counter("newt_learner_diverged_runs_total", "Runs that ended because a loss became NaN or infinite.")
# Tasks are as many as the registry has; runs are unbounded, so the tasks of several runs are averaged.
TASK_SCORE = Gauge(
    "newt_learner_task_score",
    "Score in [0, 1] of the latest training episode, mean over the active runs.",
    ["domain", "task"],
)
EVALUATION_SCORE = Gauge(
    "newt_learner_evaluation_score",
    "Score in [0, 1] in the latest evaluation, mean over the active runs.",
    ["domain", "task"],
)


def show_states(states: Iterable[RunState]) -> None:
    """Sets the number of runs in every state."""
    counts = Count(states)
    for state in RunState:
        RUNS.labels(state.value).set(counts[state])


def show_needed(services: Mapping[str, bool]) -> None:
    """Sets which simulator services are needed.

    Args:
        services: By name of the service; all that the learner knows.
    """
    for service, needed in services.items():
        SIM_NEEDED.labels(service).set(needed)


def show_progress(
    runs: Iterable[Progress], evaluations: Iterable[Evaluation], domains: Mapping[str, str] | None = None
) -> None:
    """Sets rates, counts, losses and scores.

    Args:
        runs: Progress of all active runs.
        evaluations: The latest one of each active run that has one.
        domains: Domain of each of their tasks.
    """
    active = list(runs)
    ENV_STEPS_RATE.set(sum(progress.env_steps_per_s for progress in active))
    UPDATES_RATE.set(sum(progress.updates_per_s for progress in active))
    ENV_STEPS.set(sum(progress.env_steps for progress in active))
    UPDATES.set(sum(progress.pretrain_updates + progress.updates for progress in active))
    for gauge, ages in (
        (UPDATES_BEHIND, [progress.updates_behind for progress in active]),
        (WEIGHTS_AGE_UPDATES, [progress.weights_age_updates for progress in active]),
        (WEIGHTS_AGE, [progress.weights_age_s for progress in active]),
    ):
        known = [age for age in ages if age is not None]
        gauge.set(sum(known) / len(known) if known else 0.0)
    losses = [(name, value) for progress in active for name, value in progress.losses.items()]
    _show(LOSS, {(name,): value for name, value in _means(losses).items()})
    trained = [
        (task, seen.last_score)
        for progress in active
        for task, seen in progress.tasks.items()
        if seen.last_score is not None
    ]
    evaluated = [(task, stats.score) for evaluation in evaluations for task, stats in evaluation.tasks.items()]
    for gauge, scores in ((TASK_SCORE, trained), (EVALUATION_SCORE, evaluated)):
        _show(gauge, {((domains or {}).get(task, ""), task): score for task, score in _means(scores).items()})


def _show(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Sets a gauge's series, and then ends all others: whoever scrapes meanwhile finds none missing that goes on."""
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    shown = {tuple(sample.labels.values()) for metric in gauge.collect() for sample in metric.samples}
    for labels in shown - values.keys():
        gauge.remove(*labels)


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
