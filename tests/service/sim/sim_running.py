"""A real simulator service inside the test process."""

from services.sim.service import SimService
from services.sim.settings import SimSettings


class RunningServer:
    """A simulator service on a free port, in this process; its workers are real processes."""

    def __init__(self, **settings: object) -> None:
        defaults = {"port": 0, "workers": 2, "light_rows": 1, "domains": ("noop",), "log_level": "ERROR"}
        self.service = SimService(SimSettings(**{**defaults, **settings}))
        self.service.server.start()
        self.service.warm_up()
        self.address = self.service.server.address
        self.pids = self.service.pool.pids

    def close(self) -> None:
        self.service.server.stop(0.5)
        self.service.close()
