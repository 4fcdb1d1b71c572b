"""What collectors count becomes what the learner shows, once, however often it is told and whoever starts anew."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from newt.runs.base import now
from services.learner.measured import BUCKETS, Measured, Meter, Totals
from services.learner.records.progress import CollectorProgress


def shown(totals: Totals, name: str, **labels: str) -> float:
    registry = CollectorRegistry()
    registry.register(totals)
    value = registry.get_sample_value(f"newt_learner_{name}", labels)
    assert value is not None
    return value


def counting(*run_ids: str) -> Totals:
    """Runs whose first collectors have begun."""
    totals = Totals()
    for run_id in run_ids:
        totals.begin(run_id, Measured())
    return totals


def told(meter: Meter) -> Measured:
    """As it comes out of the record."""
    return CollectorProgress.parse(CollectorProgress(measured=meter.measured()).model_dump_json()).measured


def test_observations_are_in_the_buckets_of_a_histogram() -> None:
    totals, meter = counting("r"), Meter()
    for seconds in (0.0004, 0.0005, 0.3, 61.0):
        meter.observe("plan", seconds)
    totals.add("r", told(meter))
    found = {le: shown(totals, "plan_seconds_bucket", le=le) for le in ("0.0005", "0.25", "0.5", "60.0", "+Inf")}
    assert found == {"0.0005": 2, "0.25": 2, "0.5": 3, "60.0": 3, "+Inf": 4}
    assert shown(totals, "plan_seconds_count") == 4
    assert shown(totals, "plan_seconds_sum") == pytest.approx(61.3009)
    assert shown(totals, "env_step_seconds_count") == 0
    assert (BUCKETS["plan"][0], BUCKETS["plan"][-1]) == (0.0005, 60.0)


def test_what_is_told_again_counts_once_and_a_new_process_from_zero() -> None:
    totals, first, second, other = counting("r", "another"), Meter(), Meter(), Meter()
    first.observe("env_step", 1.0)
    first.lost("session", 3)
    for _ in range(3):
        totals.add("r", told(first))
    first.observe("env_step", 1.0)
    totals.add("r", told(first))
    second.observe("env_step", 1.0)
    second.lost("instance", 1)
    totals.add("r", told(second))
    other.observe("env_step", 1.0)
    totals.add("another", told(other))
    assert shown(totals, "env_step_seconds_count") == shown(totals, "env_step_seconds_sum") == 4
    assert shown(totals, "episodes_lost_total", reason="session") == 3
    assert shown(totals, "episodes_lost_total", reason="instance") == 1


def test_what_is_told_after_the_end_of_a_run_counts_no_more() -> None:
    totals, meter = counting("r"), Meter()
    meter.observe("plan", 1.0)
    totals.add("r", told(meter))
    totals.end("r")
    totals.add("r", told(meter))
    assert shown(totals, "plan_seconds_count") == 1


def test_what_a_collector_of_before_has_left_in_the_record_is_not_counted_again() -> None:
    """A learner that was restarted, and a run that is resumed."""
    totals, before, after = Totals(), Meter(), Meter()
    before.observe("plan", 1.0)
    totals.add("r", told(before))
    totals.begin("r", told(before))
    totals.add("r", told(before))  # the next one has told nothing yet
    assert shown(totals, "plan_seconds_count") == 0
    after.observe("plan", 1.0)
    totals.add("r", told(after))
    assert shown(totals, "plan_seconds_count") == 1


def test_a_collector_of_another_version_is_counted_as_far_as_it_is_understood() -> None:
    totals, meter = counting("r", "s"), Meter()
    meter.lost("session", 2)
    strange = meter.measured()
    strange.tallies["plan"].counts = [1, 2]
    del strange.tallies["env_step"]
    strange.lost["later"] = 5
    totals.add("r", strange)
    totals.add("s", CollectorProgress.parse('{"env_steps": 3}').measured)  # of before there was any
    assert shown(totals, "plan_seconds_count") == 0
    assert shown(totals, "episodes_lost_total", reason="session") == 2


def test_only_what_ends_well_is_timed() -> None:
    meter = Meter()
    with pytest.raises(OSError, match="gone"), meter.timed("plan"):
        raise OSError("gone")
    with meter.timed("plan"):
        pass
    assert sum(meter.measured().tallies["plan"].counts) == 1


def test_the_first_session_counts_from_the_runs_start_and_no_other_does() -> None:
    meter = Meter()
    meter.opened()
    meter.await_first_session(now() - timedelta(seconds=40))
    meter.opened()
    meter.opened()
    tally = meter.measured().tallies["first_session"]
    assert sum(tally.counts) == 1
    assert tally.sum_s == pytest.approx(40, abs=5)
