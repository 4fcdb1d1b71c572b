"""The whole service in one object: Redis, mirror, monitor and gRPC server."""

from __future__ import annotations

from newt.security import redis_address
from newt.wire.server import Server
from newt.wire.v1 import replay_pb2_grpc
from services.replay.catalog import Catalog
from services.replay.monitor import Monitor
from services.replay.servicer import ReplayServicer
from services.replay.settings import ReplaySettings
from services.replay.store import Store

NAME = "newt.v1.ReplayService"


class ReplayService:
    """Builds the parts; the caller starts `server`, then calls `start`; then `drain`, stop the server, `close`."""

    def __init__(self, settings: ReplaySettings) -> None:
        self._store = Store(redis_address(settings.redis_url), settings.redis_timeout_s, settings.remembered_ids)
        self._catalog = Catalog(self._store)
        self.server = Server(
            NAME, settings.host, settings.port, settings.max_threads, settings.max_streams, env_prefix="NEWT_REPLAY_"
        )
        replay_pb2_grpc.add_ReplayServiceServicer_to_server(ReplayServicer(self._catalog), self.server.grpc)
        self._monitor = Monitor(
            self._store, self._catalog, self.server.set_ready, settings.redis_check_s, settings.appendfsync
        )

    def start(self) -> None:
        """Connects to Redis and loads the mirror in the background; ready when that is done."""
        self._monitor.start()

    def drain(self) -> None:
        """Ends the calls that wait and all streams of batches, so that their clients look for another instance."""
        self._monitor.stop()
        self._catalog.close()

    def close(self) -> None:
        """Lets go of Redis; after drain."""
        self._store.close()
