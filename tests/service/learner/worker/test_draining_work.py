"""Simulators are replaced in the middle of evaluations, demonstrations, plays and PPO's fleet: no episode is lost.

tests/service/learner/collecting/test_draining_simulators.py has the same of a run's collector.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from image_encoders import save_tiny_dinov2
from learner_stack import LearnerStack, wait_until

from newt.client.sim import AutoReset, SimClient
from newt.client.sim_session import SimSession
from newt.tasks.registry import Task, get_task
from newt.wire.episodes import Behaviour, Episode
from newt.wire.limits import PADDED_ACTION_DIM
from services.learner.demonstrating.experts import collect_scripted
from services.learner.demonstrating.features import add_features
from services.learner.direct.fleet import Fleet
from services.learner.direct.tally import Tally
from services.learner.evaluating.plan import EvaluationPlan
from services.learner.evaluating.play import evaluate
from services.learner.live.session import Commands, LiveSession
from services.learner.playing.actor import Model
from services.learner.playing.sight import Sight, Vision
from services.learner.settings import LearnerSettings
from services.learner.waiting import StopFlag
from services.learner.worker.connections import Services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REACHER, PENDULUM, BUTTON = map(get_task, ("mujoco-reacher", "mujoco-inverted-pendulum", "mw-button-press"))


class Replacement:
    """A simulator that is told to stop once, and its successor at the same address.

    Attributes:
        begun: Whether it was told.
    """

    def __init__(self, stack: LearnerStack) -> None:
        self._stack, self.begun = stack, False
        self._thread = threading.Thread(target=self._run)
        self._ends: list[int] = []

    def begin(self) -> None:
        """Tells it; the first time."""
        if not self.begun:
            self.begun = True
            self._stack.processes["sim"].send_signal(signal.SIGTERM)
            self._thread.start()

    def _run(self) -> None:
        self._ends.append(self._stack.processes["sim"].wait(120))
        self._stack.start("sim")

    def check(self) -> None:
        """The work had given everything back, so that it ended well."""
        assert self.begun
        self._thread.join(130)
        assert self._ends == [0]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    stack = LearnerStack(tmp_path_factory.mktemp("stack"), ("replay",))
    stack.settings["sim"] |= {"DRAIN_S": 100, "DOMAINS": "mujoco,metaworld"}
    try:
        stack.start("sim")
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def settings(stack: LearnerStack) -> LearnerSettings:
    sims = json.loads(stack.settings["learner"]["SIMS"])
    return LearnerSettings(sims=sims, replay=stack.replay_address, planner="127.0.0.1:9")


@pytest.fixture
def services(settings: LearnerSettings) -> Iterator[Services]:
    with Services.connect(settings, ("mujoco", "metaworld"), StopFlag()) as services:
        services.check_sims([REACHER, BUTTON])
        yield services


@contextmanager
def replacing(stack: LearnerStack) -> Iterator[Replacement]:
    """The simulator is replaced within, and left at the end of an episode: nobody has lost a session."""
    replacement = Replacement(stack)
    log = stack.home / "sim.log"
    before = log.read_text().count('"given_back": true')
    with structlog.testing.capture_logs() as lines:
        yield replacement
    replacement.check()
    events = Counter(line["event"] for line in lines)
    assert not [event for event in events if "lost" in event or "gone" in event], events
    assert log.read_text().count('"given_back": true') == before + 1


def evaluated(
    services: Services, plan: EvaluationPlan, told: Callable[[float], None] = lambda share: None
) -> dict[tuple[str, int], Episode]:
    """Plays; the episodes by task and number, none of which came twice."""
    found: dict[tuple[str, int], Episode] = {}
    lock = threading.Lock()

    def keep(index: int, episode: Episode) -> None:
        with lock:
            assert (episode.task, index) not in found, "counted twice"
            found[episode.task, index] = episode

    outcome = evaluate(services, replace(plan, on_episode=keep), told)
    assert all(episode.crashes == 0 for episode in outcome.episodes)
    counts = {name: stats.episodes for name, stats in outcome.tasks.items()}
    assert counts == {task.name: plan.episodes for task in plan.tasks}
    return found


def plan(tasks: Sequence[Task], episodes: int) -> EvaluationPlan:
    model = Model("nobody", tuple(task.name for task in tasks))
    return EvaluationPlan(tasks=tasks, episodes=episodes, mode="random", model=model, seed=7)


def test_an_evaluation_plays_each_episode_once_from_its_seed(stack: LearnerStack, services: Services) -> None:
    wanted = plan([REACHER, PENDULUM], 40)  # of 50 steps at 32 side by side; of up to 500, ended by falls
    undisturbed = evaluated(services, wanted)
    with replacing(stack) as replacement:
        disturbed = evaluated(services, wanted, lambda share: replacement.begin() if share > 0.02 else None)
    assert disturbed.keys() == undisturbed.keys()
    assert len(disturbed) == 80
    for (task, index), episode in disturbed.items():
        reference = undisturbed[task, index]
        assert episode.seed == reference.seed == wanted.episode_seed(task, index)
        assert np.array_equal(episode.obs[0], reference.obs[0])
        if task == REACHER.name:
            assert len(episode.reward) == 50


def test_demonstrations_are_as_many_as_were_asked_for(stack: LearnerStack, services: Services) -> None:
    with replacing(stack) as replacement:
        missing = collect_scripted(services, "drained", [BUTTON], 12, on_progress=lambda *_: replacement.begin())
    assert missing == {}
    episodes = list(services.replay.read_episodes(demo_set="drained", task=BUTTON.name))
    assert len({episode.seed for episode in episodes}) == len({episode.episode_id for episode in episodes}) == 12
    assert {episode.behaviour for episode in episodes} == {Behaviour.EXPERT}


def test_features_are_added_to_each_demonstration(
    stack: LearnerStack, settings: LearnerSettings, services: Services, tmp_path: Path
) -> None:
    for episode in evaluated(services, plan([REACHER], 9)).values():
        services.replay.append(replace(episode, behaviour=Behaviour.EXPERT), demo_set="blind")
    settings = settings.model_copy(update={"image_encoder": str(save_tiny_dinov2(tmp_path)), "torch_threads": 1})
    seeing = replace(services, vision=Vision.load(settings))
    opened = seeing.open

    with replacing(stack) as replacement, pytest.MonkeyPatch.context() as patch:

        def open_and_stop(*arguments: Any, **options: Any) -> SimSession:
            session = opened(*arguments, **options)
            session.reset()
            session.step(np.zeros((session.num_envs, PADDED_ACTION_DIM), np.float32))
            replacement.begin()
            return session

        patch.setattr(Services, "open", lambda self, *arguments, **options: open_and_stop(*arguments, **options))
        assert add_features(seeing, "blind", "seeing", [REACHER]) == {}
    found = list(services.replay.read_episodes(demo_set="seeing", task=REACHER.name))
    assert len(found) == 9
    assert all(episode.image.shape[0] == 51 for episode in found)


def test_a_fleet_ends_its_episodes_and_goes_on_from_other_seeds(stack: LearnerStack, services: Services) -> None:
    tasks = [REACHER, PENDULUM, BUTTON, REACHER]
    tally = Tally(tasks)
    asked: list[tuple[int, int]] = []

    def seed(row: int) -> int:
        asked.append((row, 1000 * row + tally.tasks[tasks[row].name].episodes))
        return asked[-1][1]

    lengths: dict[int, list[int]] = {row: [] for row in range(len(tasks))}
    running = np.zeros(len(tasks), np.int64)
    random = np.random.default_rng(1)
    with replacing(stack) as replacement, Fleet(services, tasks, seed) as fleet:
        fleet.start()
        for number in range(1_500):
            step = fleet.step(random.uniform(-1, 1, (len(tasks), PADDED_ACTION_DIM)).astype(np.float32))
            tally.stepped(step)
            for row in range(len(tasks)):
                if not step.valid[row]:
                    assert running[row] == 0, "an episode has no end"
                    assert np.isnan(step.reward[row])
                    assert not step.terminated[row]
                    assert not step.truncated[row]
                    continue
                running[row] += 1
                if step.ended[row]:
                    lengths[row].append(int(running[row]))
                    running[row] = 0
            if number == 30:
                replacement.begin()
            if len(asked) == 2 * len(tasks) and all(running > 0):
                break
    assert set(lengths[0]) == set(lengths[3]) == {50}
    assert set(lengths[2]) == {100}
    assert {task.name: tally.tasks[task.name].episodes for task in tasks} == {
        REACHER.name: len(lengths[0]) + len(lengths[3]),
        PENDULUM.name: len(lengths[1]),
        BUTTON.name: len(lengths[2]),
    }
    first, second = dict(asked[:4]), dict(asked[4:])
    assert all(second[row] > first[row] for row in range(4)), "the same episodes again"


def test_a_play_goes_on_elsewhere_with_the_next_episode(stack: LearnerStack, settings: LearnerSettings) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    commands = Commands()

    def do(number: int, what: str, **how: Any) -> None:
        commands.put({"number": number, "do": what, "with": how})

    def last() -> dict[str, Any]:
        return next((facts for event, facts in reversed(told) if event == "step"), {"step": 0, "over": False})

    with SimClient(settings.sims["mujoco"], 60) as client, replacing(stack) as replacement:

        def lease() -> SimSession:
            return client.open([REACHER.name], [1], auto_reset=AutoReset.DISABLED, keep_alive=True)

        live = LiveSession(
            lease(), lease, Sight(None, 1), None, ["random"], 1, 30.0, lambda event, facts: told.append((event, facts))
        )
        thread = threading.Thread(target=live.run, args=(commands,), daemon=True)
        thread.start()
        do(1, "watch", watched=True)
        wait_until(lambda: last()["step"] > 5, "some steps")
        episode = last()["episode"]
        replacement.begin()
        wait_until(lambda: bool(last()["over"]), "the end of the episode")
        assert (last()["episode"], last()["step"]) == (episode, 50)
        do(2, "watch", watched=True)  # what is seen stays there to be seen
        wait_until(lambda: any(facts.get("number") == 2 for event, facts in told if event == "answer"), "an answer")
        assert last()["picture"]
        do(3, "reset", seed=2)
        wait_until(lambda: last()["episode"] != episode and last()["step"] > 5, "the next episode")
        assert last()["seed"] == "2"
        commands.put(None)
        thread.join(60)
        assert not thread.is_alive()
    assert [event for event, _ in told if event == "problem"] == ["problem"]
