"""A trained agent behind the planner service."""

from __future__ import annotations

import dataclasses
from types import TracebackType
from typing import Self, Unpack

import numpy as np
import numpy.typing as npt

from newt.acting.facts import AgentFacts, listed
from newt.acting.plans import ActMode, Floats, Plan, PlanOptions
from newt.acting.session import ActingSession
from newt.client.planner import PlannerClient, ServedModel
from newt.errors import NotFoundError, PreconditionError


class RemoteAgent(ActingSession):
    """An agent that planners serve, a run's or one that `newt serve` gave them; used as `newt.agent.Agent`.

        with RemoteAgent("walker", address="127.0.0.1:50071") as agent:
            action = agent.act(obs, task="walker-walk")   # float32[A] in [-1, 1]
            agent.reset()                                 # before the next episode

    Newer weights of the model are used as they come. It needs no torch.

    Args:
        model_id: A run, or a name that `newt serve` gave.
        address: `host:port` of the planner.
        timeout_s: Deadline of a plan, waiting for the service included.
        seed: Origin of all randomness; None draws one.
        mode: `planner` or `policy`; None: as the agent was trained to act.
        explore: Add exploration noise.
        constraint_weight: Share of the policy in a plan's first proposal, in [0, 1]; None: as training had it.

    Raises:
        NotFoundError: The planner serves no such model; names those that it serves.
        PreconditionError: It refused the model's weights, or is too old.
        UnavailableError: No planner answered before the deadline.
        InvalidInputError: An argument makes no sense.
    """

    def __init__(
        self,
        model_id: str,
        address: str = "127.0.0.1:50071",
        *,
        timeout_s: float = 10.0,
        seed: int | None = None,
        mode: ActMode | None = None,
        explore: bool = False,
        constraint_weight: float | None = None,
    ) -> None:
        self._client = PlannerClient(address)
        try:
            facts = _facts(_find(self._client, model_id, timeout_s))
            super().__init__(
                _RemotePlans(self._client, model_id, timeout_s),
                facts,
                seed=seed,
                mode=mode,
                explore=explore,
                constraint_weight=constraint_weight,
            )
        except BaseException:
            self._client.close()
            raise

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class _RemotePlans:
    """One model of a planner."""

    client: PlannerClient
    model_id: str
    timeout_s: float

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
        """As `PlannerClient.plan`."""
        return self.client.plan(
            self.model_id,
            obs,
            task,
            seed,
            prev_mean=prev_mean,
            first=first,
            image=image,
            timeout_s=self.timeout_s,
            **options,
        )


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
