"""How a checkpoint acts unless somebody says otherwise, and what its agent cannot do."""

from __future__ import annotations

from typing import Any

import pytest

from newt.agent.config import ModelConfig
from newt.agent.headers import Header
from newt.errors import InvalidInputError, PreconditionError
from newt.tasks.registry import select_tasks
from services.learner.checkpoints.modes import check_mode, trained_mode
from services.learner.checkpoints.usable import check_usable, encoder_name


def header(info: dict[str, Any] | None = None, **sizes: Any) -> Header:
    return Header(ModelConfig.from_size("XS", **sizes), ("walker-walk", "mw-reach"), info or {}, "0" * 64)


@pytest.mark.parametrize(
    ("info", "mode"),
    [
        ({}, "planner"),
        ({"spec": None}, "planner"),
        ({"spec": {"plan": {}}}, "planner"),
        ({"spec": {"algorithm": {"planning": True}}}, "planner"),
        ({"spec": {"algorithm": {"planning": False}}}, "policy"),
        ({"spec": {"algorithm": "anything else"}}, "planner"),
    ],
    ids=str,
)
def test_an_agent_acts_as_in_its_run(info: dict[str, Any], mode: str) -> None:
    assert trained_mode(header(info)) == mode
    for asked in ("planner", "policy", "open_loop"):
        check_mode(header(info), asked)


def test_an_agent_with_a_policy_only_is_never_planned_with() -> None:
    cloned = header({"spec": {"algorithm": {"planning": True}}}, policy_only=True)
    assert trained_mode(cloned) == "policy"
    check_mode(cloned, "policy")
    for asked in ("planner", "open_loop"):
        with pytest.raises(InvalidInputError) as caught:
            check_mode(cloned, asked)
        assert caught.value.field == "mode"


def test_learned_task_vectors_are_no_language_and_know_no_other_task() -> None:
    learned = header(language_dim=96, learned_embeddings=True)
    assert encoder_name(learned) == ""
    known, unseen = select_tasks(["mw-reach"]), select_tasks(["mw-reach", "cheetah-run"])
    check_usable(learned, known, {})
    check_usable(header(), unseen, {})
    with pytest.raises(PreconditionError, match="has none for cheetah-run"):
        check_usable(learned, unseen, {})
    with pytest.raises(InvalidInputError, match="reads no language"):
        check_usable(learned, known, {"mw-reach": "push"})
