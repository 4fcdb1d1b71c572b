"""Settings of the learner, from NEWT_LEARNER_* environment variables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from newt.client.shards import Away
from newt.errors import InvalidInputError
from newt.settings import Address, Addresses, ServiceSettings
from newt.tasks.domains import DOMAINS
from newt.wire.addresses import bare_host, host_port
from services.learner.data_folder import DataFolder


class LearnerSettings(ServiceSettings):
    """What the learner can be told."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="NEWT_LEARNER_", env_nested_delimiter="__", hide_input_in_errors=True
    )

    port: int = Field(8000, ge=0, le=65535, description="Port of the REST API; 0 picks a free one.")
    hub_host: str = Field("127.0.0.1", description="Address that the weights hub (gRPC) binds.")
    hub_port: int = Field(50081, ge=0, le=65535, description="Port of the weights hub; 0 picks a free one.")
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis of the run records: redis://, or rediss:// for TLS, with user and password if it has them.",
    )
    replay: Addresses = Field(
        "127.0.0.1:50061",
        description="gRPC target of the replay service, or of several over which tasks are spread, with commas between "
        "them: always in the same order, new ones last.",
    )
    replay_away: Away = Field(
        "wait",
        description="While one of several replay services is away: wait for it, or leave_out its tasks until it is "
        "back.",
    )
    planner: Address = Field("127.0.0.1:50071", description="gRPC target of the planner service.")
    sims: dict[str, Address] = Field(
        default_factory=dict,
        description="gRPC target of the simulator of every domain, and of simulators of your own tasks under names of "
        'your choice, as JSON: {"dmcontrol": "127.0.0.1:50051", "our-arm": "lab7:50051"}. '
        "NEWT_LEARNER_SIMS__our-arm=lab7:50051 adds one to them.",
    )
    data_dir: Path = Field(Path("data/learner"), description="Folder for checkpoints, videos, logs and results.")
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Names under which the REST API may be asked without a token, besides localhost, this machine's "
        'name and all addresses, as JSON: ["learner", ".example.org"]; a dot in front stands for all that end so. '
        "With NEWT_API_TOKEN any name will do.",
    )
    max_checkpoint_bytes: int = Field(
        8 << 30, ge=1 << 20, description="Most bytes that an uploaded checkpoint may have (PUT /checkpoints/NAME)."
    )
    max_concurrent_runs: int = Field(1, ge=1, description="Runs that may have processes at once; others are queued.")
    max_plays: int = Field(
        2, ge=0, description="Plays (somebody watches an agent, or plays) at once: a process each, with its own model."
    )
    torch_threads: int = Field(0, ge=0, description="CPU threads of a trainer; 0 leaves the choice to torch.")
    device: str = Field(
        "auto",
        description="Torch device of trainers: auto (GPUs, if any), cpu or cuda; each process gets a GPU of its own.",
    )
    image_encoder: str = Field(
        "facebook/dinov2-base",
        description="Image encoder of runs with obs state+rgb: a folder with a DINOv2, or its name in the local "
        "Hugging Face cache.",
    )
    image_device: str = Field("", description="Torch device of the image encoder; empty: that of trainers.")
    rendezvous: str = Field(
        "127.0.0.1:29400",
        pattern=r"^.+:\d+$",
        description="host:port of this learner at which the training processes of a run over several nodes meet. It "
        "has no authentication: open it to training nodes alone.",
    )
    node_template: str = Field(
        "",
        description="PodTemplate of Kubernetes by which the learner makes the further nodes of a run, as a JobSet; "
        "empty: somebody else starts them. Needs the extra kubernetes. See docs/deployment.md.",
    )
    node_queue: str = Field(
        "", description="LocalQueue of Kueue in which these JobSets wait for their turn; empty: none."
    )
    node_namespace: str = Field("newt", description="Namespace of the PodTemplate, the queue and the JobSets.")
    rank_timeout_s: float = Field(
        180.0,
        gt=0,
        description="How long a run's training processes wait for one of them before all end and start again; longer "
        "than writing a checkpoint takes.",
    )
    max_restarts: int = Field(
        3,
        ge=0,
        description="Restarts of a run's crashed processes per restart_window_s, and of nodes that do not last it.",
    )
    restart_window_s: float = Field(300.0, gt=0, description="Window of max_restarts; more crashes fail the run.")
    stop_grace_s: float = Field(
        20.0, gt=0, description="Time a process has to write its checkpoint before it is killed."
    )
    dependency_timeout_s: float = Field(
        120.0,
        gt=0,
        description="How long a run or an evaluation waits for a service that has never answered it before it fails.",
    )
    docker_host: str = Field(
        "",
        description="Docker engine that starts simulators on demand, as tcp://HOST:PORT; empty: nobody starts any. See "
        "docs/compose.md.",
    )
    docker_container: str = Field(
        "newt-{service}-1", description="Name of the container of a simulator service, with {service} in it."
    )
    docker_idle_s: float = Field(
        600.0, gt=0, description="How long a simulator that was started on demand runs on when no run needs it."
    )

    @property
    def folder(self) -> DataFolder:
        """Where everything lies below `data_dir`."""
        return DataFolder(self.data_dir.resolve())

    @property
    def hub_address(self) -> str:
        """host:port at which the processes of this machine find the weights hub."""
        # "All addresses" is where a server listens; as a destination no certificate names it.
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = bare_host(self.hub_host)
        return host_port(loopback.get(host, host), self.hub_port)

    def require_sims(self, domains: Iterable[str]) -> None:
        """Raises InvalidInputError, naming field `tasks`, unless all domains have a simulator configured."""
        unserved = sorted(set(domains) - set(self.sims))
        if unserved:
            have = ", ".join(sorted(self.sims)) or "none"
            raise InvalidInputError(
                "tasks",
                f"no simulator is configured for {', '.join(unserved)} (configured: {have}); leave these tasks out, or "
                "start the simulator and name it in NEWT_LEARNER_SIMS",
            )

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for child processes."""
        values = {**self.model_dump(mode="json"), "redis_url": self.redis_url.get_secret_value()}
        prefix = str(self.model_config["env_prefix"])
        return {
            f"{prefix}{name}".upper(): json.dumps(value) if isinstance(value, dict | list) else str(value)
            for name, value in values.items()
        }


def start_sim(domain: str) -> str:
    """What to do when a domain's simulator does not run."""
    if domain not in DOMAINS:
        return f"start the simulator {domain}, or correct its address in NEWT_LEARNER_SIMS"
    service = DOMAINS[domain].service
    return (
        f"start {service} (under compose: docker compose --profile {service} up -d), or correct its address in "
        "NEWT_LEARNER_SIMS"
    )
