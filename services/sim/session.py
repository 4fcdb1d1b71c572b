"""One session: N instances spread over the workers, stepped together."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from newt.errors import InvalidInputError, LostError, PreconditionError, UnavailableError
from newt.tasks.registry import Task
from newt.wire.limits import PADDED_ACTION_DIM
from newt.wire.tensors import decode, fill
from newt.wire.v1 import sim_pb2, tensor_pb2
from services.sim import metrics
from services.sim.block import SessionBlock
from services.sim.domains import DOMAINS
from services.sim.group import GroupSpec, Member
from services.sim.messages import DRAW, RESET, STEP, pack_build
from services.sim.pool import WorkerPool
from services.sim.process import Channel, RequestFailedError, WorkerLostError

log = structlog.get_logger(__name__)

_MAX_ATTEMPTS = 3
# What a step of a worker's light rows usually takes at most.
_LIGHT_STEP_S = 200e-6


@dataclass
class _Slot:
    """The session's rows in one worker; without a channel, their simulators do not exist."""

    worker: int
    rows: npt.NDArray[np.intp]
    spec: bytes
    channel: Channel | None = field(default=None)

    def disconnect(self) -> None:
        """Frees the simulators, if there are any."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None


class Session:
    """Built by the constructor; the caller serialises all other calls.

    A worker's death takes this session's instances in it along. They are then *crashed*: rebuilt when next needed,
    and reported as ended by the next step. All other rows go on.

    Args:
        tasks: Tasks of each row.
        seeds: Origin of each row's sequence of episodes.
        rgb: Draw a frame with every observation.
        same_step: Start the next episode in the step which ends one.
        next_step: Start it in the step after that. With neither, somebody has to reset.
        with_expert: Return the scripted expert's action with every observation.
        pool: The workers.
        timeout_s: Time for one piece of work of one instance (see Channel.wait).
        light_rows: Instances of light domains to a worker; see SimSettings.
        wanted: Whether somebody still waits for the session; asked between two instances.

    Raises:
        PreconditionError: An instance cannot be built, with the cause.
        LostError: A worker died while building.
        UnavailableError: Too many workers have died lately, or nobody waits any more.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        rgb: bool,
        same_step: bool,
        with_expert: bool,
        pool: WorkerPool,
        timeout_s: float,
        light_rows: int = 1,
        wanted: Callable[[], bool] = lambda: True,
        next_step: bool = False,
    ) -> None:
        self.tasks = list(tasks)
        for task in self.tasks:
            metrics.NOT_FINITE.labels(task.name)  # shown as 0 before there is one
        self._rgb, self._same_step, self._with_expert = rgb, same_step, with_expert
        self._next_step = next_step
        self._pool, self._timeout_s = pool, timeout_s
        self._rows = rows = len(tasks)
        self._block = SessionBlock(rows)
        self._block.origin[:] = np.asarray(seeds, np.uint64)
        self._used = np.zeros((rows, PADDED_ACTION_DIM), np.bool_)
        for row, task in enumerate(tasks):
            self._used[row, : task.action_dim] = True
        # Looked up once: a label costs more than counting.
        domains = Counter(task.domain for task in tasks)
        self._step_counters = [(metrics.STEPS.labels(domain), count) for domain, count in domains.items()]
        self._has_success = any(task.has_success for task in tasks)
        self._needs_reset = np.ones(rows, np.bool_)
        self._crashed = np.zeros(rows, np.bool_)
        self._due = np.zeros(rows, np.bool_)  # Rows that the step that was sent is to restart.
        self._observation: sim_pb2.Observation | None = None
        self._last_death = ""
        self._moving = 0  # Sequence number of the step that has been sent to the workers.
        self._reply = sim_pb2.StepResponse()
        # Light rows share a worker: waking another one would take longer than their step.
        light = not rgb and all(DOMAINS[task.domain].light for task in tasks)
        self._awake_s = _LIGHT_STEP_S if light else 0.0
        self._assigned = pool.assign(rows, math.ceil(rows / light_rows) if light else rows)
        self._slots = [self._make_slot(worker) for worker in sorted(set(self._assigned))]
        try:
            self._build(self._slots, wanted)
        except BaseException:
            self.close()
            raise

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> sim_pb2.Observation:
        """Starts new episodes.

        Args:
            rows: Which; empty means all.
            seeds: One for each of them, or none.

        Raises:
            InvalidInputError: Rows or seeds that do not fit.
            LostError: The simulators died again and again; call again for a last try.
        """
        block = self._block
        mask = self._mask("rows", rows)
        if seeds and len(seeds) != int(mask.sum()):
            raise InvalidInputError("seeds", f"got {len(seeds)} for {int(mask.sum())} rows; expected one each, or none")
        if rows and (self._needs_reset & ~mask).any() and self._observation is None:
            raise PreconditionError("the first Reset of a session must include all rows: leave `rows` empty")
        block.reset_seeded[:] = False
        if seeds:
            order = np.asarray(rows, np.intp) if rows else np.arange(self._rows)
            block.reset_seed[order] = np.asarray(seeds, np.uint64)
            block.reset_seeded[order] = True
        for _ in range(_MAX_ATTEMPTS):
            if not self._broadcast(RESET, mask):
                break
        else:
            raise LostError(f"the simulators died at every attempt to reset them; the last time, {self._last_death}")
        self._crashed &= ~mask
        self._needs_reset &= ~mask
        observation = sim_pb2.Observation()
        self._observe(observation)
        return observation

    def step(self, step_number: int, action: tensor_pb2.Tensor) -> sim_pb2.StepResponse:
        """One step of all rows, as the proto says.

        A step that failed half way (UNAVAILABLE, ABORTED) goes on where it was when it is repeated.

        Args:
            step_number: Position of the step.
            action: float32[N, A].

        Raises:
            InvalidInputError: An action is malformed; nothing has moved.
            PreconditionError: Wrong step number, or a row must be reset first.
            LostError: Instances died and could not be restarted.
            UnavailableError: Too many workers have died lately.
        """
        last = self._reply.step_number
        if step_number == last and step_number:
            return self._reply
        if step_number != last + 1:
            raise PreconditionError(
                f"got step_number {step_number}, expected {last + 1} (or {last} to repeat the last reply)"
            )
        if self._observation is None:
            raise PreconditionError("Reset the session before its first step")
        if self._needs_reset.any() and not self._next_step:
            row = int(np.argmax(self._needs_reset))
            raise PreconditionError(f"row {row}'s episode has ended and auto-reset is disabled; Reset it first")
        start = time.perf_counter()
        block = self._block
        if self._moving != step_number:
            block.action[:] = self._checked(action)
            self._moving = step_number
            self._due = self._needs_reset.copy()
            self._broadcast(STEP, ~self._crashed & ~self._due)
        if self._due.any():
            self._restart_due()
        if self._crashed.any():
            self._report_crashed()
        for counter, count in self._step_counters:
            counter.inc(count)
        reply = sim_pb2.StepResponse(step_number=step_number)
        self._observe(reply.observation)
        fill(reply.reward, block.reward)
        if self._has_success:
            fill(reply.success, block.success)
        fill(reply.score, block.score)
        if (block.corrected_score != block.score).any():
            fill(reply.corrected_score, block.corrected_score)
        ended = block.terminated | block.truncated
        if ended.any():
            self._report_ended(reply, ended)
        if block.error.any():
            fill(reply.errors, block.error)
            for failed in block.error.nonzero()[0]:
                metrics.ENV_ERRORS.labels(self.tasks[failed].domain).inc()
        self._reply = reply
        metrics.STEP_SECONDS.observe(time.perf_counter() - start)
        return reply

    def render(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Draws rows as they are now.

        Args:
            rows: Which, in the order wanted; empty means all.

        Returns:
            uint8[R, 224, 224, 3].

        Raises:
            InvalidInputError: Unknown or repeated rows.
            PreconditionError: Before the first reset, or no driver to draw with.
            LostError: Their simulators have died; the next step reports it.
        """
        mask = self._mask("rows", rows)
        if self._observation is None:
            raise PreconditionError("Reset the session before drawing it")
        if (self._crashed & mask).any() or self._broadcast(DRAW, mask):
            raise LostError("the rows' simulators died; the next Step reports them, then they can be drawn again")
        return self._block.frames[np.asarray(rows, np.intp)] if rows else self._block.frames

    def close(self) -> None:
        """Gives the instances back; idempotent."""
        for slot in self._slots:
            slot.disconnect()
        if self._assigned:
            self._pool.release(self._assigned)
            self._assigned = []
            self._block.close()

    def _make_slot(self, worker: int) -> _Slot:
        rows = np.flatnonzero(np.asarray(self._assigned) == worker)
        members = tuple(
            Member(int(row), task.name, task.domain, task.obs_dim, task.action_dim)
            for row in rows
            for task in (self.tasks[row],)
        )
        spec = GroupSpec(self._rows, members, self._rgb, self._same_step, self._with_expert)
        return _Slot(worker, rows, spec.dump())

    def _build(self, slots: Sequence[_Slot], wanted: Callable[[], bool] = lambda: True) -> None:
        """Builds the instances of slots, in all their workers at once, for as long as they are wanted."""
        try:
            for slot in slots:
                slot.channel = self._pool.attach(slot.worker, slot.spec, self._block.descriptor, self._timeout_s)
                for row in slot.rows:
                    slot.channel.send(pack_build(int(row)))
            for slot in slots:
                assert slot.channel is not None
                for _ in slot.rows:
                    slot.channel.wait()
                    if not wanted():
                        # Workers drop what is left of a closed session: a caller who tries again must not wait for it.
                        raise UnavailableError("the caller did not wait for the session to be built; open it again")
        except BaseException as error:
            for slot in slots:
                slot.disconnect()
            if isinstance(error, WorkerLostError):
                raise LostError(f"a worker process died while it built instances: {error}") from error
            if isinstance(error, RequestFailedError):
                raise PreconditionError(f"cannot build the instances: {error}") from error
            raise

    def _broadcast(self, message: bytes, mask: npt.NDArray[np.bool_]) -> bool:
        """Sends a request to the workers of the masked rows and waits for all of them.

        Rows whose simulators do not exist are rebuilt first. Returns whether any slot was lost on the way; its
        rows are then marked as crashed and show their last observation.

        Raises:
            PreconditionError: A request to draw that failed.
            LostError: Any other request that failed, after the simulators concerned were given up.
        """
        self._block.active[:] = mask
        slots = self._slots if mask.all() else [slot for slot in self._slots if mask[slot.rows].any()]
        dead = [slot for slot in slots if slot.channel is None]
        if dead:
            self._build(dead)
        lost, failures = [], []
        sent = []
        for slot in slots:
            assert slot.channel is not None
            try:
                slot.channel.send(message)
                sent.append(slot)
            except WorkerLostError as error:
                lost.append((slot, error))
        for slot in sent:
            assert slot.channel is not None
            try:
                slot.channel.wait(self._awake_s)
            except WorkerLostError as error:
                lost.append((slot, error))
            except RequestFailedError as error:
                failures.append((slot, error))
        for row in self._block.not_finite.nonzero()[0]:
            metrics.NOT_FINITE.labels(self.tasks[row].name).inc(int(self._block.not_finite[row]))
            self._block.not_finite[row] = 0
        for slot, death in lost:
            cause = str(death).splitlines()[0]
            tasks = sorted({self.tasks[row].name for row in slot.rows})
            self._last_death = f"with {', '.join(tasks)} in it, {cause}"
            log.error("instances_lost", rows=slot.rows.tolist(), tasks=tasks, cause=cause)
            self._give_up(slot)
        if failures and message == DRAW:
            raise PreconditionError(str(failures[0][1]))
        if failures:
            for slot, _ in failures:
                self._give_up(slot)
            raise LostError(f"simulators failed and were given up; call again to restart them ({failures[0][1]})")
        return bool(lost)

    def _give_up(self, slot: _Slot) -> None:
        slot.disconnect()
        self._crashed[slot.rows] = True
        # The worker may have died half way through the rows.
        last = self._observation
        if last is not None:
            block = self._block
            columns: list[tuple[tensor_pb2.Tensor, npt.NDArray[Any]]]
            columns = [(last.obs, block.obs), (last.episode_seed, block.episode_seed)]
            columns.append((last.episode_step, block.episode_step))
            if self._rgb:
                columns.append((last.rgb, block.rgb))
            if self._with_expert:
                columns.append((last.expert_action, block.expert_action))
            for tensor, array in columns:
                array[slot.rows] = np.frombuffer(tensor.data, array.dtype).reshape(array.shape)[slot.rows]

    def _restart_due(self) -> None:
        """Starts the next episode of the rows that are due, in place of a step."""
        block, due = self._block, self._due.copy()
        block.reset_seeded[:] = False
        self._broadcast(RESET, due & ~self._crashed)
        block.reward[due] = block.score[due] = block.corrected_score[due] = 0.0
        block.success[due] = np.nan
        block.terminated[due] = block.truncated[due] = False
        self._needs_reset &= ~due
        self._due[:] = False

    def _report_crashed(self) -> None:
        """Ends the episodes of crashed rows as the contract says, and restarts their simulators."""
        block = self._block
        for _ in range(_MAX_ATTEMPTS):
            crashed = self._crashed.copy()
            block.final_obs[crashed] = block.obs[crashed]
            if self._rgb:
                block.final_rgb[crashed] = block.rgb[crashed]
            block.reset_seeded[:] = False
            if self._same_step:
                if self._broadcast(RESET, crashed):
                    continue
            else:
                self._build([slot for slot in self._slots if slot.channel is None])
            block.reward[crashed] = np.nan
            block.terminated[crashed] = False
            block.truncated[crashed] = True
            block.success[crashed] = np.nan
            block.error[crashed] = sim_pb2.ENV_ERROR_CRASHED
            self._crashed[:] = False
            return
        raise LostError(
            "the simulators died at every attempt to restart them; repeat this step for a last try. The last time, "
            f"{self._last_death}"
        )

    def _checked(self, tensor: tensor_pb2.Tensor) -> npt.NDArray[np.float32]:
        action = decode(tensor, "action", dtype=np.float32, shape=(self._rows, PADDED_ACTION_DIM))
        good = np.abs(action) <= 1  # False for NaN as well.
        if not good.all() and (bad := ~good & self._used).any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise InvalidInputError(
                "action",
                f"value {action[row, column]} at row {row}, column {column} ({self.tasks[row].name}); expected a "
                "finite number in [-1, 1]. Nothing has moved.",
            )
        return action

    def _mask(self, name: str, rows: Sequence[int]) -> npt.NDArray[np.bool_]:
        mask = np.zeros(self._rows, np.bool_)
        for row in rows:
            if row >= self._rows or mask[row]:
                problem = "twice" if row < self._rows else f"of {self._rows}"
                raise InvalidInputError(
                    name, f"got row {row} {problem}; expected each of 0..{self._rows - 1} at most once"
                )
            mask[row] = True
        if not rows:
            mask[:] = True
        return mask

    def _observe(self, observation: sim_pb2.Observation) -> None:
        """Fills the message with what the block shows now, and keeps it."""
        block = self._block
        fill(observation.obs, block.obs)
        if self._rgb:
            fill(observation.rgb, block.rgb)
        if self._with_expert:
            fill(observation.expert_action, block.expert_action)
        fill(observation.episode_seed, block.episode_seed)
        fill(observation.episode_step, block.episode_step)
        self._observation = observation

    def _report_ended(self, reply: sim_pb2.StepResponse, ended: npt.NDArray[np.bool_]) -> None:
        block = self._block
        if not self._same_step:
            self._needs_reset[ended] = True
        final_rows = ended.nonzero()[0].astype(np.int32)
        fill(reply.terminated, block.terminated)
        fill(reply.truncated, block.truncated)
        fill(reply.final_rows, final_rows)
        fill(reply.final_obs, block.final_obs[final_rows])
        if self._rgb:
            fill(reply.final_rgb, block.final_rgb[final_rows])
