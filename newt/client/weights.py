"""Client of the weights hub: publish a version of a model, copy and retire a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from newt.wire.channels import Channels, connect
from newt.wire.chunks import Weights, split
from newt.wire.peer import Peer
from newt.wire.v1 import weights_pb2, weights_pb2_grpc


def publish(
    hub_target: str,
    model_id: str,
    weights_version: int,
    payload: bytes,
    plan_config_json: str,
    *,
    timeout_s: float,
    channels: Channels | None = None,
) -> int:
    """Uploads a version of a model; waits for the hub to appear within the deadline.

    Sending the same version again is harmless, so a failed call can be repeated.

    Args:
        hub_target: `host:port` of the hub.
        model_id: Id of the model; for training runs, the run's.
        weights_version: 1 or more, higher than the last one.
        payload: What newt.agent.checkpoints.weights_to_bytes returns.
        plan_config_json: Planning settings to serve the model with, as JSON.
        timeout_s: Deadline of the call.
        channels: Keeps the connection for the versions to come; None: there is one for this call.

    Returns:
        Planners subscribed at that moment.

    Raises:
        PreconditionError: The hub holds a newer version.
        CorruptDataError: Bytes were changed on the way.
        InvalidInputError: The id, the version or the size is refused.
        UnavailableError: The hub could not be reached, or not within the deadline.
    """
    weights = Weights(model_id, weights_version, payload, plan_config_json)
    with connect(hub_target) if channels is None else nullcontext(channels.to(hub_target)) as channel:
        stub = weights_pb2_grpc.WeightsServiceStub(channel)
        # A generator of chunks cannot be sent twice, so each try makes its own.
        reply = _hub(hub_target).call(
            lambda weights, timeout: stub.Publish(_chunks(weights), timeout=timeout), weights, timeout_s
        )
    return int(reply.subscribers)


def copy(hub_target: str, model_id: str, copy_id: str, *, timeout_s: float) -> int:
    """Has the hub keep its newest version of a model under another id, too; waits for one within the deadline.

    Returns:
        The version, which stays as it is until the copy is made anew or retired.

    Raises:
        InvalidInputError: Not two model ids.
        UnavailableError: The hub could not be reached, or held no version, within the deadline.
    """
    with connect(hub_target) as channel:
        stub = weights_pb2_grpc.WeightsServiceStub(channel)
        request = weights_pb2.CopyRequest(model_id=model_id, copy_id=copy_id)
        return int(_hub(hub_target).call(stub.Copy, request, timeout_s).weights_version)


def retire(hub_target: str, model_id: str, *, timeout_s: float) -> None:
    """Removes a model from the hub and from all planners; an unknown one is not an error.

    Raises:
        InvalidInputError: Not a model id.
        UnavailableError: The hub could not be reached, or not within the deadline.
    """
    with connect(hub_target) as channel:
        stub = weights_pb2_grpc.WeightsServiceStub(channel)
        _hub(hub_target).call(stub.Retire, weights_pb2.RetireRequest(model_id=model_id), timeout_s)


def _hub(target: str) -> Peer:
    return Peer("weights hub", target, remedy="start the learner, or correct the address")


def _chunks(weights: Weights) -> Iterator[weights_pb2.PublishRequest]:
    return (weights_pb2.PublishRequest(chunk=chunk) for chunk in split(weights))
