"""What every domain's tasks must do through the service, whoever wrote the domain.

The suite runs on a task of each domain of the table, one with short episodes, and needs nothing but the server's own
description.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from newt.client import AutoReset, ObsMode, SimClient, SimSession
from newt.errors import (
    ExhaustedError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
)
from newt.tasks.registry import Task
from newt.wire.tensors import encode
from newt.wire.v1 import sim_pb2
from services.sim.domains import DOMAINS

ROWS, A = 3, 16
WITHOUT_CHANCE = {"atari"}  # Domains whose episodes all start and go on the same.


@pytest.fixture(scope="module", params=list(DOMAINS))
def task(request: pytest.FixtureRequest, client: SimClient) -> Task:
    tasks = [task for task in client.describe() if request.param in (task.name, task.domain)]
    return min(tasks, key=lambda task: (task.episode_length, task.obs_dim))


@pytest.fixture(scope="module")
def session(client: SimClient, task: Task) -> Iterator[SimSession]:
    """One session for all tests of a task: none of them may leave it in a state that a reset does not heal."""
    with client.open([task.name] * ROWS, [1, 2, 1], keep_alive=True) as session:
        yield session


def actions(task: Task, steps: int, rows: int = ROWS) -> npt.NDArray[np.float32]:
    """float32[T, N, A], the same for all rows; columns that the task does not use are garbage."""
    result = np.full((steps, rows, A), np.nan, np.float32)
    draw = np.random.default_rng(0).uniform(-1, 1, (steps, 1, task.action_dim))
    result[:, :, : task.action_dim] = draw
    return result


def test_description_is_complete(task: Task, session: SimSession) -> None:
    assert session.tasks == [task] * ROWS
    assert 1 <= task.obs_dim <= 128
    assert 1 <= task.action_dim <= A
    assert task.episode_length >= 1


def test_first_observation(task: Task, session: SimSession) -> None:
    first = session.reset(seeds=[1, 2, 1])
    assert first.obs.shape == (ROWS, 128)
    assert first.obs.dtype == np.float32
    assert first.rgb is None
    assert first.expert_action is None
    assert not first.obs[:, task.obs_dim :].any()
    assert first.episode_step.tolist() == [0] * ROWS
    assert first.episode_seed[0] == first.episode_seed[2] != first.episode_seed[1]


def test_seeds_differ_and_repeat(task: Task, session: SimSession) -> None:
    def play() -> list[npt.NDArray[np.float32]]:
        history = [session.reset(seeds=[7, 7, 8]).obs]
        for action in actions(task, 4):
            step = session.step(action)
            history += [step.observation.obs, step.reward, step.score]
        return history

    first = play()
    for before, after in zip(first, play(), strict=True):
        np.testing.assert_array_equal(before, after)
        np.testing.assert_array_equal(before[0], before[1])
    assert (first[0][0] != first[0][2]).any() == (task.domain not in WITHOUT_CHANCE)


def test_any_seed_is_valid(session: SimSession) -> None:
    largest = 2**64 - 1
    assert session.reset(rows=[0, 1, 2], seeds=[0, largest, 2**63]).episode_seed.tolist() == [0, largest, 2**63]


def test_the_sequence_after_an_explicit_seed_repeats(session: SimSession) -> None:
    sequences = []
    for _ in range(2):
        session.reset(seeds=[5, 6, 7])
        sequences.append([session.reset().episode_seed.tolist() for _ in range(2)])
    assert sequences[0] == sequences[1]
    assert len({seed for seeds in sequences[0] for seed in seeds}) == 6


def test_rows_are_reset_alone(task: Task, session: SimSession) -> None:
    session.reset()
    stepped = session.step(actions(task, 1)[0]).observation
    partly = session.reset(rows=[1])
    assert partly.episode_step.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(partly.obs[[0, 2]], stepped.obs[[0, 2]])
    assert partly.episode_seed[1] != stepped.episode_seed[1]


def test_steps(task: Task, session: SimSession) -> None:
    session.reset()
    for number, action in enumerate(actions(task, 3), start=1):
        step = session.step(action)
        assert step.reward.dtype == np.float32
        assert np.isfinite(step.reward).all()
        assert step.observation.episode_step.tolist() == [number] * ROWS
        assert np.isfinite(step.observation.obs).all()
        assert not step.observation.obs[:, task.obs_dim :].any()
        assert np.isnan(step.success).all() != task.has_success
        assert not step.terminated.any()
        assert not step.truncated.any()
        assert len(step.final_rows) == 0
        assert not step.crashed.any()


def test_the_episode_ends_after_its_length(task: Task, client: SimClient) -> None:
    with client.open([task.name] * 2, [1, 2]) as session:
        session.reset()
        session.reset(rows=[0])
        for action in actions(task, 1, 2):
            for _ in range(task.episode_length - 1):
                before = session.step(action)
            assert not before.truncated.any()
            last = session.step(action)
        assert last.truncated.all()
        assert last.final_rows.tolist() == [0, 1]
        assert last.observation.episode_step.tolist() == [0, 0]
        assert (last.observation.episode_seed != before.observation.episode_seed).all()
        assert (last.final_obs != last.observation.obs).any(axis=1).all()


def test_auto_reset_modes_agree_on_the_final_observation(task: Task, client: SimClient) -> None:
    results = {}
    for mode in AutoReset:
        with client.open([task.name], [3], auto_reset=mode) as session:
            session.reset()
            for action in actions(task, task.episode_length, 1):
                step = session.step(action)
            results[mode] = step
            assert step.truncated[0]
            if mode is AutoReset.SAME_STEP:
                continue
            np.testing.assert_array_equal(step.final_obs, step.observation.obs)
            assert step.observation.episode_step[0] == task.episode_length
            if mode is AutoReset.NEXT_STEP:
                assert session.step(action).observation.episode_step[0] == 0
            else:
                with pytest.raises(PreconditionError, match="row 0's episode has ended"):
                    session.step(action)
                session.reset()
            assert session.step(action).observation.episode_step[0] == 1
    same = results.pop(AutoReset.SAME_STEP)
    for other in results.values():
        np.testing.assert_array_equal(same.final_obs, other.final_obs)
        np.testing.assert_array_equal(same.score, other.score)


def test_frames(task: Task, client: SimClient) -> None:
    with (
        client.open([task.name] * 2, [1, 2], obs_mode=ObsMode.STATE_RGB) as drawn,
        client.open([task.name] * 2, [1, 2]) as plain,
    ):
        first, undrawn = drawn.reset(), plain.reset()
        assert first.rgb is not None
        assert first.rgb.shape == (2, 3, 224, 224)
        assert first.rgb.dtype == np.uint8
        for action in actions(task, 2, 2):
            frames = drawn.render()
            step, undrawn_step = drawn.step(action), plain.step(action)
            np.testing.assert_array_equal(step.observation.obs, undrawn_step.observation.obs)
            np.testing.assert_array_equal(step.reward, undrawn_step.reward)
        assert frames.shape == (2, 224, 224, 3)
        assert all(frame.std() > 0.5 for frame in frames)
        rgb = step.observation.rgb
        assert rgb is not None
        np.testing.assert_array_equal(drawn.render(), rgb.transpose(0, 2, 3, 1))
        # The same state, drawn where frames were not asked for; rows come in the order wanted.
        np.testing.assert_array_equal(plain.render([1, 0]), drawn.render()[::-1])
        np.testing.assert_array_equal(undrawn.obs, first.obs)


def test_expert(task: Task, client: SimClient) -> None:
    if not task.has_expert:
        with pytest.raises(InvalidInputError, match="no scripted expert"):
            client.open([task.name], [0], with_expert=True)
        return
    with client.open([task.name], [0], with_expert=True) as session:
        observation = session.reset()
        for _ in range(min(task.episode_length, 20)):
            expert = observation.expert_action
            assert expert is not None
            assert expert.shape == (1, A)
            assert not expert[:, task.action_dim :].any()
            observation = session.step(expert).observation


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.0001, -1.5])
def test_bad_action_values_move_nothing(task: Task, session: SimSession, bad: float) -> None:
    before = session.reset()
    action = actions(task, 1)[0]
    wrong = action.copy()
    wrong[1, task.action_dim - 1] = bad
    with pytest.raises(InvalidInputError, match=f"row 1, column {task.action_dim - 1}") as caught:
        session.step(wrong)
    assert caught.value.field == "action"
    after = session.step(action)
    assert after.observation.episode_step.tolist() == [1] * ROWS
    fresh = session.reset(seeds=before.episode_seed.tolist())
    np.testing.assert_array_equal(fresh.obs, before.obs)
    np.testing.assert_array_equal(session.step(action).observation.obs, after.observation.obs)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((ROWS, A), np.int32),
        np.zeros((ROWS, A - 1), np.float32),
        np.zeros((ROWS - 1, A), np.float32),
        np.zeros((ROWS, A, 1), np.float32),
    ],
)
def test_bad_action_arrays(task: Task, session: SimSession, wrong: npt.NDArray[np.float32]) -> None:
    session.reset()
    with pytest.raises(InvalidInputError, match="action"):
        session.step(wrong)
    assert session.step(actions(task, 1)[0]).observation.episode_step.tolist() == [1] * ROWS


def test_a_session_must_be_reset_first(task: Task, client: SimClient) -> None:
    with client.open([task.name] * ROWS, [1, 2, 1], keep_alive=True) as session:
        with pytest.raises(PreconditionError, match="Reset"):
            session.step(actions(task, 1)[0])
        with pytest.raises(PreconditionError, match="Reset"):
            session.render()
        opened = session.reset()
        np.testing.assert_array_equal(opened.obs[0], opened.obs[2])
        assert (opened.obs[0] != opened.obs[1]).any() == (task.domain not in WITHOUT_CHANCE)
        session.step(actions(task, 1)[0])


class TestRequests:
    """What depends on no domain."""

    def test_unknown_task(self, client: SimClient) -> None:
        with pytest.raises(NotFoundError, match="walker-walk"):
            client.open(["walker-wlk"], [0])

    def test_open_checks_its_arguments(self, client: SimClient) -> None:
        with pytest.raises(InvalidInputError, match="envs"):
            client.open([], [])
        with pytest.raises(InvalidInputError, match="lease_s"):
            client.open(["noop"], [0], lease_s=-1)
        with pytest.raises(InvalidInputError, match="lease_s"):
            client.open(["noop"], [0], lease_s=float("nan"))
        with pytest.raises(InvalidInputError, match=r"envs.*at most \d+"):
            client.open(["noop"] * 600, [0] * 600, obs_mode=ObsMode.STATE_RGB)

    def test_unknown_session(self, client: SimClient) -> None:
        with client.open(["noop"], [0]) as session:
            session.reset()
        for call in (session.reset, session.renew, session.render):
            with pytest.raises(NotFoundError, match="session"):
                call()
        session.close()

    def test_bad_rows_and_seeds(self, client: SimClient) -> None:
        with client.open(["noop"] * 2, [0, 1]) as session:
            with pytest.raises(PreconditionError, match="all rows"):
                session.reset(rows=[0])
            session.reset()
            for call in (session.reset, session.render):
                with pytest.raises(InvalidInputError, match="rows: got row 2 of 2"):
                    call(rows=[0, 2])
                with pytest.raises(InvalidInputError, match="rows: got row 1 twice"):
                    call(rows=[1, 1])
            with pytest.raises(InvalidInputError, match="seeds: got 1 for 2 rows"):
                session.reset(seeds=[1])

    def test_instance_limit(self, client: SimClient) -> None:
        used = client.stub.Describe(sim_pb2.DescribeRequest(), timeout=10).used_instances
        free = 64 - used
        with client.open(["noop"] * (free - 4), range(free - 4)):
            with pytest.raises(ExhaustedError, match=f"limit is 64 instances .*, {60} are in use, 5 more"):
                client.open(["noop"] * 5, range(5))
            with client.open(["noop"] * 4, range(4)):
                pass
        with client.open(["noop"] * free, range(free)) as session:
            assert session.reset().obs.shape == (free, 128)

    def test_mixed_tasks_in_one_session(self, client: SimClient) -> None:
        names = ["mw-reach", "noop-short", "mujoco-ant", "walker-walk"]
        with client.open(names, range(4)) as session:
            session.reset()
            step = session.step(np.zeros((4, A), np.float32))
            widths = [int(np.flatnonzero(row)[-1]) + 1 for row in step.observation.obs]
            assert all(width <= task.obs_dim for width, task in zip(widths, session.tasks, strict=True))
            assert np.isnan(step.success).tolist() == [not task.has_success for task in session.tasks]

    def test_a_repeated_step_is_answered_without_stepping(self, client: SimClient) -> None:
        with client.open(["noop"], [0]) as session:
            session.reset()
            request = sim_pb2.StepRequest(
                session_id=session._id, step_number=1, action=encode(np.full((1, A), 0.5, np.float32))
            )
            first, again = (client.stub.Step(request, timeout=10) for _ in range(2))
            assert first == again
            other = encode(np.zeros((1, A), np.float32))
            request.action.CopyFrom(other)
            assert client.stub.Step(request, timeout=10) == first
            request.step_number = 2
            assert np.frombuffer(client.stub.Step(request, timeout=10).observation.episode_step.data, np.int32)[0] == 2

    @pytest.mark.parametrize("sequence", [0, 2, 99])
    def test_a_wrong_sequence_number_is_refused(self, client: SimClient, sequence: int) -> None:
        with client.open(["noop"], [0]) as session:
            session.reset()
            session._step_number = sequence - 1
            with pytest.raises(PreconditionError, match="expected 1"):
                session.step(np.zeros((1, A), np.float32))

    def test_one_stream_carries_several_sessions(self, client: SimClient) -> None:
        with client.open(["noop"], [0]) as one, client.open(["noop-short"] * 2, [0, 1]) as two:
            one.reset()
            two.reset()
            requests = [
                sim_pb2.StepRequest(
                    session_id=session._id,
                    step_number=number,
                    action=encode(np.zeros((session.num_envs, A), np.float32)),
                )
                for number in (1, 2)
                for session in (one, two)
            ]
            replies = list(client.stub.StepStream(iter(requests), timeout=30))
            assert [reply.step_number for reply in replies] == [1, 1, 2, 2]
            assert [reply.reward.shape[0] for reply in replies] == [1, 2, 1, 2]

    def test_steps_overlap_between_sessions(self, client: SimClient) -> None:
        with client.open(["noop"], [0]) as one, client.open(["noop"], [0]) as two:
            one.reset()
            two.reset()
            still = np.zeros((1, A), np.float32)
            one.send(still)
            two.send(still)
            np.testing.assert_array_equal(one.receive().observation.obs, two.receive().observation.obs)

    def test_describe_counts_instances(self, client: SimClient) -> None:
        def describe() -> sim_pb2.DescribeResponse:
            return client.stub.Describe(sim_pb2.DescribeRequest(), timeout=10)

        before = describe()
        assert (before.max_instances, before.workers) == (64, 2)
        with client.open(["noop"] * 3, range(3)):
            assert describe().used_instances == before.used_instances + 3
        assert describe().used_instances == before.used_instances
