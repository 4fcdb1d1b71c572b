"""What becomes of recorded episodes when replay cannot take them."""

from __future__ import annotations

import numpy as np
import pytest
from agent_files import ACTION_DIMS, OBS_DIMS, PLAN, TASKS, small_model

from newt.acting.facts import AgentFacts
from newt.acting.local import LocalPlans
from newt.acting.recording import Recorder
from newt.acting.session import ActingSession
from newt.agent.constraint import Guidance
from newt.agent.planning import Planner
from newt.errors import InvalidInputError, UnavailableError
from newt.wire.episodes import Episode


def test_episodes_wait_for_replay_and_refused_ones_do_not_block() -> None:
    stored: list[Episode] = []
    trouble: list[Exception] = []

    def store(episode: Episode) -> None:
        if trouble:
            raise trouble.pop()
        stored.append(episode)

    facts = AgentFacts(TASKS, ACTION_DIMS, OBS_DIMS)
    recorder = Recorder(facts, store)
    plans = LocalPlans(Planner(small_model(), PLAN), Guidance())
    session = ActingSession(plans, facts, mode="policy", recorder=recorder)

    def live(reward: float) -> None:
        session.act(np.zeros(5), "reach")
        session.reward(reward)
        session.finish(np.ones(5))

    trouble.append(UnavailableError("away"))
    with pytest.raises(UnavailableError):
        live(1)
    assert (recorder.unsent, stored) == (1, [])
    live(2)  # brings the first one along
    trouble.append(InvalidInputError("episode", "refused"))
    with pytest.raises(InvalidInputError):
        live(3)
    live(4)
    assert recorder.unsent == 0
    assert [episode.reward.tolist() for episode in stored] == [[1], [2], [4]]
    assert len({episode.episode_id for episode in stored}) == 3
