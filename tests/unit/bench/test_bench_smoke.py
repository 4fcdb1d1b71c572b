"""Every subject runs in its smallest size and yields figures that can be stored."""

from __future__ import annotations

import math

import pytest

from bench import registry
from bench.figures import Ratio
from bench.measure import Effort

KEYS = {
    "planner": {"planner.XS.b2", "planner.XS.b2.float32", "planner.XS.b2.service"},
    "updates": {"updates.XS.b8"},
    "batches": {
        "batches.t2.encode",
        "batches.t2.decode_time",
        "batches.t2.pad",
        "batches.t2.service",
        "batches.t2.trainer",
    },
    "replay": {"replay.b16", "replay.b16.growing", "replay.b16.one_at_a_time"},
    "sims": {"sims.walker-walk.n2", "sims.noop.n2"},
    "domains": {"domains.dmcontrol.speed", "domains.miniarcade.speed", "domains.miniarcade.service_mb"},
    "arcade": {"arcade.pygame-pong", "arcade.pygame-highway"},
    "robot": {"robot.XS.delay_80ms.late", "robot.XS.delay_80ms.act_p99", "robot.XS.budget_128x3"},
    "weights": {"weights.XS.first_use", "weights.XS.failed_plans", "weights.XS.late_plans"},
    "page": {
        "page.first_paint",
        "page.run_usable",
        "page.api.2_open_pages.p99",
        "page.api.0_pages.p99",
        "page.api.2_pages.p50",
    },
    "loop": {"loop.tour"},
}
SLOW = {"sims", "domains", "robot", "weights", "page", "loop"}


def test_all_subjects_are_covered() -> None:
    assert set(KEYS) == set(registry.SUBJECTS)


@pytest.mark.parametrize(
    "subject",
    [pytest.param(subject, marks=pytest.mark.slow if subject in SLOW else ()) for subject in registry.SUBJECTS],
)
def test_a_subject_runs(subject: str) -> None:
    figures = list(registry.run(subject, Effort("tiny")))
    assert {figure.key for figure in figures} >= KEYS[subject]
    assert all(figure.key.startswith(f"{subject}.") for figure in figures)
    for figure in figures:
        if isinstance(figure, Ratio):
            assert figure.ours.median > 0
            assert figure.plain.median > 0
        numbers = [value for value in figure.flat().values() if isinstance(value, float)]
        assert numbers
        assert all(math.isfinite(value) for value in numbers)
