"""What runs on one machine: the services, their ports and environments, in the order they start."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
# Up to the planner's port.
MOST_SHARDS = PORTS["planner"] - PORTS["replay"]
# In a stack's home: what `newt serve` gave to the planner.
MODELS_FOLDER = "models"

# How long a service has to end by itself.
STOP_GRACE_S = 20.0
# The switches of security in our own environment: those that all services get, those that only the learner gets.
PASSED_ON = ("NEWT_TLS_DIR", "NEWT_TLS_CALLERS", "NEWT_GRPC_REFLECTION", "NEWT_REDIS_PASSWORD_FILE")
TOKENS_FILE, ONE_TOKEN = "NEWT_API_TOKENS_FILE", ("NEWT_API_TOKEN", "NEWT_API_TOKEN_FILE")
# Variables that name files; the services run in another folder than the caller.
_PATHS = re.compile(r"NEWT_\w+_(DIR|FILE|ENCODER)|PYTHONPATH|HF_\w+|MS_ASSET_DIR|VK_ICD_FILENAMES")
# Of planner and trainers, unless NEWT_*_TORCH_THREADS says otherwise: threads that wait for each other on cores which
# they share with simulators are slower than one.
TORCH_THREADS = "1"


@dataclass(frozen=True)
class StackConfig:
    """What `newt up` was asked for.

    Attributes:
        home: Folder of the state file, logs, Redis data, checkpoints and videos.
        domains: Simulator domains to start, one process each.
        fixed_ports: The documented ports; False picks free ones (several stacks side by side).
        sim_workers: Worker processes per simulator service; 0 lets the service decide.
        owner_pid: The stack stops when this process is gone; 0 lets it run until `newt down`.
        sources: Where somebody's own tasks come from, by the name of the simulator that is started for each.
        pythons: Interpreter of the simulators of sources that have one of their own, by name (newt.own.environments).
        source_folder: Folder whose modules these may name; empty for none.
        sims: Addresses of simulators that run elsewhere, by name.
        replay_shards: Replay services over which tasks are spread, each with a Redis of its own. A home that holds the
            data of more gets as many.
    """

    home: Path
    domains: tuple[str, ...]
    fixed_ports: bool = True
    sim_workers: int = 0
    owner_pid: int = 0
    sources: Mapping[str, str] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    source_folder: str = ""
    sims: Mapping[str, str] = field(default_factory=dict)
    replay_shards: int = 1

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
        metrics_port: Port of its Prometheus endpoint; None if it has none, as Redis.
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


def shard_name(service: str, number: int) -> str:
    """Name of a shard's replay service or Redis: `replay` of the first, `replay-1` of the second."""
    return service if number == 0 else f"{service}-{number}"


def is_replay(name: str) -> bool:
    """Whether a service of this name is a replay service."""
    return re.fullmatch(r"replay(-\d+)?", name) is not None


def stored_shards(home: Path) -> int:
    """How many replay services a stack's home has data of; at least 1."""
    numbers = [int(path.name.rpartition("-")[2]) for path in home.glob("redis-*") if path.name[6:].isdigit()]
    return 1 + max(numbers, default=0)


def redis_url(port: int) -> str:
    """Address of the stack's Redis without its password, which everybody reads from its file."""
    user = f"{USER}@" if SecuritySettings().redis_password_file else ""
    return f"redis://{user}{ports.HOST}:{port}/0"


