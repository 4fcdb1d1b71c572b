"""The stage that says where the figures were taken."""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata, util

import torch

from bench import machine
from bench.gpu.document import Notebook
from bench.measure import Effort

_QUERY = "name,driver_version,clocks.max.sm,power.limit,memory.total"


def run(device: str, effort: Effort, notebook: Notebook) -> None:
    """Names the machine, its GPU and the libraries."""
    about = machine.describe()
    facts: dict[str, object] = {"processor": about["machine.processor"], "cores": about["machine.cores"]}
    facts |= {"torch": torch.__version__, "triton": metadata.version("triton") if util.find_spec("triton") else ""}
    notebook.table("machine", facts)
    where = torch.device(device)
    if where.type != "cuda":
        return
    notebook.table(
        "machine",
        {
            "gpu": torch.cuda.get_device_name(where),
            "capability": list(torch.cuda.get_device_capability(where)),
            "cuda": torch.version.cuda,
        },
    )
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        notebook.table("machine", {"nvidia_smi": answer.stdout.strip(), "nvidia_smi_fields": _QUERY})
