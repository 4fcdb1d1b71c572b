"""What runs on one machine: the services, their ports and environments, in the order they start."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from newt.local import ports
from newt.local.redis_server import USER
from newt.security import SecuritySettings
from newt.tasks.domains import DOMAINS
from newt.wire.polling import GRPC_ENVIRONMENT

# Default ports of `newt up`; also those of the containers.
REST_PORT = 8000
PORTS = {"redis": 6379, "replay": 50061, "planner": 50071, "hub": 50081}
# One for each domain, whichever of them are installed: what clients are told stays true.
SIM_PORTS = {domain: 50051 + i for i, domain in enumerate(DOMAINS)}
FIRST_METRICS_PORT = 9101

# In the stack's home; its supervisor writes it, the commands read it.
STATE_FILE = "stack.json"
# How long a service has to end by itself.
STOP_GRACE_S = 20.0
# What `newt up` passes on of its own environment: where things are on this machine, and the switches of security.
PASSED_ON = ("NEWT_LEARNER_IMAGE_ENCODER", "NEWT_LEARNER_IMAGE_DEVICE", "NEWT_TLS_DIR", "NEWT_REDIS_PASSWORD_FILE")
LEARNER_ONLY = ("NEWT_API_TOKEN", "NEWT_API_TOKEN_FILE")


def installed_domains() -> tuple[str, ...]:
    """The simulator domains whose packages are installed here."""
    from services.sim import domains  # The command line can be installed without the services.

    return tuple(domains.installed_domains())


@dataclass(frozen=True)
class StackConfig:
    """What `newt up` was asked for.

    Attributes:
        home: Folder of the state file, logs, Redis data, checkpoints and videos.
        domains: Simulator domains to start, one process each.
        fixed_ports: The documented ports; False picks free ones (several stacks side by side).
        sim_workers: Worker processes per simulator service; 0 lets the service decide.
        planner_threads: Torch threads of the planner.
        trainer_threads: Torch threads of each trainer.
        owner_pid: The stack stops when this process is gone; 0 lets it run until `newt down`.
    """

    home: Path
    domains: tuple[str, ...]
    fixed_ports: bool = True
    sim_workers: int = 0
    planner_threads: int = 1
    trainer_threads: int = 1
    owner_pid: int = 0

    def to_json(self) -> str:
        """The config as one line, for the supervisor's command line."""
        return json.dumps({**asdict(self), "home": str(self.home)})

    @staticmethod
    def from_json(text: str) -> StackConfig:
        """Inverse of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        values["home"] = Path(values["home"])
        values["domains"] = tuple(values["domains"])
        return StackConfig(**values)


@dataclass(frozen=True)
class ServiceSpec:
    """One process of the stack.

    Attributes:
        name: Unique name, also of its log file.
        argv: Command line.
        env: Environment variables added to ours.
        port: Port that it serves.
        health: "redis", "http" (GET /healthz) or the full name of a gRPC service.
        metrics_port: Port of its Prometheus endpoint; None if it has none.
    """

    name: str
    argv: Sequence[str]
    port: int
    health: str
    env: Mapping[str, str] = field(default_factory=dict)
    metrics_port: int | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"{ports.HOST}:{self.port}"


def redis_url(port: int) -> str:
    """Address of the stack's Redis without its password, which everybody reads from its file."""
    user = f"{USER}@" if SecuritySettings().redis_password_file else ""
    return f"redis://{user}{ports.HOST}:{port}/0"


def build(config: StackConfig) -> list[ServiceSpec]:
    """The processes of a stack, in the order in which they start.

    Raises:
        OSError: A fixed port is taken; the message names the service, the port and the remedy.
    """
    taken: list[str] = []

    def pick(name: str, fixed: int) -> int:
        if not config.fixed_ports:
            return ports.free_port()
        if not ports.is_free(fixed):
            taken.append(f"{name} needs port {fixed}")
        return fixed

    redis = pick("redis", PORTS["redis"])
    replay = pick("replay", PORTS["replay"])
    planner = pick("planner", PORTS["planner"])
    hub = pick("learner", PORTS["hub"])
    rest = pick("learner", REST_PORT)
    sims = {domain: pick(f"sim-{domain}", SIM_PORTS[domain]) for domain in config.domains}
    metrics = iter([pick("metrics", FIRST_METRICS_PORT + i) for i in range(len(sims) + 2)])
    if taken:
        raise OSError(
            f"{'; '.join(taken)}, but another process has it. "
            "Stop that process (`newt down` if it is an older stack) or use `newt up --any-port`."
        )

    python = sys.executable
    data = config.home / "data"
    address = redis_url(redis)
    specs = [
        ServiceSpec(
            "redis", [python, "-m", "newt.local.redis_server", str(config.home / "redis"), str(redis)], redis, "redis"
        ),
    ]

    def service(
        name: str, module: str, port: int, health: str, env: Mapping[str, str], threads: int = 1
    ) -> ServiceSpec:
        prefix = f"NEWT_{module.rpartition('.')[2].upper()}_"
        metrics_port = next(metrics)
        values = {
            **env,
            "HOST": ports.HOST,
            "PORT": str(port),
            "METRICS_HOST": ports.HOST,
            "METRICS_PORT": str(metrics_port),
        }
        return ServiceSpec(
            name,
            [python, "-m", module],
            port,
            health,
            {"OMP_NUM_THREADS": str(threads), **{prefix + key: value for key, value in values.items()}},
            metrics_port,
        )

    for domain, port in sims.items():
        env = {"DOMAINS": domain}
        if config.sim_workers:
            env["WORKERS"] = str(config.sim_workers)
        specs.append(service(f"sim-{domain}", "services.sim", port, "newt.v1.SimService", env))
    env = {"REDIS_URL": address}
    specs.append(service("replay", "services.replay", replay, "newt.v1.ReplayService", env))
    specs.append(
        ServiceSpec(
            "learner",
            [python, "-m", "services.learner"],
            rest,
            "http",
            {
                "OMP_NUM_THREADS": str(config.trainer_threads),
                "NEWT_LEARNER_HOST": ports.HOST,
                "NEWT_LEARNER_PORT": str(rest),
                "NEWT_LEARNER_HUB_PORT": str(hub),
                "NEWT_LEARNER_REDIS_URL": address,
                "NEWT_LEARNER_REPLAY": f"{ports.HOST}:{replay}",
                "NEWT_LEARNER_PLANNER": f"{ports.HOST}:{planner}",
                "NEWT_LEARNER_SIMS": json.dumps({d: f"{ports.HOST}:{port}" for d, port in sims.items()}),
                "NEWT_LEARNER_DATA_DIR": str(data),
                "NEWT_LEARNER_TORCH_THREADS": str(config.trainer_threads),
                **{name: os.environ[name] for name in LEARNER_ONLY if name in os.environ},
            },
        )
    )
    threads = config.planner_threads
    env = {"HUB": f"{ports.HOST}:{hub}", "TORCH_THREADS": str(threads)}
    specs.append(service("planner", "services.planner", planner, "newt.v1.PlannerService", env, threads))
    return specs


def environment(spec: ServiceSpec) -> dict[str, str]:
    """The full environment of a service's process: ours without NEWT_* settings of other services, plus its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("NEWT_") or key in PASSED_ON}
    return {**GRPC_ENVIRONMENT, **inherited, **spec.env}
