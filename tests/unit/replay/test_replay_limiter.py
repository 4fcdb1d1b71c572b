"""The ratio of updates to environment steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replay.limiter import Limiter


@pytest.mark.parametrize(
    ("update", "env_steps", "allowed"),
    [(0, 100, False), (0, 101, True), (1, 102, False), (1, 103, True), (49, 199, True), (50, 200, False)],
)
def test_an_update_needs_its_share_of_steps(update: int, env_steps: int, allowed: bool) -> None:
    assert Limiter(0.5, start_env_steps=100, max_lead_updates=0).may_sample(update, env_steps) is allowed


@pytest.mark.parametrize(
    ("updates", "env_steps", "allowed"),
    [(0, 0, True), (0, 120, True), (0, 121, False), (1, 122, True), (1, 123, False)],
)
def test_the_collector_stops_beyond_its_lead(updates: int, env_steps: int, allowed: bool) -> None:
    assert Limiter(0.5, start_env_steps=100, max_lead_updates=10).may_insert(updates, env_steps) is allowed


def test_no_bound_on_the_lead() -> None:
    assert Limiter(1.0, 0, 0).may_insert(0, 10**9)
    assert Limiter(1.0, 0, 0).permitted(5) is None


@pytest.mark.parametrize(
    ("updates", "permitted"),
    [
        (0, 120),  # (120 - 100) · 0.5 - 0 = 10, the lead
        (1, 122),
        (15, 150),
    ],
)
def test_permission_reaches_to_the_lead(updates: int, permitted: int) -> None:
    assert Limiter(0.5, start_env_steps=100, max_lead_updates=10).permitted(updates) == permitted


@given(st.floats(1e-3, 100), st.integers(0, 10**6), st.integers(1, 1000), st.integers(0, 10**7))
def test_permission_is_what_a_question_would_give(ratio: float, start: int, lead: int, updates: int) -> None:
    limiter = Limiter(ratio, start, lead)
    permitted = limiter.permitted(updates)
    assert permitted is not None
    assert limiter.lead(updates, permitted) <= lead * (1 + 1e-9) + updates * 1e-9
    assert limiter.lead(updates, permitted + 1) > lead * (1 - 1e-9) - updates * 1e-9


@given(st.floats(1e-3, 100), st.integers(0, 10**6), st.integers(1, 1000), st.integers(0, 10**7), st.integers(0, 10**7))
def test_both_sides_never_wait_at_once(ratio: float, start: int, lead: int, updates: int, env_steps: int) -> None:
    limiter = Limiter(ratio, start, lead)
    assert limiter.may_sample(updates, env_steps) or limiter.may_insert(updates, env_steps)
