"""Real replay services, in this process or as one of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.local.ports import free_port
from newt.local.redis_server import RedisServer
from newt.wire.channels import connect
from services.replay.service import NAME, ReplayService
from services.replay.settings import ReplaySettings


@contextlib.contextmanager
def serving(redis: RedisServer, **settings: object) -> Iterator[ReplayService]:
    """A ready service in this process."""
    values = {"port": 0, "redis_url": redis.url, "redis_timeout_s": 1.0, "redis_check_s": 0.1, "stop_grace_s": 0.2}
    service = ReplayService(ReplaySettings(**{**values, **settings}))
    service.server.start()
    service.start()
    try:
        wait_ready(service.server.address)
        yield service
    finally:
        service.drain()
        service.server.stop(0.2)
        service.close()


def wait_ready(address: str, ready: bool = True) -> None:
    """Waits until the health service says so."""
    want = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    # A connection of its own: a shared one may still be that to a predecessor who was killed.
    with connect(address, one_replica=True) as channel:
        request = health_pb2.HealthCheckRequest(service=NAME)
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30, wait_for_ready=True)
        for response in watch:
            if response.status == want:
                watch.cancel()
                return


class ServiceProcess:
    """`python -m services.replay` on a fixed port, to be killed and started again."""

    def __init__(self, redis_url: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._redis_url = redis_url
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {
            "NEWT_REPLAY_PORT": str(self.port),
            "NEWT_REPLAY_REDIS_URL": self._redis_url,
            "NEWT_REPLAY_REDIS_CHECK_S": "0.1",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "services.replay"], env={**os.environ, **env})

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)
