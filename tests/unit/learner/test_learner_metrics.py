from __future__ import annotations

from prometheus_client import REGISTRY

from newt.runs.record import EpisodeStats, Evaluation, Progress, TaskProgress
from services.learner import metrics


def value(metric: str, /, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"newt_learner_{metric}", labels)


def progress(score: float | None, loss: float) -> Progress:
    return Progress(
        env_steps=10, updates=3, losses={"value": loss}, tasks={"walker-walk": TaskProgress(last_score=score)}
    )


def test_several_runs_are_summed_or_averaged() -> None:
    stats = EpisodeStats(score=0.5, return_=1.0, length=100, episodes=1)
    evaluation = Evaluation(kind="periodic", mode="planner", env_steps=0, tasks={"mw-push": stats})
    domains = {"walker-walk": "dmcontrol", "mw-push": "metaworld"}
    metrics.show_progress([progress(0.2, 1.0), progress(0.4, 3.0)], [evaluation], domains)
    assert value("env_steps") == 20
    assert value("updates") == 6
    assert value("loss", name="value") == 2.0
    score = value("task_score", domain="dmcontrol", task="walker-walk")
    assert score is not None
    assert abs(score - 0.3) < 1e-9
    assert value("evaluation_score", domain="metaworld", task="mw-push") == 0.5


def test_ages_are_averaged_over_those_that_are_known() -> None:
    metrics.show_progress([Progress(weights_age_s=1.0, updates_behind=4), Progress(weights_age_s=3.0), Progress()], [])
    assert (value("weights_age_seconds"), value("updates_behind"), value("weights_age_updates")) == (2.0, 4.0, 0.0)
    metrics.show_progress([], [])
    assert value("weights_age_seconds") == 0.0


def test_series_that_go_on_are_never_away() -> None:
    """Whoever scrapes in the middle of an update would see a gap if they were made anew."""
    domains = {"walker-walk": "dmcontrol"}
    metrics.show_progress([progress(0.2, 1.0)], [], domains)
    shown = [metrics.LOSS.labels("value"), metrics.TASK_SCORE.labels("dmcontrol", "walker-walk")]
    metrics.show_progress([progress(0.4, 2.0)], [], domains)
    assert [metrics.LOSS.labels("value"), metrics.TASK_SCORE.labels("dmcontrol", "walker-walk")] == shown
    assert (value("loss", name="value"), value("task_score", domain="dmcontrol", task="walker-walk")) == (2.0, 0.4)


def test_what_nobody_trains_is_not_shown() -> None:
    metrics.show_progress([progress(0.2, 1.0)], [], {"walker-walk": "dmcontrol"})
    assert value("task_score", domain="dmcontrol", task="walker-walk") == 0.2
    metrics.show_progress([progress(None, 1.0)], [])
    assert value("task_score", domain="dmcontrol", task="walker-walk") is None
    metrics.show_progress([], [])
    assert value("loss", name="value") is None
    assert value("env_steps") == 0
