"""The stages of a session, each a process with a time limit: a driver that hangs costs its stage and nothing else."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.gpu.document import Document, Notebook, empty, write
from bench.measure import Effort

_DEATH_S = 5.0
_TINY_PATIENCE = 6  # A dry run measures nothing, and its machine may be busy.


@dataclass(frozen=True)
class Stage:
    """One process.

    Attributes:
        module: Module with `run(device, effort, notebook)`.
        limit_s: It is killed after this; in a dry run, after six times as long.
        beside: Whether the next stages begin without it.
    """

    module: str
    limit_s: float
    beside: bool = False


# In this order: right before fast, and drawing last, which may wedge the card.
STAGES: dict[str, Stage] = {
    "env": Stage("bench.gpu.environment", 20),
    "warm": Stage("bench.gpu.warm", 150, beside=True),
    "ceilings": Stage("bench.gpu.ceilings", 30),
    "correct": Stage("bench.gpu.correct", 70),
    "updates": Stage("bench.gpu.updates", 95),
    "plans": Stage("bench.gpu.plans", 95),
    "service": Stage("bench.gpu.service", 110),
    "sharing": Stage("bench.gpu.sharing", 40),
    "nccl": Stage("bench.gpu.links", 30),
    "egl": Stage("bench.gpu.drawing", 50),
}


def run_stage(name: str, device: str, tiny: bool, notebook: Notebook) -> None:
    """Runs a stage in this process."""
    module = importlib.import_module(STAGES[name].module)
    module.run(device, Effort("tiny" if tiny else "full"), notebook)


@dataclass
class _Running:
    name: str
    process: subprocess.Popen[bytes]
    notebook: Path
    errors: Path
    started: float
    limit_s: float


def run(output: Path, device: str, *, tiny: bool, names: Sequence[str]) -> Document:
    """Runs stages one after the other, and stores the document after each.

    Args:
        output: The file.
        device: Torch device.
        tiny: Smallest sizes.
        names: Stages to run.
    """
    document = {**empty(), "commit": machine.commit(), "date": machine.now(), "device": device, "tiny": tiny}
    write(output, document)
    started: list[_Running] = []
    try:
        for name in STAGES:
            if name not in names:
                continue
            started.append(_start(name, output, device, tiny))
            if not STAGES[name].beside:
                _finish(started[-1], document)
                write(output, document)
        for running in started:
            if STAGES[running.name].beside:
                _finish(running, document)
                write(output, document)
    finally:  # whoever interrupts a session leaves no stage of it behind
        for running in started:
            if running.process.poll() is None:
                _kill(running.process)
    return document


def _start(name: str, output: Path, device: str, tiny: bool) -> _Running:
    notebook, errors = (output.with_name(f"{output.name}.{name}.{kind}") for kind in ("lines", "log"))
    command = [sys.executable, "-m", "bench.gpu", "--stage", name, "--device", device, "--output", str(notebook)]
    notebook.unlink(missing_ok=True)
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [*command, *(["--tiny"] if tiny else [])], stdout=log, stderr=log, start_new_session=True
        )
    limit_s = STAGES[name].limit_s * (_TINY_PATIENCE if tiny else 1)
    return _Running(name, process, notebook, errors, time.monotonic(), limit_s)


def _finish(running: _Running, document: Document) -> None:
    process, killed = running.process, False
    try:
        process.wait(max(0.1, running.started + running.limit_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        killed = True
        _kill(process)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver: it is left behind
            process.wait(_DEATH_S)
    Notebook(running.notebook).pour_into(document)
    lines = running.errors.read_text(errors="replace").strip().splitlines()
    document["stages"].append(
        {
            "name": running.name,
            "seconds": round(time.monotonic() - running.started, 1),
            "rc": process.poll(),
            "killed": killed,
            "error": lines[-1] if lines and process.poll() != 0 else "",
        }
    )
    running.errors.unlink()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
