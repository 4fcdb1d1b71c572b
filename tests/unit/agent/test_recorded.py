"""Updates and plans that are recorded and replayed equal those that Python starts operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from host_reads import host_reads
from small_agents import build_batch, build_model
from structlog.testing import capture_logs
from tape import Tape
from torch import Tensor

from newt.agent.compilation import CompiledInferenceModel
from newt.agent.config import ConfigError, PlanConfig, TrainConfig
from newt.agent.distributed import Ranks
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner, PlanResult
from newt.agent.planning_checks import check_plan_inputs
from newt.agent.recorded import WARM_UPS, Recorded, Recorder, Rehearsal, Tensors, recorder_for
from newt.agent.update import Updater, read_metrics

PLAN = PlanConfig(num_samples=48, num_policy_trajectories=6, num_elites=8, iterations=3)
CPU = torch.device("cpu")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=[Tape, Rehearsal])
def recorder(request: pytest.FixtureRequest) -> Recorder:
    made: Recorder = request.param()
    return made


@pytest.fixture
def _passes_of_four_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CPU_SAMPLES_PER_PASS", "_GPU_SAMPLES_PER_PASS"):
        monkeypatch.setattr(f"newt.agent.planning.{name}", 4 * PLAN.num_samples)


def numbered(recorder: Recorder, work: Callable[[Tensors], Tensors]) -> Callable[[float], Tensor]:
    recorded = Recorded("work", work, {"x": torch.zeros(3)}, recorder)
    return lambda number: recorded({"x": torch.full((3,), number)})["y"]


def test_results_lie_where_they_lay_and_inputs_are_copied(recorder: Recorder) -> None:
    total = torch.zeros(())

    def work(given: Tensors) -> Tensors:
        total.add_(given["x"].sum())
        return {"y": given["x"].view(1, 3) * 2}

    recorded = Recorded("work", work, {"x": torch.zeros(3)}, recorder)
    results = []
    for number in range(WARM_UPS + 3):
        assert recorded.ready is (number > WARM_UPS)
        x = torch.full((3,), float(number))
        results.append(recorded({"x": x})["y"])
        x.fill_(99)
        assert results[-1].tolist() == [[2.0 * number] * 3]
    assert results[-1] is results[-2]
    assert float(total) == 3 * sum(range(WARM_UPS + 3))  # done once per call, also when it is recorded
    assert recorded({"x": torch.tensor([7.0])})["y"].tolist() == [[14.0, 8.0, 8.0]]  # the other rows stay


def test_the_tape_forgets_what_python_decides() -> None:
    """Else it would not find what goes wrong on a GPU."""
    count = 0

    def work(given: Tensors) -> Tensors:
        nonlocal count
        count += 1
        return {"y": given["x"] * 0 + count}

    call = numbered(Tape(), work)
    assert [float(call(0.0)[0]) for _ in range(WARM_UPS + 3)] == [*range(1, WARM_UPS + 1), *[WARM_UPS + 1] * 3]


def test_what_cannot_be_recorded_goes_on_as_it_began() -> None:
    call = numbered(Tape(), lambda given: {"y": given["x"] * given["x"].sum().item()})
    with capture_logs() as logs:
        values = [float(call(number)[0]) for number in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert values == [3.0, 12.0, 27.0, 48.0, 75.0]
    assert [entry["event"] for entry in logs] == ["not_recorded"]
    assert "_local_scalar_dense" in str(logs[0]["exc_info"])


def test_a_cpu_rehearses() -> None:
    assert isinstance(recorder_for(CPU), Rehearsal)


# ---- plans


def plan(planner: Planner, rows: int, seed: int = 0, **options: Any) -> PlanResult:
    generator = torch.Generator().manual_seed(seed)
    obs, task = torch.randn(rows, 10, generator=generator), (torch.arange(rows) + seed) % 4
    given = {
        "prev_mean": torch.rand(rows, 3, 4, generator=generator) - 0.5,
        "first": torch.arange(rows) % 3 == 0,
        "constraint_weight": torch.rand(rows, generator=generator),
        "explore": torch.arange(rows) % 2 == 0,
        **options,
    }
    return planner.plan(obs, task, seeds=torch.arange(rows) + 100 * seed, **given)


def assert_same(one: PlanResult, other: PlanResult) -> None:
    for name in vars(one):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.usefixtures("_passes_of_four_rows")
def test_recorded_plans_equal_others(recorder: Recorder, gather: bool) -> None:
    if not gather and isinstance(recorder, Tape):
        pytest.skip("critics chosen on the CPU are read there")
    model = InferenceModel.from_model(build_model(), gather=gather)
    plain, planner = Planner(model, PLAN), Planner(model, PLAN, recorder)
    with capture_logs() as logs:
        for seed in range(WARM_UPS + 2):
            for rows in (1, 11):
                assert_same(plan(planner, rows, seed), plan(plain, rows, seed))
    assert {entry["event"] for entry in logs} == {"recorded"}
    assert planner.unrecorded(most=256) == [2]  # 11 are 4, 4 and 3, which take the recording of 4
    assert planner.unrecorded(most=1) == []


@pytest.mark.usefixtures("_passes_of_four_rows")
def test_plans_of_another_horizon_or_by_given_noise(recorder: Recorder) -> None:
    model = InferenceModel.from_model(build_model(), gather=True)
    plain, planner = Planner(model, PLAN), Planner(model, PLAN, recorder)
    for seed in range(WARM_UPS + 2):
        options = {"prev_mean": None, "horizon": 2}
        assert_same(plan(planner, 2, seed, **options), plan(plain, 2, seed, **options))
    noise = plain._draws.plan(torch.arange(5), 3)
    assert_same(plan(planner, 5, noise=noise), plan(plain, 5))


@pytest.mark.usefixtures("_passes_of_four_rows")
def test_a_replayed_plan_reads_nothing_and_gives_tensors_of_its_own() -> None:
    planner = Planner(InferenceModel.from_model(build_model(), gather=True), PLAN, Tape())
    for seed in range(WARM_UPS + 1):
        first = plan(planner, 4, seed)
    kept = first.action.clone()
    obs, task, seeds = torch.randn(4, 10), torch.arange(4), torch.arange(4)
    inputs = check_plan_inputs(planner.model, obs, task, seeds, None, None, True, 0.5, None, horizon=3)
    assert planner.recorder is not None
    with torch.inference_mode(), host_reads() as reads:
        planner._replay(inputs, seeds, planner.recorder)
    assert reads == []
    plan(planner, 4, seed=9)
    assert torch.equal(first.action, kept)
    first.action.add_(1)  # no tensor of inference mode


@pytest.mark.usefixtures("_passes_of_four_rows")
def test_weights_are_loaded_into_what_was_recorded() -> None:
    first, second = (InferenceModel.from_model(build_model(seed), gather=True) for seed in (1, 2))
    tape = Tape()
    planner = Planner(first, PLAN, tape)
    for seed in range(WARM_UPS + 2):
        before = plan(planner, 4, seed)
    recorded = tape.recorded
    first.load(second)
    after, expected = plan(planner, 4, seed), plan(Planner(second, PLAN), 4, seed)
    assert_same(after, expected)
    assert not torch.allclose(after.value, before.value, rtol=1e-2)
    assert tape.recorded == recorded
    assert first.table is second.table
    other = InferenceModel.from_model(build_model(3, mlp_dim=48), gather=True)
    kept = [tensor.clone() for tensor in first.tensors()]
    with pytest.raises(ValueError, match="same shapes"):
        first.load(other)
    assert all(torch.equal(one, two) for one, two in zip(kept, first.tensors(), strict=True))


@pytest.mark.usefixtures("_passes_of_four_rows")
def test_plans_are_recorded_anew_when_there_is_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledInferenceModel, "backend", "eager")
    model = CompiledInferenceModel.from_model(build_model(), gather=True)
    assert isinstance(model, CompiledInferenceModel)
    model.generated.clear()
    planner = Planner(model, PLAN, rehearsal := Rehearsal())
    for seed in range(WARM_UPS + 1):
        plan(planner, 4, seed)
    assert planner.recorder is rehearsal
    assert planner.unrecorded(4) == [1, 2]
    model.generated.set()
    assert planner.unrecorded(4) == [1, 2, 4]
    for seed in range(WARM_UPS + 1):
        plan(planner, 4, seed)
    assert planner.unrecorded(4) == [1, 2]


# ---- updates


def train(updater: Updater, updates: int, device: str = "cpu") -> list[dict[str, float]]:
    seen = []
    for seed in range(updates):
        batch = build_batch(updater.model, seed=seed).to(device)
        pretrain = updater.pretrain_update if seed < updates // 2 else updater.rl_update
        seen.append(pretrain(batch))
    return [read_metrics(metrics) for metrics in seen]  # at the end: no update writes over another one's


def assert_same_training(one: Updater, other: Updater) -> None:
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-5, msg=name)


MODELS: list[dict[str, Any]] = [{}, {"image_dim": 5}, {"learned_embeddings": True, "obs_scaling": "per_task"}]
"""Kinds of models whose updates differ in what they do."""


@pytest.mark.parametrize("overrides", MODELS)
@pytest.mark.parametrize("value_scale", ["shared", "per_task"])
def test_recorded_updates_equal_others(recorder: Recorder, value_scale: Any, overrides: dict[str, Any]) -> None:
    config = TrainConfig(warmup_updates=6, value_scale=value_scale)
    plain, recorded = (Updater(build_model(**overrides), config, seed=3) for _ in range(2))
    recorded.record_with(recorder)
    updates = 2 * (WARM_UPS + 3)
    with capture_logs() as logs:
        metrics = train(recorded, updates)
    assert [entry["event"] for entry in logs] == ["recorded"] * 2
    for one, other in zip(metrics, train(plain, updates), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    assert_same_training(recorded, plain)


def test_a_replayed_update_reads_nothing() -> None:
    updater = Updater(build_model(), TrainConfig(value_scale="per_task"))
    updater.record_with(Tape())
    batch = build_batch(updater.model)
    for _ in range(WARM_UPS + 2):
        updater.rl_update(batch)
    with host_reads() as reads:
        updater.rl_update(batch)
    assert reads == []


def test_recorded_training_is_resumed() -> None:
    """Whoever loads a state has other tensors than those that were recorded."""
    plain, recorded, resumed = (Updater(build_model(), TrainConfig(), seed=3) for _ in range(3))
    recorded.record_with(Tape())
    resumed.record_with(Tape())
    train(resumed, 2 * WARM_UPS + 4)
    state = recorded.state_dict()
    resumed.load_state_dict(state)
    for updater in (plain, recorded, resumed):
        train(updater, 2 * WARM_UPS + 4)
    assert_same_training(resumed, recorded)
    assert_same_training(recorded, plain)


def test_updates_are_recorded_anew_when_there_is_code() -> None:
    plain, recorded = (Updater(build_model(), TrainConfig(), seed=3) for _ in range(2))
    recorded.record_with(Rehearsal())
    for updater in (plain, recorded):
        train(updater, 2 * WARM_UPS + 4)
        updater.compile_with("eager")
    with capture_logs() as logs:
        train(recorded, 2 * WARM_UPS + 4)
    assert [entry["event"] for entry in logs] == ["recorded"] * 2
    train(plain, 2 * WARM_UPS + 4)
    assert_same_training(recorded, plain)


def test_recording_can_be_ended_and_is_refused_to_several_processes() -> None:
    plain, updater = (Updater(build_model(), TrainConfig(), seed=3) for _ in range(2))
    updater.record_with(Tape())
    updater.record_with(None)
    for each in (plain, updater):
        train(each, 4)
    first, second = plain.state_dict(), updater.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    several = Updater(build_model(), TrainConfig(), ranks=Ranks(world=2))
    with pytest.raises(ConfigError, match="several processes"):
        several.record_with(Tape())


# ---- what only a GPU shows


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("_passes_of_four_rows")
def test_a_gpu_replays_plans_that_equal_others(dtype: torch.dtype) -> None:
    gpu = torch.device("cuda")
    first, second = (InferenceModel.from_model(build_model(seed), dtype, gpu) for seed in (1, 2))
    plain, planner = Planner(first, PLAN), Planner(first, PLAN, recorder_for(gpu))
    for seed in range(WARM_UPS + 3):
        for rows in (1, 11):
            assert_same(plan(planner, rows, seed), plan(plain, rows, seed))
    assert planner.unrecorded(256) == [2]
    first.load(second)
    assert_same(plan(planner, 4), plan(Planner(second, PLAN), 4))
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan(planner, 11)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("overrides", MODELS)
@pytest.mark.parametrize("value_scale", ["shared", "per_task"])
def test_a_gpu_replays_updates_that_equal_others(value_scale: Any, overrides: dict[str, Any]) -> None:
    config = TrainConfig(warmup_updates=6, value_scale=value_scale)
    plain, recorded = (Updater(build_model(**overrides).to("cuda"), config, seed=3) for _ in range(2))
    recorded.record_with(recorder_for(torch.device("cuda")))
    updates = 2 * (WARM_UPS + 3)
    with capture_logs() as logs:
        metrics = train(recorded, updates, "cuda")
    assert [entry["event"] for entry in logs] == ["recorded"] * 2
    for one, other in zip(metrics, train(plain, updates, "cuda"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    assert_same_training(recorded, plain)
    batch = build_batch(recorded.model).to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        recorded.rl_update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@NO_GPU
def test_a_gpu_goes_on_where_it_could_not_record() -> None:
    gpu = torch.device("cuda")
    places = {"x": torch.zeros(3, device=gpu)}
    works: list[Callable[[Tensors], Tensors]] = [
        lambda given: {"y": given["x"] * float(given["x"].sum())},
        lambda given: {"y": given["x"] * given["x"].sum()},
    ]
    with capture_logs() as logs:
        for work in works:
            recorded = Recorded("work", work, places, recorder_for(gpu))
            for number in range(WARM_UPS + 3):
                x = torch.full((3,), float(number), device=gpu)
                assert recorded({"x": x})["y"].tolist() == [3.0 * number**2] * 3
    assert [entry["event"] for entry in logs] == ["not_recorded", "recorded"]
