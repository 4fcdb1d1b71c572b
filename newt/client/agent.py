"""A trained agent behind the planner service."""

from __future__ import annotations

from types import TracebackType
from typing import Self, Unpack

import numpy as np
import numpy.typing as npt

from newt.acting.facts import AgentFacts, listed
from newt.acting.plans import ActMode, Carry, Floats, Plan, PlanCarry, PlanOptions, Plans
from newt.acting.queue import ActingCounts, Pace, QueueCarry
from newt.acting.recording import Recorder
from newt.acting.session import ActingSession
from newt.client.planner import PlannerClient, ServedModel
from newt.client.shards import Replay, replay_client
from newt.errors import InvalidInputError, NotFoundError, PreconditionError


class RemoteAgent(ActingSession):
    """An agent that planners serve, a run's or one that `newt serve` gave them; used as `newt.agent.Agent`.

        with RemoteAgent("walker", address="127.0.0.1:50071") as agent:
            action = agent.act(obs, task="walker-walk")   # float32[A] in [-1, 1]
            agent.reset()                                 # before the next episode

    Newer weights of the model are used as they come. It needs no torch.

    With `deadline_s`, a robot is not kept waiting: when a plan is late, `act` returns the next step of an earlier one,
    and `counts` tells so. Only the first step of an episode waits for its plan.

    Args:
        model_id: A run, or a name that `newt serve` gave.
        address: `host:port` of the planner.
        record: Append the episodes that are lived through to the replay of `model_id`, a run, which learns from them.
            Tell `agent.reward(r)` after each action, and `agent.finish(obs)` at the end of an episode.
        replay: `host:port` of the replay service, where episodes are recorded; of several, with commas.
        timeout_s: How long a plan may take before it counts as failed, waiting for the service included.
        deadline_s: How long `act` may take; None waits for every plan.
        seed: Origin of all randomness; None draws one.
        mode: `planner` or `policy`; None: as the agent was trained to act.
        explore: Add exploration noise.
        constraint_weight: Share of the policy in a plan's first proposal, in [0, 1]; None: as training had it.
        horizon: Steps of a plan, up to 64; None: as training had them. Longer plans bridge more late ones.

    Raises:
        NotFoundError: The planner serves no such model; names those that it serves. Or nothing is recorded for it: it
            is no run, or has not begun to collect.
        PreconditionError: It refused the model's weights, or is too old.
        UnavailableError: No planner answered before the deadline.
        InvalidInputError: An argument makes no sense.
    """

    def __init__(
        self,
        model_id: str,
        address: str = "127.0.0.1:50071",
        *,
        record: bool = False,
        replay: str = "127.0.0.1:50061",
        timeout_s: float = 10.0,
        deadline_s: float | None = None,
        seed: int | None = None,
        mode: ActMode | None = None,
        explore: bool = False,
        constraint_weight: float | None = None,
        horizon: int | None = None,
    ) -> None:
        if deadline_s is not None and not (isinstance(deadline_s, int | float) and 0 < deadline_s < timeout_s):
            raise InvalidInputError(
                "deadline_s", f"got {deadline_s!r}, expected seconds above 0 and below timeout_s {timeout_s:g}, or None"
            )
        self._client = PlannerClient(address)
        self._replay = replay_client(replay) if record else None
        self._pace = None if deadline_s is None else Pace(deadline_s)
        try:
            model = _find(self._client, model_id, timeout_s)
            facts = _facts(model)
            super().__init__(
                _RemotePlans(self._client, model, timeout_s),
                facts,
                seed=seed,
                mode=mode,
                explore=explore,
                constraint_weight=constraint_weight,
                horizon=horizon,
                carry=self._carried,
                recorder=None if self._replay is None else _recorder(self._replay, model_id, facts, timeout_s),
            )
        except BaseException:
            self.close()
            raise

    @property
    def counts(self) -> ActingCounts:
        """What became of the steps so far; all 0 without a deadline."""
        return ActingCounts() if self._pace is None else self._pace.counts

    def close(self) -> None:
        """Closes the connection."""
        if self._pace is not None:
            self._pace.close()
        if self._replay is not None:
            self._replay.close()
        self._client.close()

    def _carried(self, plans: Plans, random: np.random.Generator) -> Carry:
        return PlanCarry(plans, random) if self._pace is None else QueueCarry(plans, random, self._pace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _RemotePlans:
    """One model of a planner, whose weights may be replaced at any time."""

    def __init__(self, client: PlannerClient, model: ServedModel, timeout_s: float) -> None:
        self._client, self._timeout_s = client, timeout_s
        self._model_id, self._facts = model.model_id, _facts(model)
        self._version = model.weights_version

    def plan(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        seed: npt.NDArray[np.uint64],
        *,
        prev_mean: Floats | None = None,
        first: npt.NDArray[np.bool_] | None = None,
        image: Floats | None = None,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """As `PlannerClient.plan`.

        Raises:
            PreconditionError: The model was replaced by one of other tasks.
        """
        timeout_s, model_id = self._timeout_s, self._model_id
        try:
            plan = self._client.plan(
                model_id, obs, task, seed, prev_mean=prev_mean, first=first, image=image, timeout_s=timeout_s, **options
            )
        except InvalidInputError as error:
            if error.field != "prev_mean":
                raise
            # The new weights plan further than the old ones did, or less far.
            plan = self._client.plan(
                model_id, obs, task, seed, first=first, image=image, timeout_s=timeout_s, **options
            )
        if plan.weights_version != self._version:
            # A row of the task table means something else in another table.
            if _facts(_find(self._client, model_id, timeout_s)) != self._facts:
                raise PreconditionError(
                    f"model {model_id!r} was replaced by one that knows other tasks or acts differently; make a new "
                    "RemoteAgent"
                )
            self._version = plan.weights_version
        return plan


def _recorder(replay: Replay, run_id: str, facts: AgentFacts, timeout_s: float) -> Recorder:
    """What records for a run. Raises NotFoundError unless it has a buffer."""
    replay.get_buffer(run_id, timeout_s)
    return Recorder(facts, lambda episode: replay.append(episode, buffer_id=run_id, timeout_s=timeout_s))


def _find(client: PlannerClient, model_id: str, timeout_s: float) -> ServedModel:
    served = {model.model_id: model for model in client.models(timeout_s=timeout_s)}
    if model_id in served:
        return served[model_id]
    refused = client.refused(timeout_s=timeout_s)
    if model_id in refused:
        raise PreconditionError(f"the {client.peer} refused model {model_id!r}: {refused[model_id]}")
    names = listed(sorted(served)) or "none"
    raise NotFoundError(
        f"the {client.peer} has no model {model_id!r}; it serves {names}. `newt serve CHECKPOINT` gives it one"
    )


def _facts(model: ServedModel) -> AgentFacts:
    if len(model.action_dims) != len(model.tasks) or len(model.obs_dims) != len(model.tasks):
        raise PreconditionError("the planner does not tell what its models act on: update it to this version")
    return AgentFacts(model.tasks, model.action_dims, model.obs_dims, model.image_dim, model.mode)
