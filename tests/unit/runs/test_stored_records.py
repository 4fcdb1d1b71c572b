"""Fields of a later version are kept and not obeyed; what an earlier one stored becomes what this one reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from newt.errors import LaterVersionError
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.migrations import FIELD, SCHEMA_VERSION, migrate
from newt.runs.record import EpisodeStats, Evaluation
from newt.runs.spec import RunSpec
from newt.runs.stored import read, read_json, to_json, unknown_fields
from newt.tasks.registry import get_task

TASK = "mujoco-reacher"
SPEC = RunSpec.model_validate({"tasks": [TASK], "preset": "laptop"})
STATS = EpisodeStats(score=0.5, return_=3, success=None, length=10, episodes=1)
JOB = EvaluationJob(
    id="e",
    state="running",
    request=CheckpointEvaluationRequest(checkpoint="imported/x", tasks=[TASK]),
    task_facts=[get_task(TASK)],
    checkpoint_sha256="0",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    result=Evaluation(kind="requested", mode="policy", env_steps=1, tasks={TASK: STATS}),
)


def with_later_fields(value: Any) -> Any:
    """Every object of a record with a field more; those whose names are data are told by their values."""
    if isinstance(value, list):
        return [with_later_fields(item) for item in value]
    if not isinstance(value, dict):
        return value
    grown = {name: with_later_fields(item) for name, item in value.items()}
    named = all(isinstance(item, dict | str) for item in value.values())
    return grown if named else {**grown, "later": {"unit": "s", "value": [1, None]}}


def test_a_record_is_written_again_with_the_fields_that_nobody_here_knows() -> None:
    later = with_later_fields(to_json(JOB))
    job = read(EvaluationJob, later)
    assert {"later", "task_facts.0.later", f"result.tasks.{TASK}.later", "result.later"} <= set(unknown_fields(job))
    again = to_json(job.model_copy(update={"progress": 0.5}))
    assert again == {**later, "progress": 0.5}


def test_settings_of_a_later_version_are_named_and_not_obeyed() -> None:
    later = json.loads(SPEC.model_dump_json())
    places = ("train", "plan", "schedule", "vision")
    for place in places:
        later[place]["later"] = 1
    later["algorithm"]["ppo"]["later"] = later["later"] = 1
    spec = read_json(RunSpec, json.dumps(later))
    assert sorted(unknown_fields(spec)) == sorted(
        ["later", "algorithm.ppo.later", *(f"{place}.later" for place in places)]
    )
    assert to_json(spec) == later
    assert spec.train == SPEC.train
    assert spec.plan_settings() == SPEC.plan_settings()
    assert json.loads(spec.model_dump_json()) == to_json(SPEC)
    with pytest.raises(ValidationError):  # in a request they are mistakes
        RunSpec.model_validate(later)


def test_a_known_setting_that_is_wrong_is_wrong_in_a_record_as_well() -> None:
    later = json.loads(SPEC.model_dump_json())
    later["train"]["lr"] = "fast"
    with pytest.raises(ValidationError, match="lr"):
        read_json(RunSpec, json.dumps(later))


def test_globs_of_the_first_version_become_names() -> None:
    stored = {"spec": {"tasks": ["mujoco-*"], "seed": 1}, "tasks": [TASK]}
    assert migrate("run", stored) == {"spec": {"tasks": [TASK], "seed": 1}, "tasks": [TASK]}
    assert stored["spec"] == {"tasks": ["mujoco-*"], "seed": 1}


@pytest.mark.parametrize("kind", ["run", "evaluation", "demonstrations", "result"])
def test_records_of_this_version_stay_as_they_are(kind: Any) -> None:
    record = {"spec": {"tasks": ["mujoco-*"]}, "tasks": [TASK]}
    assert migrate(kind, {**record, FIELD: SCHEMA_VERSION}) == record
    with pytest.raises(LaterVersionError, match=rf"schema {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}.*update Newt"):
        migrate(kind, {**record, FIELD: SCHEMA_VERSION + 1})


@pytest.mark.parametrize("number", [-1, 1.5, True, None, "x", "9" * 5000, [1]])
def test_a_number_that_is_none_is_named(number: Any) -> None:
    with pytest.raises(ValueError, match=FIELD):
        migrate("result", {FIELD: number})
