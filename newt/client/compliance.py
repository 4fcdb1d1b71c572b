"""What every simulator service must do, in whatever language it is written, looked at over the wire.

    with SimClient("lab7:50051", timeout_s=30) as client:
        for criterion in examine(client, choose(client)):
            print(criterion.task, criterion.name, criterion.outcome, criterion.detail)

`newt env check --address` prints this; `newt.client.compliance_tests` is the same as a class of tests. The contract is
protos/newt/v1/sim.proto.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.client.sim import AutoReset, ObsMode, SimClient
from newt.client.sim_session import SimSession
from newt.client.steps import Step
from newt.errors import InvalidInputError, NewtError, NotFoundError, PreconditionError
from newt.tasks.registry import Task
from newt.tasks.reports import Criterion
from newt.wire.limits import PADDED_ACTION_DIM
from newt.wire.tasks import problem
from newt.wire.tensors import encode
from newt.wire.v1 import sim_pb2

ROWS = 3
_LARGEST_SEED = 2**64 - 1
_LEASE_S = 0.2
_DRAWN_STD = 0.5  # A picture whose grey values differ less shows nothing.

Floats = npt.NDArray[np.float32]


class _WrongError(Exception):
    """The service does not do what it must."""


class _DoubtError(Exception):
    """It may be meant so; with a remedy if it is not."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.remedy = remedy


