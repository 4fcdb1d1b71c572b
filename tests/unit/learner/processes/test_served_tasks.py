"""Which of the described tasks a learner takes, and which names it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from newt.tasks.registry import Described, RefusedTaskError, Task, UnknownTaskError, get_task, know, select_tasks
from newt.wire.tasks import from_message, to_message
from newt.wire.v1 import sim_pb2
from services.learner.processes.served_tasks import merge

SIMS = {"dmcontrol": "a:1", "mujoco": "a:1", "lab": "b:1", "arm": "c:1"}
OWN = Task("own-reach", "own", 5, 2, 80, 1, True, False, discount=0.9, embodiment="A stick.", goal="Touch it.")


def test_a_task_that_is_not_in_the_table_is_filed_under_its_simulator() -> None:
    found = merge({"lab": [OWN], "dmcontrol": [get_task("walker-walk")]}, SIMS)
    assert found == Described({"own-reach": replace(OWN, domain="lab")})


def test_a_service_of_several_domains_describes_each_task_once() -> None:
    both = [get_task("walker-walk"), get_task("mujoco-ant")]
    assert merge({"dmcontrol": both, "mujoco": both}, SIMS) == Described()


def test_a_name_that_two_have_is_refused_and_both_are_named() -> None:
    found = merge({"lab": [OWN], "arm": [OWN], "dmcontrol": [get_task("walker-run")]}, SIMS)
    assert not found.tasks
    assert {"lab", "arm"} <= set(found.refused["own-reach"].replace(",", " ").split())
    ours = merge({"lab": [replace(OWN, name="walker-walk"), replace(OWN, name="fine")]}, SIMS)
    assert "Newt's own task of dmcontrol" in ours.refused["walker-walk"]
    assert "lab at b:1" in ours.refused["walker-walk"]
    assert list(ours.tasks) == ["fine"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("obs_dim", 129),
        ("action_dim", 0),
        ("episode_length", 0),
        ("discount", 1.5),
        ("name", "a/b"),
        ("goal", " "),
        ("steps_per_s", 0.01),
        ("steps_per_s", float("nan")),
    ],
)
def test_facts_that_make_no_sense_cost_this_task_alone(field: str, value: object) -> None:
    bad = replace(OWN, **{"name": "bad", "embodiment": "", field: value})
    found = merge({"lab": [bad, OWN]}, SIMS)
    assert list(found.tasks) == ["own-reach"]
    assert field in found.refused[bad.name]


def test_all_facts_travel() -> None:
    task = replace(OWN, split="test", score_rule="success", digest="ab" * 32, steps_per_s=12.5)
    assert from_message(to_message(task)) == task


def test_a_server_of_before_describes_no_texts() -> None:
    task = from_message(sim_pb2.SimTask(name="old", domain="d", obs_dim=1, action_dim=1, episode_length=100))
    assert (task.instruction, task.discount, task.split, task.steps_per_s) == ("old", 0.95, "train", None)


def test_requests_name_what_is_described() -> None:
    lab = replace(OWN, domain="lab")
    know(Described({"own-reach": lab}, {"twice": "'twice' is the name of two"}))
    try:
        assert select_tasks(["own-*", "walker-walk"]) == [lab, get_task("walker-walk")]
        assert select_tasks(["lab"]) == [lab]
        with pytest.raises(RefusedTaskError, match="of two"):
            select_tasks(["twice"])
    finally:
        know(Described())
    with pytest.raises(UnknownTaskError, match="own-reach"):
        get_task("own-reach")
