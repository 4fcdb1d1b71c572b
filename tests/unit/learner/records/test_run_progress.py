from __future__ import annotations

from newt.runs.record import Computing, EpisodeStats, Evaluation, Progress, RunResults, RunState
from newt.runs.spec import RunSpec
from services.learner.records.progress import CollectorProgress, Pacing, TrainerProgress, merge
from services.learner.seeds import derive

SPEC = RunSpec.model_validate(
    {
        "tasks": ["mw-reach"],
        "schedule": {
            "total_env_steps": 1100,
            "seed_env_steps": 100,
            "pretrain_updates": 50,
            "updates_per_env_step": 0.1,
        },
    }
)


def _merge(state: RunState, trainer: TrainerProgress, collector: CollectorProgress) -> Progress:
    return merge(SPEC, state, trainer, collector, weights_version=3, restarts=1)


def test_both_processes_are_heard() -> None:
    progress = _merge(
        RunState.PRETRAINING,
        TrainerProgress(stage="pretraining", waiting_on="replay: down"),
        CollectorProgress(stage="evaluating the random policy", waiting_on="planner: down"),
    )
    assert progress.stage == "pretraining; evaluating the random policy"
    assert progress.waiting_on == "replay: down; planner: down"
    assert (progress.total_env_steps, progress.total_pretrain_updates, progress.total_updates) == (1100, 50, 100)


def test_the_estimate_follows_the_slower_side() -> None:
    trainer = TrainerProgress(pretrain_updates=50, updates=20, updates_per_s=4.0)
    slow_updates = _merge(RunState.TRAINING, trainer, CollectorProgress(env_steps=600, env_steps_per_s=100.0))
    slow_steps = _merge(RunState.TRAINING, trainer, CollectorProgress(env_steps=600, env_steps_per_s=10.0))
    assert (slow_updates.eta_s, slow_steps.eta_s) == (20.0, 50.0)


def test_nothing_is_estimated_without_a_rate() -> None:
    assert _merge(RunState.PRETRAINING, TrainerProgress(), CollectorProgress()).eta_s is None


def test_pacing_is_shown_while_the_run_goes_on() -> None:
    trainer = TrainerProgress(pacing=Pacing(updates_behind=2.5, weights_age_updates=40))
    progress = _merge(RunState.TRAINING, trainer, CollectorProgress())
    assert (progress.updates_behind, progress.weights_age_updates, progress.weights_age_s) == (2.5, 40, None)
    assert _merge(RunState.SUCCEEDED, trainer, CollectorProgress()).updates_behind is None


def test_what_a_run_trains_on_is_known_once_it_was_told() -> None:
    before = TrainerProgress.parse('{"updates": 3}')  # as versions before stored it
    assert _merge(RunState.TRAINING, before, CollectorProgress()).computing is None
    told = TrainerProgress(computing=Computing(device="cuda:0", precision="tf32", warning="slow"))
    later = told.model_dump_json().replace('"compiled"', '"watts":700,"compiled"')
    for state in (RunState.TRAINING, RunState.SUCCEEDED):
        progress = _merge(state, TrainerProgress.parse(later), CollectorProgress())
        assert progress.computing is not None
        fields = (progress.computing.device, progress.computing.precision, progress.computing.compiled)
        assert fields == ("cuda:0", "tf32", False)


def test_a_finished_run_waits_for_nobody() -> None:
    trainer = TrainerProgress(stage="training", waiting_on="replay", updates_per_s=5.0)
    progress = _merge(RunState.CANCELLED, trainer, CollectorProgress(env_steps_per_s=9.0))
    assert (progress.stage, progress.waiting_on, progress.eta_s) == ("cancelled", None, 0.0)
    assert (progress.updates_per_s, progress.env_steps_per_s) == (0.0, 0.0)


def test_results_hold_the_three_milestones() -> None:
    def evaluation(kind: str, score: float) -> Evaluation:
        stats = EpisodeStats(score=score, return_=10 * score, success=None, length=5, episodes=2)
        return Evaluation.model_validate(
            {"kind": kind, "mode": "planner", "env_steps": 0, "tasks": {"mw-reach": stats}}
        )

    evaluations = [evaluation("random", 0.1), evaluation("periodic", 0.3), evaluation("final", 0.9)]
    results = RunResults.build("run-1", RunState.SUCCEEDED, ["mw-reach"], evaluations, {})
    row = results.model_dump(mode="json")["tasks"]["mw-reach"]
    assert row["final"] == {
        "score": 0.9,
        "return": 9.0,
        "corrected_score": 0.9,
        "score_std": None,
        "success": None,
        "length": 5.0,
        "episodes": 2,
    }
    assert (row["random"]["score"], row["pretrained"]) == (0.1, None)
    assert results.mean_score.model_dump() == {"random": 0.1, "pretrained": None, "final": 0.9, "final_policy": None}
    assert len(results.evaluations) == 3


def test_means_are_of_the_corrected_scores() -> None:
    stats = {"return": 5, "length": 5, "episodes": 1}
    tasks = {"cup-spin": {"score": 0.4, "corrected_score": 0.5, **stats}, "mw-reach": {"score": 1.0, **stats}}
    evaluation = Evaluation.model_validate({"kind": "final", "mode": "planner", "env_steps": 0, "tasks": tasks})
    assert evaluation.tasks["mw-reach"].corrected_score == 1.0  # A record of before there were any.
    results = RunResults.build("run-1", RunState.SUCCEEDED, list(tasks), [evaluation], {})
    assert results.mean_score.final == 0.75
    assert results.tasks["cup-spin"].final == evaluation.tasks["cup-spin"]
    assert evaluation.tasks["cup-spin"].score == 0.4


def test_a_task_that_could_not_be_played_leaves_no_mean_of_the_others() -> None:
    stats = {"score": 1.0, "return": 5, "length": 5, "episodes": 1}
    evaluation = Evaluation.model_validate(
        {"kind": "final", "mode": "planner", "env_steps": 0, "tasks": {"mw-reach": stats}}
    )
    results = RunResults.build("run-1", RunState.SUCCEEDED, ["cup-spin", "mw-reach"], [evaluation], {})
    assert results.mean_score.final is None
    final = results.tasks["mw-reach"].final
    assert final is not None
    assert final.score == 1.0


def test_seeds_depend_on_every_part() -> None:
    seeds = [derive(1, "a", 2), derive(1, "a", 3), derive(1, "b", 2), derive(2, "a", 2), derive("a", 1, 2)]
    assert len(set(seeds)) == len(seeds)
    assert derive(1, "a", 2) == seeds[0]
    assert all(0 <= seed < 2**63 for seed in seeds)