class Subject:
    """A task of a service, with one session of three rows that the criteria share; each leaves what a reset heals.

    Args:
        client: Connected to the service.
        task: One of those it describes.
    """

    def __init__(self, client: SimClient, task: Task) -> None:
        self.client, self.task = client, task
        self._session: SimSession | None = None

    @property
    def session(self) -> SimSession:
        """Rows 0 and 2 begin with the same seed."""
        if self._session is None:
            self._session = self.client.open([self.task.name] * ROWS, [1, 2, 1], keep_alive=True)
        return self._session

    def open(self, rows: int, auto_reset: AutoReset = AutoReset.SAME_STEP, *, rgb: bool = False) -> SimSession:
        """Another session, with the seeds 1, 2, ..."""
        mode = ObsMode.STATE_RGB if rgb else ObsMode.STATE
        return self.client.open(
            [self.task.name] * rows, range(1, rows + 1), auto_reset=auto_reset, obs_mode=mode, keep_alive=True
        )

    def actions(self, steps: int, rows: int = ROWS) -> Floats:
        """float32[T, N, A], the same for all rows; columns that the task does not use are garbage."""
        result = np.full((steps, rows, PADDED_ACTION_DIM), np.nan, np.float32)
        draw = np.random.default_rng(0).uniform(-1, 1, (steps, 1, self.task.action_dim))
        result[:, :, : self.task.action_dim] = draw
        return result

    def close(self) -> None:
        """Gives the instances back."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise _WrongError(otherwise)


def _same(first: npt.NDArray[np.generic], other: npt.NDArray[np.generic], what: str) -> None:
    if not np.array_equal(first, other, equal_nan=first.dtype.kind == "f"):
        raise _WrongError(f"{what}: {_short(first)}, then {_short(other)}")


def _refused(error: type[NewtError], call: Callable[[], object], what: str, field: str = "") -> NewtError:
    """The error that a call must end with."""
    try:
        call()
    except error as refusal:
        _require(field in str(refusal), f"{what} was refused, but the message does not name {field!r}: {refusal}")
        return refusal
    except NewtError as other:
        raise _WrongError(f"{what} ended with {type(other).__name__} ({other}), expected {error.__name__}") from other
    raise _WrongError(f"{what} was accepted, expected {error.__name__}")


def _short(values: npt.NDArray[np.generic]) -> str:
    flat = values.reshape(-1)
    return f"{flat[:6].tolist()}{'...' if len(flat) > 6 else ''}"


# What depends on the task.


def _description(subject: Subject) -> str:
    task = subject.task
    wrong = problem(task)
    _require(wrong is None, f"what Describe says cannot be used: {wrong}")
    _require(subject.session.tasks == [task] * ROWS, "Open describes the task otherwise than Describe")
    return f"{task.obs_dim} observed columns, {task.action_dim} of actions, {task.episode_length} steps"


def _first_observation(subject: Subject) -> str:
    first = subject.session.reset(seeds=[1, 2, 1])
    _padded(subject, first.obs)
    _require(first.rgb is None and first.expert_action is None, "it brings frames or experts that nobody asked for")
    _require(not first.episode_step.any(), f"episode_step is {first.episode_step.tolist()}, expected zeros")
    _require(
        first.episode_seed.tolist() == [1, 2, 1], f"episode_seed is {first.episode_seed.tolist()}, expected 1, 2, 1"
    )
    return "finite, and 0 behind the task's columns"


def _padded(subject: Subject, obs: Floats) -> None:
    _require(np.isfinite(obs).all(), "an observation is not finite")
    _require(not obs[:, subject.task.obs_dim :].any(), f"columns from {subject.task.obs_dim} on are not 0")


def _seeds(subject: Subject) -> str:
    def play() -> list[npt.NDArray[np.float32]]:
        history = [subject.session.reset(seeds=[7, 7, 8]).obs]
        for action in subject.actions(4):
            step = subject.session.step(action)
            history += [step.observation.obs, step.reward, step.score]
        return history

    first, again = play(), play()
    for before, after in zip(first, again, strict=True):
        _same(before, after, "the same seed led to another episode")
        _same(before[0], before[1], "two rows with one seed differ")
    if (first[0][0] == first[0][2]).all():
        raise _DoubtError(
            "seeds 7 and 8 begin alike", "draw the start from the seed, unless nothing is random in the task"
        )
    return "an episode is its seed, in any row"


def _all_seeds(subject: Subject) -> str:
    seeds = [0, _LARGEST_SEED, 2**63]
    shown = subject.session.reset(rows=[0, 1, 2], seeds=seeds).episode_seed.tolist()
    _require(shown == seeds, f"asked for {seeds}, got {shown}")
    return "0 to 2^64 - 1"


def _sequences(subject: Subject) -> str:
    def play() -> list[list[int]]:
        subject.session.reset(seeds=[5, 6, 7])
        return [subject.session.reset().episode_seed.tolist() for _ in range(2)]

    first, again = play(), play()
    _require(first == again, f"the seeds after 5, 6, 7 were {first}, then {again}")
    _require(len({seed for seeds in first for seed in seeds}) == 2 * ROWS, f"seeds repeat: {first}")
    return "episodes after a seed repeat with it"


def _rows_alone(subject: Subject) -> str:
    session = subject.session
    session.reset()
    stepped = session.step(subject.actions(1)[0]).observation
    partly = session.reset(rows=[1])
    _require(partly.episode_step.tolist() == [1, 0, 1], f"episode_step is {partly.episode_step.tolist()}")
    _same(stepped.obs[[0, 2]], partly.obs[[0, 2]], "rows that were not asked for have moved")
    _require(partly.episode_seed[1] != stepped.episode_seed[1], "the row began the same episode again")
    return "the others stay"


def _steps(subject: Subject) -> str:
    subject.session.reset()
    for number, action in enumerate(subject.actions(min(3, subject.task.episode_length - 1)), start=1):
        step = subject.session.step(action)
        _require(not step.crashed.any(), "a row is reported as crashed")
        if len(step.final_rows):
            raise _DoubtError(f"an episode ended after {number} steps", "fine, if the task may end so early")
        _require(np.isfinite(step.reward).all(), f"rewards {step.reward.tolist()} are not finite")
        _padded(subject, step.observation.obs)
        shown = step.observation.episode_step.tolist()
        _require(shown == [number] * ROWS, f"episode_step is {shown} after {number} steps")
        _success_and_score(subject, step)
    return "rewards, scores and observations are numbers"


def _success_and_score(subject: Subject, step: Step) -> None:
    _require(
        np.isfinite(step.success).all() if subject.task.has_success else np.isnan(step.success).all(),
        f"success is {step.success.tolist()}, but Describe says has_success={subject.task.has_success}",
    )
    _require(((step.score >= 0) & (step.score <= 1)).all(), f"scores {step.score.tolist()} are not in [0, 1]")


def _play_out(subject: Subject, session: SimSession) -> tuple[Step, int]:
    """Plays until row 0 has ended; returns that step and how many there were."""
    for number in range(1, subject.task.episode_length + 1):
        step = session.step(subject.actions(1, session.num_envs)[0])
        if 0 in step.final_rows:
            return step, number
    raise _WrongError(f"an episode goes on after episode_length, {subject.task.episode_length} steps")


def _ends(subject: Subject) -> str:
    with subject.open(2) as session:
        first = session.reset(seeds=[1, 1])
        last, length = _play_out(subject, session)
    _require(last.final_rows.tolist() == [0, 1], f"of two rows alike, {last.final_rows.tolist()} ended")
    over = last.terminated | last.truncated
    _require(over.all(), "a row in final_rows is neither terminated nor truncated")
    _require(length == subject.task.episode_length or last.terminated[0], f"truncated after {length} steps")
    _require(not last.observation.episode_step.any(), "the next episode did not begin in that step")
    _require((last.observation.episode_seed != first.episode_seed).all(), "the next episode has the same seed")
    _require((last.final_obs != last.observation.obs).any(), "final_obs is the next episode's first observation")
    _padded(subject, last.final_obs)
    _success_and_score(subject, last)
    return f"after {length} steps, with the last observation kept"


def _auto_reset(subject: Subject) -> str:
    results: dict[AutoReset, Step] = {}
    for mode in AutoReset:
        with subject.open(1, mode) as session:
            session.reset()
            results[mode], length = _play_out(subject, session)
            if mode is AutoReset.SAME_STEP:
                continue
            action = subject.actions(1, 1)[0]
            shown = results[mode].observation
            _same(results[mode].final_obs, shown.obs, f"{mode.name}: what is shown is not the last observation")
            _require(
                shown.episode_step[0] == length, f"{mode.name}: episode_step is {shown.episode_step[0]} at the end"
            )
            if mode is AutoReset.NEXT_STEP:
                begun = session.step(action)
                _require(begun.observation.episode_step[0] == 0, "NEXT_STEP: the next step did not begin an episode")
                _require(
                    begun.reward[0] == 0, f"NEXT_STEP: a restart in place of a step has the reward {begun.reward[0]}"
                )
            else:
                _refused(PreconditionError, partial(session.step, action), "DISABLED: a step behind the end")
                session.reset()
            step = session.step(action).observation.episode_step[0]
            _require(step == 1 or subject.task.episode_length == 1, f"{mode.name}: episode_step is {step}, expected 1")
    same = results.pop(AutoReset.SAME_STEP)
    for mode, other in results.items():
        _same(same.final_obs, other.final_obs, f"SAME_STEP and {mode.name} end an episode differently")
        _same(same.score, other.score, f"SAME_STEP and {mode.name} score an episode differently")
    return ", ".join(mode.name for mode in AutoReset)


def _frames(subject: Subject) -> str:
    try:
        drawn = subject.open(2, rgb=True)
        drawn.reset()
        drawn.render()
    except PreconditionError as error:
        raise _DoubtError(str(error), "videos, and agents that see, need frames") from error
    with drawn, subject.open(2) as plain:
        first, undrawn = drawn.reset(seeds=[1, 2]), plain.reset(seeds=[1, 2])
        _require(first.rgb is not None and first.rgb.shape[1:] == (3, 224, 224), "frames are not [3, 224, 224]")
        _same(undrawn.obs, first.obs, "drawing changes an episode")
        for action in subject.actions(min(2, subject.task.episode_length - 1), 2):
            seen = drawn.render()
            step, undrawn_step = drawn.step(action), plain.step(action)
            _same(undrawn_step.observation.obs, step.observation.obs, "drawing changes an episode")
            _same(undrawn_step.reward, step.reward, "drawing changes a reward")
            _require(seen.shape == (2, 224, 224, 3), f"Render brings {seen.shape}")
            _require(all(frame.std() > _DRAWN_STD for frame in seen), "a picture shows nothing")
            rgb = step.observation.rgb
            _require(rgb is not None, "a step brings no frames")
            assert rgb is not None
            _same(drawn.render(), rgb.transpose(0, 2, 3, 1), "Render draws otherwise than a step")
            # The same state, drawn where frames were not asked for; rows come in the order wanted.
            _same(plain.render([1, 0]), drawn.render()[::-1], "Render draws rows in another order, or another state")
    return "with observations, and by Render; episodes are the same without"


def _expert(subject: Subject) -> str:
    task, client = subject.task, subject.client
    if not task.has_expert:
        _refused(
            InvalidInputError, partial(client.open, [task.name], [0], with_expert=True), "with_expert", "with_expert"
        )
        return "there is none, and who asks for it is refused"
    with client.open([task.name], [0], with_expert=True) as session:
        observation = session.reset()
        for _ in range(min(task.episode_length, 20)):
            action = observation.expert_action
            _require(action is not None, "no expert_action comes")
            assert action is not None
            _require(not action[:, task.action_dim :].any(), "its columns behind the task's are not 0")
            observation = session.step(action).observation
    return "its actions are taken"


def _bad_values(subject: Subject) -> str:
    session = subject.session
    before = session.reset()
    action = subject.actions(1)[0]
    column = subject.task.action_dim - 1
    for bad in (math.nan, math.inf, -math.inf, 1.0001, -1.5):
        wrong = action.copy()
        wrong[1, column] = bad
        _refused(InvalidInputError, partial(session.step, wrong), f"an action of {bad}", "action")
    after = session.step(action)
    _require(after.observation.episode_step.tolist() == [1] * ROWS, "a refused action has moved something")
    fresh = session.reset(seeds=before.episode_seed.tolist())
    _same(before.obs, fresh.obs, "the same seed led to another episode")
    _same(after.observation.obs, session.step(action).observation.obs, "a refused action has moved something")
    return "NaN, infinity and more than 1 are refused before anything moves"


def _bad_arrays(subject: Subject) -> str:
    session, A = subject.session, PADDED_ACTION_DIM
    session.reset()
    wrong_ones: tuple[npt.NDArray[Any], ...] = (
        np.zeros((ROWS, A), np.int32),
        np.zeros((ROWS, A - 1), np.float32),
        np.zeros((ROWS - 1, A), np.float32),
        np.zeros((ROWS, A, 1), np.float32),
    )
    for wrong in wrong_ones:
        what = f"an action of {wrong.dtype}{list(wrong.shape)}"
        _refused(InvalidInputError, partial(session.step, wrong), what, "action")
    shown = session.step(subject.actions(1)[0]).observation.episode_step.tolist()
    _require(shown == [1] * ROWS, "a refused action has moved something")
    return "other types and shapes are refused"


def _reset_first(subject: Subject) -> str:
    with subject.client.open([subject.task.name] * 2, [1, 1]) as session:
        _refused(PreconditionError, partial(session.step, subject.actions(1, 2)[0]), "a step before the first reset")
        _refused(PreconditionError, session.render, "Render before the first reset")
        _refused(PreconditionError, partial(session.reset, rows=[0]), "a first reset of one row alone")
        opened = session.reset()
        _same(opened.obs[0], opened.obs[1], "rows that were opened with one seed begin differently")
    return "steps and frames wait for it"


# What depends on no task.


def _unknown_names(subject: Subject) -> str:
    client, task = subject.client, subject.task.name
    _refused(NotFoundError, partial(client.open, ["no-such-task"], [0]), "an unknown task")
    _refused(InvalidInputError, partial(client.open, [], []), "Open without a task", "envs")
    for lease_s in (-1.0, math.nan):
        _refused(InvalidInputError, partial(client.open, [task], [0], lease_s=lease_s), "a bad lease", "lease_s")
    with client.open([task], [0]) as session:
        session.reset()
    # Asked for by hand: the client itself knows that it has closed.
    renew = sim_pb2.RenewRequest(session_id=session._id)
    _refused(NotFoundError, partial(client.peer.call, client.stub.Renew, renew, client.timeout_s), "a closed session")
    close = sim_pb2.CloseRequest(session_id="never-opened")
    client.peer.call(client.stub.Close, close, client.timeout_s)  # harmless, so that it can be repeated
    return "unknown tasks and sessions are NOT_FOUND"


def _rows_and_seeds(subject: Subject) -> str:
    with subject.open(2) as session:
        session.reset()
        for call in (session.reset, session.render):
            _refused(InvalidInputError, partial(call, rows=[0, 2]), "row 2 of 2", "rows")
            _refused(InvalidInputError, partial(call, rows=[1, 1]), "row 1 twice", "rows")
        _refused(InvalidInputError, partial(session.reset, seeds=[1]), "one seed for two rows", "seeds")
    return "rows that are not there, or named twice, are refused"


def _step_numbers(subject: Subject) -> str:
    client = subject.client
    with subject.open(1) as session:
        session.reset()
        action = np.full((1, PADDED_ACTION_DIM), 0.5, np.float32)
        request = sim_pb2.StepRequest(session_id=session._id, step_number=1, action=encode(action))

        def step() -> sim_pb2.StepResponse:
            reply: sim_pb2.StepResponse = client.peer.call(client.stub.Step, request, client.timeout_s)
            return reply

        first = step()
        request.action.CopyFrom(encode(np.zeros((1, PADDED_ACTION_DIM), np.float32)))
        _require(step() == first, "the same step number again is answered otherwise")
        for number in (0, 3, 99):
            request.step_number = number
            _refused(PreconditionError, step, f"step number {number} after 1")
        request.step_number = 2
        shown = np.frombuffer(step().observation.episode_step.data, np.int32)[0]
        _require(shown == 2 or subject.task.episode_length < 3, f"episode_step is {shown} after 2 steps")
    return "a repeated step returns its reply, others are refused"


def _streams(subject: Subject) -> str:
    client = subject.client
    with subject.open(1) as one, subject.open(2) as two:
        one.reset()
        two.reset()
        requests = [
            sim_pb2.StepRequest(
                session_id=session._id, step_number=number, action=encode(subject.actions(1, session.num_envs)[0])
            )
            for number in (1, 2)
            for session in (one, two)
        ]
        replies = list(client.stub.StepStream(iter(requests), timeout=client.timeout_s))
        numbers = [reply.step_number for reply in replies]
        _require(numbers == [1, 1, 2, 2], f"StepStream answered steps 1, 1, 2, 2 with {numbers}")
        rows = [reply.reward.shape[0] for reply in replies]
        _require(rows == [1, 2, 1, 2], f"its replies have {rows} rows, expected 1, 2, 1, 2")
    return "StepStream carries several sessions, in turn"


def _leases(subject: Subject) -> str:
    with subject.client.open([subject.task.name], [0], lease_s=_LEASE_S) as session:
        session.reset()
        time.sleep(5 * _LEASE_S)
        _refused(PreconditionError, session.reset, f"a call {5 * _LEASE_S:g} s after the end of a lease")
    with subject.client.open([subject.task.name], [0], lease_s=3600) as session:
        _require(session.renew() > 0, "Renew brings no lease")
    return "a session that nobody calls ends"


OF_TASKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "description": (_description, "Describe and Open send the same SimTask, with every field set"),
    "first observation": (_first_observation, "Reset returns float32[N, 128], zero-padded"),
    "seeds": (_seeds, "draw all chance of an episode from its seed"),
    "all seeds": (_all_seeds, "seeds are uint64: fold them if your generator takes fewer bits"),
    "sequences": (_sequences, "derive the seeds of following episodes from the row's last explicit one"),
    "rows alone": (_rows_alone, "Reset touches the rows it names"),
    "steps": (_steps, "see StepResponse"),
    "episode ends": (_ends, "see StepResponse.final_obs, and AUTO_RESET_SAME_STEP"),
    "auto-reset": (_auto_reset, "see the enum AutoReset"),
    "frames": (_frames, "see OBS_MODE_STATE_RGB and Render"),
    "expert": (_expert, "see OpenRequest.with_expert and SimTask.has_expert"),
    "bad actions": (_bad_values, "check all rows before the first one moves; INVALID_ARGUMENT names the field"),
    "bad arrays": (_bad_arrays, "check type, shape and size of a Tensor; INVALID_ARGUMENT names the field"),
    "reset first": (_reset_first, "FAILED_PRECONDITION until all rows were reset"),
}
"""What is looked at in every task: by name, how, and what to do where it fails."""
OF_SERVICES: dict[str, tuple[Callable[[Subject], str], str]] = {
    "unknown names": (_unknown_names, "NOT_FOUND for unknown ids, INVALID_ARGUMENT with the field's name for the rest"),
    "rows and seeds": (_rows_and_seeds, "INVALID_ARGUMENT with the field's name"),
    "step numbers": (_step_numbers, "keep the last reply of a session: a lost one is asked for again"),
    "streams": (_streams, "serve the requests of a stream one after the other"),
    "leases": (_leases, "FAILED_PRECONDITION behind a lease's end; Renew starts it anew"),
}
"""What is looked at once: it depends on no task."""
_OPTIONAL = ("frames",)


def look(subject: Subject, name: str) -> Criterion:
    """Looks at one of `OF_TASKS` or `OF_SERVICES`."""
    check, remedy = (OF_TASKS | OF_SERVICES)[name]
    task, required = subject.task.name, name not in _OPTIONAL
    try:
        return Criterion(task, name, "passed", check(subject), required=required)
    except _DoubtError as doubt:
        return Criterion(task, name, "warning", str(doubt), doubt.remedy, required=False)
    except _WrongError as wrong:
        return Criterion(task, name, "failed", str(wrong), remedy, required)
    except NewtError as error:
        return Criterion(task, name, "failed", f"{type(error).__name__}: {error}", remedy, required)
    except Exception as error:  # A bare status of gRPC's: a stream that broke, a method that is not there.
        return Criterion(task, name, "failed", f"{type(error).__name__}: {error}".splitlines()[0], remedy, required)


def choose(client: SimClient, names: Sequence[str] = ()) -> list[Task]:
    """Tasks to look at: those named, or of each domain the one with the shortest episodes.

    Raises:
        NotFoundError: The service does not describe one of them, or none at all.
        UnavailableError: Nobody is there.
    """
    described = {task.name: task for task in client.describe()}
    unknown = [name for name in names if name not in described]
    if unknown or not described:
        raise NotFoundError(f"no task {', '.join(unknown)} there; Describe lists: {', '.join(described) or 'nothing'}")
    if names:
        return [described[name] for name in names]
    ordered = sorted(described.values(), key=lambda task: (task.episode_length, task.obs_dim))
    return list({task.domain: task for task in reversed(ordered)}.values())[::-1]


def examine(client: SimClient, tasks: Sequence[Task]) -> Iterator[Criterion]:
    """Looks at everything: once at the service, with the first of the tasks, and at each of them."""
    for number, task in enumerate(tasks):
        subject = Subject(client, task)
        try:
            for name in (*(OF_SERVICES if number == 0 else ()), *OF_TASKS):
                yield look(subject, name)
        finally:
            subject.close()