def build(config: StackConfig) -> list[ServiceSpec]:
    """The processes of a stack, in the order in which they start.

    A service gets the settings with its prefix from our environment (NEWT_SIM_WORKERS, ...), but for those that make
    the stack one: addresses, ports, domains and folders.

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

    shards = max(config.replay_shards, stored_shards(config.home))
    redis = [pick(shard_name("redis", i), PORTS["redis"] + i) for i in range(shards)]
    replay = [pick(shard_name("replay", i), PORTS["replay"] + i) for i in range(shards)]
    planner = pick("planner", PORTS["planner"])
    hub = pick("learner", PORTS["hub"])
    rest = pick("learner", REST_PORT)
    sims = {domain: pick(f"sim-{domain}", SIM_PORTS[domain]) for domain in config.domains}
    metrics = iter(
        [pick("metrics", FIRST_METRICS_PORT + i) for i in range(len(sims) + len(config.sources) + 2 + shards)]
    )
    if taken:
        raise OSError(
            f"{'; '.join(taken)}, but another process has it. "
            "Stop that process (`newt down` if it is an older stack) or use `newt up --any-port`."
        )

    python = sys.executable
    specs = []
    for i, port in enumerate(redis):
        name = shard_name("redis", i)
        argv = [python, "-m", "newt.local.redis_server", str(config.home / name), str(port)]
        specs.append(ServiceSpec(name, argv, port, "redis"))

    def service(
        name: str, module: str, port: int, health: str, values: Mapping[str, str], torch_threads: str | None = None
    ) -> ServiceSpec:
        metrics_port = next(metrics)
        values = {
            **values,
            "HOST": ports.HOST,
            "PORT": str(port),
            **({"CRASH_DIR": str(config.home / "crashes")} if module == "services.sim" else {}),
            "METRICS_HOST": ports.HOST,
            "METRICS_PORT": str(metrics_port),
        }
        return ServiceSpec(
            name, [python, "-m", module], port, health, _settings(module, values, torch_threads), metrics_port
        )

    for domain, port in sims.items():
        values = {"DOMAINS": domain, "SOURCES": "[]"}
        if config.sim_workers:
            values["WORKERS"] = str(config.sim_workers)
        specs.append(service(f"sim-{domain}", "services.sim", port, "newt.v1.SimService", values))
    path = os.pathsep.join(filter(None, [config.source_folder, os.environ.get("PYTHONPATH", "")]))
    for name, source in config.sources.items():
        sims[name] = ports.free_port()
        values = {"DOMAINS": "own", "SOURCES": json.dumps([source])}
        if config.sim_workers:
            values["WORKERS"] = str(config.sim_workers)
        own = service(f"sim-{name}", "services.sim", sims[name], "newt.v1.SimService", values)
        argv = [config.pythons.get(name, python), *own.argv[1:]]
        specs.append(replace(own, argv=argv, env={**own.env, "PYTHONPATH": path} if path else own.env))
    for i, (port, its_redis) in enumerate(zip(replay, redis, strict=True)):
        values = {"REDIS_URL": redis_url(its_redis)}
        specs.append(service(shard_name("replay", i), "services.replay", port, "newt.v1.ReplayService", values))
    values = {
        "HUB_HOST": ports.HOST,
        "HUB_PORT": str(hub),
        "REDIS_URL": redis_url(redis[0]),  # of the run records
        "REPLAY": ",".join(f"{ports.HOST}:{port}" for port in replay),
        "PLANNER": f"{ports.HOST}:{planner}",
        "SIMS": json.dumps({**{name: f"{ports.HOST}:{port}" for name, port in sims.items()}, **config.sims}),
        "DATA_DIR": str(config.home / "data"),
    }
    # With names, a token beside them is the command line's own.
    switches = (TOKENS_FILE,) if TOKENS_FILE in os.environ else ONE_TOKEN
    tokens = {name: os.environ[name] for name in switches if name in os.environ}
    learner = service("learner", "services.learner", rest, "http", values, TORCH_THREADS)
    specs.append(replace(learner, env={**learner.env, **tokens}))
    values = {"HUB": f"{ports.HOST}:{hub}", "MODELS_DIR": str(config.home / MODELS_FOLDER)}
    specs.append(service("planner", "services.planner", planner, "newt.v1.PlannerService", values, TORCH_THREADS))
    return specs


def _settings(module: str, own: Mapping[str, str], torch_threads: str | None = None) -> dict[str, str]:
    """The settings of a service: `own`, beside them those of our environment, then a default for its torch threads."""
    prefix = f"NEWT_{module.rpartition('.')[2].upper()}_"
    name = f"{prefix}TORCH_THREADS"
    env = {name: torch_threads} if torch_threads is not None else {}
    env.update((key, value) for key, value in os.environ.items() if key.startswith(prefix))
    env.update((f"{prefix}{key}", value) for key, value in own.items())
    threads = env.get(name, "1")
    # 0 leaves the number to torch, which would take it from this variable.
    return env if threads == "0" else {**env, "OMP_NUM_THREADS": threads}


def environment(spec: ServiceSpec) -> dict[str, str]:
    """The full environment of a service's process: ours without NEWT_* settings of other services, plus its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("NEWT_") or key in PASSED_ON}
    return {**GRPC_ENVIRONMENT, **inherited, **spec.env}


def with_absolute_paths(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for another working directory: what it names relative to this one is named from the root."""
    return {
        name: ":".join(os.path.abspath(part) if os.path.exists(part) else part for part in value.split(":"))
        if _PATHS.fullmatch(name)
        else value
        for name, value in environment.items()
    }
