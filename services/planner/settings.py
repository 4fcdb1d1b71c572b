"""Settings of the planner service: NEWT_PLANNER_* environment variables."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from newt.settings import Address, GrpcServiceSettings
from newt.wire.limits import MAX_MODEL_BYTES


class PlannerSettings(GrpcServiceSettings):
    """What the planner can be told."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="NEWT_PLANNER_")

    port: int = Field(50071, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    hub: Address = Field("127.0.0.1:50081", description="Address of the weights hub (the learner), host:port.")
    name: str = Field(default_factory=socket.gethostname, description="Name of this replica, for the hub's logs.")
    device: str = Field("auto", description="Where to plan: auto (the first GPU, if any), cpu, cuda or cuda:N.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Type of the matrix products; auto is bfloat16 where the hardware has it."
    )
    torch_threads: int = Field(0, ge=0, description="Threads of one plan on the CPU; 0 leaves it to torch.")
    max_rows: int = Field(
        0, ge=0, description="Rows of one device batch, larger requests run in pieces; 0 picks 32 (CPU) or 256 (GPU)."
    )
    max_wait_ms: float = Field(
        2.0, ge=0, description="How long the first waiting request waits for the company that it met lately."
    )
    max_queued_rows: int = Field(4096, ge=1, description="Rows that may wait; further requests are refused.")
    pad: Literal["auto", "never", "always"] = Field(
        "auto",
        description="Pad batches to 1, 2, 4, 8 or a multiple of 16 rows, for few shapes; auto: on GPUs.",
    )
    compile: bool | None = Field(
        None,
        description="Compile the networks with torch.compile, in minutes during which plans are made without; null: on "
        "a GPU, if there is a C++ compiler.",
    )
    compile_cache: str = Field("", description="Folder that keeps compiled code between starts; empty: torch's choice.")
    graphs: bool = Field(
        False,
        description="Record the passes of plans and have the GPU repeat them (CUDA graphs). Each model then takes the "
        "memory of two, and that of a pass for each. Not measured yet. On a CPU it brings nothing.",
    )
    max_models: int = Field(8, ge=1, description="Models kept on the device; the least recently used makes room.")
    models_dir: str = Field(
        "",
        description="Folder with agents to serve beside those of the hub: NAME.safetensors, NAME.pt, or a folder NAME, "
        "whose newest checkpoint counts. Read again when one changes; empty for none. See docs/your-own-robot.md.",
    )
    max_model_bytes: int = Field(MAX_MODEL_BYTES, ge=1, description="Larger models are refused.")
    max_threads: int = Field(128, ge=2, description="Calls handled at once; each waits in a thread.")

    @model_validator(mode="after")
    def _rows_fit(self) -> PlannerSettings:
        if self.max_queued_rows < self.max_rows:
            raise ValueError(f"max_queued_rows {self.max_queued_rows} must not be below max_rows {self.max_rows}")
        return self
