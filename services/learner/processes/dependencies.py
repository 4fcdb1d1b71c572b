"""Which of the services that runs need can be reached now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.errors import NewtError
from newt.runs.record import Readiness
from newt.wire.addresses import split_addresses
from newt.wire.channels import Channels
from newt.wire.status import from_rpc_error, rpc_code
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings

CHECK_TIMEOUT_S = 2.0
CACHE_S = 2.0


class Dependencies:
    """Asks Redis, replay, planner and simulators whether they are there; answers are kept for two seconds.

    Args:
        records: Run records.
        settings: Settings with the targets.
    """

    def __init__(self, records: Records, settings: LearnerSettings) -> None:
        self._broken = records.broken
        self._channels = Channels()
        self._checks: dict[str, Callable[[], None]] = {
            "redis": records.ping,
            "planner": partial(self._check_health, settings.planner, "newt.v1.PlannerService"),
        }
        shards = split_addresses(settings.replay)
        for number, target in enumerate(shards):
            name = "replay" if len(shards) == 1 else f"replay-{number}"
            self._checks[name] = partial(self._check_health, target, "newt.v1.ReplayService")
        for domain, target in settings.sims.items():
            self._checks[f"sim-{domain}"] = partial(self._check_health, target, "newt.v1.SimService")
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, str]] | None = None

    def missing(self) -> dict[str, str]:
        """What cannot be reached: name to reason."""
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > CACHE_S:
                with ThreadPoolExecutor(len(self._checks)) as pool:
                    reasons = dict(zip(self._checks, pool.map(_reason, self._checks.values()), strict=True))
                found = {name: reason for name, reason in reasons.items() if reason is not None}
                self._known = (time.monotonic(), found)
            return self._known[1]

    def readiness(self) -> Readiness:
        """The body of GET /readyz."""
        missing = self.missing()
        sims = {name for name in self._checks if name.startswith("sim-")}
        if not sims:
            missing = {**missing, "sims": "no simulator is configured; set NEWT_LEARNER_SIMS"}
        # Of the simulators one is enough for some runs: a deployment names all domains and starts a few.
        ready = bool(sims - missing.keys()) and missing.keys() <= sims
        return Readiness(ready=ready, missing=missing, broken=self._broken.all())

    def has_sim(self, domain: str) -> bool:
        """Whether the domain's simulator can be reached."""
        return f"sim-{domain}" in self._checks and f"sim-{domain}" not in self.missing()

    def _check_health(self, target: str, service: str) -> None:
        stub = health_pb2_grpc.HealthStub(self._channels.to(target))
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CHECK_TIMEOUT_S)
        if reply.status != health_pb2.HealthCheckResponse.SERVING:
            raise RuntimeError(f"{target} answers, but is not ready")


def _reason(check: Callable[[], None]) -> str | None:
    try:
        check()
    except grpc.RpcError as error:
        translated = from_rpc_error(error)
        code = rpc_code(error)
        return str(translated) if isinstance(translated, NewtError) else code.name if code else repr(error)
    except (NewtError, RuntimeError) as error:
        return str(error)
    return None
