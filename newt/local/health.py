"""Is a service of the local stack ready?"""

from __future__ import annotations

import urllib.error
import urllib.request

import redis
from pydantic import SecretStr

from newt.local import stack
from newt.local.stack import ServiceSpec
from newt.security import redis_address
from newt.wire import probe

# Loopback has no proxy, whatever the environment says of one.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_ready(spec: ServiceSpec, timeout_s: float = 1.0) -> bool:
    """Asks the service once, by the protocol it has."""
    if spec.health == "redis":
        return _redis(spec, timeout_s)
    if spec.health == "http":
        return _http(spec, timeout_s)
    return probe.check(spec.address, spec.health, timeout_s) is None


def _redis(spec: ServiceSpec, timeout_s: float) -> bool:
    client = redis.Redis.from_url(
        redis_address(SecretStr(stack.redis_url(spec.port))), socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _http(spec: ServiceSpec, timeout_s: float) -> bool:
    try:
        with _DIRECTLY.open(f"http://{spec.address}/healthz", timeout=timeout_s) as reply:
            return int(reply.status) == 200
    except (urllib.error.URLError, OSError):
        return False
